"""The page about two survey runs is true: its commands do what it says, with workers of this machine in place of SLURM's."""

import os
import re
import signal

import psutil
import pytest

from galbatch import config
from tests.integration import howto
from tests.processes import workers_below

LOCAL = '[cluster]\nkind = "local"\nworkers = 2\ndashboard_address = "127.0.0.1:0"\n'


@pytest.mark.parametrize("name", ["hsc.toml", "lsst.toml"])
def test_the_configs_are_valid(tmp_path, name):
    path = tmp_path / name
    path.write_text(howto.configs()[name])
    parsed = config.read_config(path)
    assert parsed.cluster.kind == "slurm"
    assert parsed.cluster.slurm is not None
    assert not parsed.cutouts.keep


@pytest.mark.parametrize("survey", ["hsc", "lsst"])
def test_the_commands_are_those_of_the_survey(survey):
    told = howto.commands(survey)
    assert told[0] == f"galbatch objects check {'pdr3_wide' if survey == 'hsc' else 'dp1'}/objects.parquet"
    assert f"galbatch verify {survey}_catalog --against {survey}.toml" in told
    assert len(told) == 11


def kill_a_worker(process):
    """Kill one of the worker processes of a run with kind = "local"."""
    try:
        workers_below(process.pid)[0].send_signal(signal.SIGKILL)
    except (psutil.NoSuchProcess, IndexError):
        # The run has ended meanwhile.
        assert process.wait(howto.WITHIN_S) == 0


@pytest.mark.slow
@pytest.mark.parametrize("survey", ["hsc", "lsst"])
def test_the_page_is_followed(tmp_path, survey):
    (squeue := tmp_path / "bin" / "squeue").parent.mkdir()
    squeue.write_text("#!/bin/sh\n")
    squeue.chmod(0o755)
    environment = os.environ | {"PATH": f"{squeue.parent}:{os.environ['PATH']}"}
    reader = howto.Reader(tmp_path, survey, lose_a_worker=kill_a_worker, environment=environment)
    reader.make_the_stand_in()
    text = howto.configs()[f"{survey}.toml"]
    (tmp_path / f"{survey}.toml").write_text(text[: text.index("[cluster]")] + LOCAL)
    said = reader.follow()
    n_objects = int(
        re.search(r"^objects +([0-9,]+)", said[f"galbatch plan {survey}.toml"], re.MULTILINE)[1].replace(
            ",", ""
        )
    )
    assert n_objects > 100
    n_rows, n_good, mean = said["python"].split()
    assert int(n_rows) == n_objects
    # Simulated galaxies on simulated tiles: most are as the network knows them.
    assert int(n_good) > 0
    assert 0 < float(mean) < 1
    assert (tmp_path / f"{survey}_report.html").stat().st_size > 20_000
    # With keep = false no cutouts are left.
    assert not list((tmp_path / f"{survey}_cutouts").rglob("_done.json"))
