"""The speed of engines: what a pass costs, and the engine that is timed first."""

import pytest

from galbatch import doctor, models
from galbatch.doctor.steps import ENGINES


def test_work_of_a_pass_at_the_papers_width():
    """33.7 GFLOP behind the first dropout at 239 px: 16.8 G products and as many sums."""
    assert models.pass_flops(239) == pytest.approx(33.7e9, rel=0.01)
    assert models.pass_flops(96, 0.5) == pytest.approx(models.pass_flops(96) / 4, rel=0.01)


def test_the_engine_that_auto_takes_on_a_gpu_is_timed_first_there():
    assert models.auto_engine("cuda") == ENGINES["cuda"][0] == "rebuilt-float16"
    timed = [step.arguments["engine"] for step in doctor.steps_of(device="cuda") if step.subject == "passes"]
    assert timed[0] == "rebuilt-float16"
