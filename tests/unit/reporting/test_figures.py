import itertools

import numpy as np
import pytest
from matplotlib.figure import Figure

from galbatch.reporting import figures
from galbatch.reporting.contents import Quantity
from galbatch.reporting.figures import running_quantiles, scatter_panels, use_logarithm
from galbatch.reporting.recovery import Comparison


def test_running_quantiles_follow_the_residuals():
    """Residuals of std 1 about a line of slope 0.5: its value, and one std above and below."""
    rng = np.random.default_rng(2)
    x = rng.uniform(0, 10, 40_000)
    course = running_quantiles(x, 0.5 * x + rng.standard_normal(len(x)))
    assert course.shape == (20, 4)
    np.testing.assert_allclose(course[:, 0], np.arange(0.25, 10, 0.5), atol=0.05)
    # Within a group of width 0.5 the line itself adds 0.07 to the std.
    for column, offset in ((1, -1), (2, 0), (3, 1)):
        np.testing.assert_allclose(course[:, column], 0.5 * course[:, 0] + offset, atol=0.12)


def test_few_objects_have_no_running_median():
    assert running_quantiles(np.arange(49.0), np.arange(49.0)).shape == (0, 4)
    assert running_quantiles(np.arange(50.0), np.arange(50.0)).shape == (2, 4)


@pytest.mark.parametrize(
    "ends", [(0.1, 5.0), (0.3, 12.0), (900.0, 3e4), (1e-3, 1e4), (1e3, 5e6), (2e3, 1.9e5)]
)
def test_ticks_of_a_logarithmic_axis_do_not_overlap(ends):
    # As narrow as a panel of four parameters in the report, where 2000, 5000 and 1e4 touched each other.
    figure = Figure(figsize=(2.2, 2.2), layout="constrained")
    axes = figure.add_subplot()
    use_logarithm(axes, "x", ends[1] / ends[0])
    axes.set_xlim(*ends)
    axes.tick_params(labelsize=9)
    figure.draw_without_rendering()
    boxes = [
        tick.label1.get_window_extent()
        for tick in axes.xaxis.get_major_ticks()
        if tick.label1.get_text() and ends[0] <= tick.get_loc() <= ends[1]
    ]
    assert len(boxes) >= 2
    gaps = [after.x0 - before.x1 for before, after in itertools.pairwise(boxes)]
    assert min(gaps) > 2
    assert [tick.label1.get_text() for tick in axes.xaxis.get_minor_ticks() if tick.label1.get_text()] == []


def test_points_are_a_sample_and_limits_are_of_all(monkeypatch):
    monkeypatch.setattr(figures, "MOST_POINTS", 40)
    truth = np.linspace(0.0, 0.9, 500)
    truth[-1] = 0.99
    quantiles = truth[:, None] + 0.01 * np.array([-1.0, 0.0, 1.0])
    comparison = Comparison(Quantity("gampen", "bt", "", (0.15865, 0.5, 0.84135), quantiles), truth)
    against, residual = Figure().subplots(2)
    scatter_panels(against, residual, comparison)
    for axes, values in ((against, truth), (residual, 0 * truth)):
        points = axes.collections[0].get_offsets()
        assert len(points) == 40
        np.testing.assert_allclose(points[:, 1], values[np.searchsorted(truth, points[:, 0])], atol=1e-12)
    # The largest truth, which the sample has not, and 3 % of the range.
    assert against.get_xlim()[1] == pytest.approx(0.99 * 1.03)
