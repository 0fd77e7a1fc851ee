"""The figure of a calibration shows what the evaluations hold."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.special import ndtr

from galbatch.models import LEVELS, Evaluation, ParameterInfo
from galbatch.reporting import write_calibration
from galbatch.reporting.networks import calibration

N = 900


def evaluation(width, *, strata=True):
    """Two parameters, with residuals of N(0, 1) in a posterior of N(0, width)."""
    rng = np.random.default_rng(1)
    transform = ndtr(rng.normal(size=(N, 2)) / width)
    none = np.zeros((N, 2), dtype=bool)
    size = np.linspace(0.2, 4.0, N)
    return Evaluation(
        parameters=(ParameterInfo("re_arcsec", "arcsec", "", "ln"), ParameterInfo("a", "", "", "identity")),
        labels=np.stack([size, size], axis=1),
        cdf=transform,
        transform=transform,
        at_low=none,
        at_high=none,
        released=np.zeros((N, 2, 3, 2)),
        median=np.zeros((N, 2)),
        mode=np.zeros((N, 2)),
        strata={"size_arcsec": size, "magnitude": np.linspace(18, 22, N)} if strata else {},
        n_passes=8,
    )


@pytest.fixture(scope="module")
def figures():
    """The figures that are saved, coarsely."""
    saved = []
    save = Figure.savefig
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda self, *a, **k: (saved.append(self), save(self, *a, **k)))
        patch.setattr("galbatch.reporting.figures.DPI", 40)
        yield saved


@pytest.fixture(scope="module")
def drawn(figures, tmp_path_factory):
    """Evaluations before and after, and the figure's axes (row, column)."""
    path = tmp_path_factory.mktemp("figure") / "a.png"
    before, after = evaluation(2.0), evaluation(1.0)
    write_calibration(before, after, str(path), title="sum 1")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert "sum 1: 900 test objects" in figures[-1].get_suptitle()
    return before, after, np.array(figures[-1].axes).reshape(4, 2)


def test_the_figure_shows_coverage_before_and_after(drawn):
    before, after, axes = drawn
    for line_label, shown in (("uncorrected", before), ("corrected", after)):
        (line,) = [line for line in axes[0, 1].lines if line.get_label() == line_label]
        excess = np.interp(LEVELS[0], line.get_xdata(), line.get_ydata())
        assert excess == pytest.approx(shown.coverage("a").value - LEVELS[0], abs=0.01)


def test_every_object_is_in_the_histogram(drawn):
    _, after, axes = drawn
    heights = [bar.get_height() for bar in axes[1, 0].containers[0]]
    np.testing.assert_array_equal(heights, np.histogram(after.transform[:, 0], 20, (0, 1))[0])
    assert sum(heights) == N


def test_bands_are_two_binomial_deviations(drawn):
    (band,) = drawn[2][0, 0].collections
    top = band.get_paths()[0].vertices[:, 1].max()
    assert top == pytest.approx(2 * np.sqrt(0.25 / N), rel=1e-6)


def test_points_by_size_are_the_shares_of_their_bins(drawn):
    _, after, axes = drawn
    points = axes[3, 0].containers[1].lines[0]  # of the lowest level, corrected
    small = after.strata["size_arcsec"] < 0.5
    assert points.get_ydata()[0] == pytest.approx(after.covered(LEVELS[0])[small, 0].mean())
    assert points.get_xdata()[0] == pytest.approx(after.strata["size_arcsec"][small].mean())


def test_without_magnitude_and_size_two_rows_are_left(figures, tmp_path):
    write_calibration(
        evaluation(1.0, strata=False), evaluation(1.0, strata=False), str(tmp_path / "a.png"), title="a"
    )
    assert len(figures[-1].axes) == 4
    assert figures[-1].get_size_inches()[1] == pytest.approx(2 * calibration.ROW_INCHES + 0.5)
