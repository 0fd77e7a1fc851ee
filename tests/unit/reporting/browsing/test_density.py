import numpy as np

from galbatch.reporting.browsing.density import CELLS, counts_in_cells, inside


def test_counts_are_those_of_numpys_histogram():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=50_000), rng.normal(3, 2, size=50_000)
    x[:10] = np.nan
    x_ends, y_ends = (-1.5, 2.0), (0.0, 5.0)
    there = inside(x, y, x_ends, y_ends)
    counts = counts_in_cells(x[there], y[there], x_ends, y_ends)
    expected = np.histogram2d(y[10:], x[10:], bins=CELLS, range=(y_ends, x_ends))[0]
    assert counts.shape == CELLS
    # Edges of cells are rounded in another way: a few points of 50,000 may fall on the other side.
    assert np.abs(np.nan_to_num(counts) - expected).sum() <= 4
    assert np.nansum(counts) == there.sum()
    assert not (counts == 0).any()


def test_the_upper_ends_belong_to_the_last_cells():
    ends = (0.0, 1.0)
    x = np.array([0.0, 1.0])
    assert inside(x, x, ends, ends).all()
    counts = counts_in_cells(x, x, ends, ends)
    assert (counts[0, 0], counts[-1, -1], np.nansum(counts)) == (1, 1, 2)
