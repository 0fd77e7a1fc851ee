"""A survey, a bundle and a finished run that faults strike, and the table of what came of them."""

import json
import re
from pathlib import Path

import pytest

from tests.faults import toy
from tests.faults.commands import galbatch
from tests.faults.outputs import OnDisk

SHORT_SEEDS = (*range(9), 17)
"""Ten that the long tests play, of different kinds."""


def pytest_generate_tests(metafunc):
    if "seed" in metafunc.fixturenames:
        from tests.faults import kinds

        count = metafunc.config.getoption("--faults", default=None)
        first = metafunc.config.getoption("--first-fault", default=0)
        seeds = SHORT_SEEDS if count is None else range(first, first + count)
        metafunc.parametrize("seed", seeds, ids=lambda seed: f"{seed}-{kinds.of_seed(seed)[0].name}")


def pytest_configure(config):
    """Write a line of JSON for each fault that was played, where a log is asked for."""
    # The processes of xdist report to the first one, which writes.
    if (path := config.getoption("--faults-log", default=None)) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(FaultsLog(path))


class FaultsLog:
    """The log of the faults: seed, fault, place, whether it struck, how the run came through, objects lost, seconds, whether the test passed."""

    def __init__(self, path):
        self.path = Path(path)

    def pytest_runtest_logreport(self, report):
        said = dict(report.user_properties)
        if report.when != "call" or "fault" not in said:
            return
        line = {
            "seed": int(re.search(r"\[(\d+)-", report.nodeid)[1]),
            "fault": said["fault"],
            "where": said["where"],
            "struck": said.get("struck", False),
            "came through": said.get("came through", ""),
            "lost": said.get("lost", 0),
            "seconds": round(report.duration),
            "passed": report.passed,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


@pytest.fixture(scope="session")
def undisturbed(survey, tmp_path_factory):
    """Folder with the inputs, and with the outputs of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    toy.write_bundle(folder / "toy.pt")
    toy.write_objects(survey, folder / "objects.parquet")
    text = toy.RUN_TOML.format(
        survey=survey,
        objects=folder / "objects.parquet",
        bundle=folder / "toy.pt",
        outputs=folder / "outputs",
    )
    (folder / "run.toml").write_text(text)
    done = galbatch("run", folder / "run.toml", env={})
    assert done.code == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def undisturbed_outputs(undisturbed):
    return OnDisk(undisturbed / "outputs")
