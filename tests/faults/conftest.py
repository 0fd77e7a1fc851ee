"""A survey, a bundle and a finished run that faults strike, and the table of what came of them."""

from collections import Counter

import pytest

from tests.faults import toy
from tests.faults.commands import galbatch
from tests.faults.outputs import OnDisk

SHORT_SEEDS = (0, 1, 2, 5)
"""What the long tests play: a killed worker, a flipped byte, a killed run, an object store that answers 503."""


def pytest_generate_tests(metafunc):
    if "seed" in metafunc.fixturenames:
        from tests.faults import kinds

        count = metafunc.config.getoption("--faults", default=None)
        first = metafunc.config.getoption("--first-fault", default=0)
        seeds = SHORT_SEEDS if count is None else range(first, first + count)
        metafunc.parametrize("seed", seeds, ids=lambda seed: f"{seed}-{kinds.of_seed(seed)[0].name}")


def pytest_terminal_summary(terminalreporter):
    """Print how many faults of each kind there were, how the runs came through, and how many objects were lost."""
    found = [
        dict(report.user_properties)
        for status in ("passed", "failed")
        for report in terminalreporter.stats.get(status, ())
        if any(name == "fault" for name, _ in getattr(report, "user_properties", ()))
    ]
    if not found:
        return
    rows = Counter((one["fault"], one["where"], one["came through"]) for one in found)
    lost = Counter()
    for one in found:
        lost[one["fault"], one["where"], one["came through"]] += one["lost"]
    terminalreporter.section("faults")
    terminalreporter.write_line("| fault | place | came through | runs struck | objects lost |")
    terminalreporter.write_line("|---|---|---|---|---|")
    for key, n in rows.items():
        terminalreporter.write_line(f"| {' | '.join(key)} | {n} | {lost[key]} |")
    terminalreporter.write_line(f"{len(found)} faults, {sum(lost.values())} objects lost")


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
