"""The page about two survey runs is true with SLURM, word for word."""

import re

import pytest

from tests.integration import howto


@pytest.mark.parametrize("survey", ["hsc", "lsst"])
def test_the_page_is_followed(site, tmp_path, survey):
    def cancel_a_job(process):
        jobs = [line.split()[0] for line in site.jobs() if line.endswith("RUNNING")]
        assert jobs or process.wait(howto.WITHIN_S) == 0
        if jobs:
            site.command("scancel", jobs[0])

    reader = howto.Reader(tmp_path, survey, lose_a_worker=cancel_a_job, environment=site.environment)
    reader.make_the_stand_in()
    (tmp_path / f"{survey}.toml").write_text(howto.configs()[f"{survey}.toml"])
    said = reader.follow()
    planned = re.search(r"^objects +([0-9,]+)", said[f"galbatch plan {survey}.toml"], re.MULTILINE)[1]
    assert said["python"].split()[0] == planned.replace(",", "")
    site.wait(lambda: not site.jobs(), "no job outlives the runs")
