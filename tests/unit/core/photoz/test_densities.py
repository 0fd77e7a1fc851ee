import itertools

import numpy as np
import pytest
from scipy import integrate, stats

from galbatch.core.photoz import (
    GridDensities,
    cde_loss,
    density_peaks,
    highest_density_parts,
    histogram_crps,
    shortest_intervals,
)

FINE = np.linspace(-1.0, 3.0, 4001)


def gridded(distribution, edges=FINE):
    return GridDensities(edges, np.diff(distribution.cdf(edges))[None])


def test_a_normal_density_has_its_closed_forms():
    normal = stats.norm(0.8, 0.1)
    grid = gridded(normal)
    assert grid.square_integral()[0] == pytest.approx(1 / (2 * 0.1 * np.sqrt(np.pi)), rel=1e-4)
    for z in (0.5, 0.8, 1.03):
        at = np.array([z])
        assert grid.transform(at)[0] == pytest.approx(normal.cdf(z), abs=1e-5)
        assert grid.at(at)[0] == pytest.approx(normal.pdf(z), rel=0.02)
        w = (z - 0.8) / 0.1  # Gneiting & Raftery 2007, equation 21.
        crps = 0.1 * (w * (2 * stats.norm.cdf(w) - 1) + 2 * stats.norm.pdf(w) - 1 / np.sqrt(np.pi))
        assert grid.crps(at)[0] == pytest.approx(crps, rel=1e-3)
    for level, n_sigma in ((0.6827, 1.0), (0.9545, 2.0)):
        ends = shortest_intervals(grid.edges, grid.mass, level)[0]
        np.testing.assert_allclose(ends, [0.8 - n_sigma * 0.1, 0.8 + n_sigma * 0.1], atol=2e-3)


def test_the_crps_of_unequal_bins_is_the_integral():
    edges = np.array([0.0, 0.1, 0.5, 0.6, 2.0])
    cdf = np.array([[0.0, 0.3, 0.35, 0.9, 1.0]])

    def squared(x, z):
        return (np.interp(x, edges, cdf[0]) - (x >= z)) ** 2

    for z in (0.0, 0.05, 0.5, 0.83, 2.0):
        points = sorted({*edges.tolist(), z})
        expected = sum(integrate.quad(squared, a, b, args=(z,))[0] for a, b in itertools.pairwise(points))
        assert histogram_crps(edges, cdf, np.array([z]))[0] == pytest.approx(expected, rel=1e-9)
    # A truth outside is as far away as its distance says.
    at_end = histogram_crps(edges, cdf, np.array([2.0]))[0]
    assert histogram_crps(edges, cdf, np.array([2.7]))[0] == pytest.approx(at_end + 0.7)


def test_the_shortest_interval_of_an_exponential_begins_at_its_mode():
    grid = gridded(stats.expon(0.0, 0.3), np.linspace(0, 8, 4001))
    low, high = shortest_intervals(grid.edges, grid.mass, 0.6827)[0]
    assert low == pytest.approx(0.0, abs=1e-9)
    assert high == pytest.approx(-0.3 * np.log(1 - 0.6827), abs=1e-3)


def test_the_shortest_interval_is_that_of_a_search_over_all_ends():
    rng = np.random.default_rng(3)
    edges = np.array([0.0, 0.2, 0.3, 0.7, 1.0, 1.6])
    mass = rng.dirichlet(np.full(5, 0.6), 30)
    mass[0] = [0.5, 0.0, 0.0, 0.5, 0.0]
    found = shortest_intervals(edges, mass, 0.5)
    at = np.linspace(0, 1.6, 3201)
    for row in range(30):
        cdf = np.interp(at, edges, np.concatenate([[0], np.cumsum(mass[row])]))
        ends = np.searchsorted(cdf, cdf + 0.5 - 1e-12)
        lengths = [at[e] - at[s] for s, e in enumerate(ends) if e < len(at)]
        assert found[row, 1] - found[row, 0] == pytest.approx(min(lengths), abs=1.1e-3)
    np.testing.assert_allclose(found[0], [0.0, 0.2], atol=1e-12)


def test_there_is_no_interval_where_too_little_lies_on_the_grid():
    mass = np.array([[0.3, 0.3], [0.5, 0.5], [np.nan, np.nan]])
    found = shortest_intervals(np.array([0.0, 1.0, 2.0]), mass, 0.68)
    assert np.isnan(found[[0, 2]]).all()
    assert np.isfinite(found[1]).all()


def test_peaks_are_counted_by_their_prominence():
    z = 0.5 * (FINE[1:] + FINE[:-1])
    one, two = stats.norm(0.3, 0.05).pdf(z), stats.norm(1.0, 0.05).pdf(z)
    densities = np.stack(
        [one, one + two, one + 0.05 * two, one + 0.2 * two, np.ones_like(z), np.zeros_like(z), np.nan * z]
    )
    assert density_peaks(densities).tolist() == [1, 2, 1, 2, 1, 0, 0]
    # A peak at either end of the grid is one, too.
    assert density_peaks(np.array([[3.0, 1.0, 0.0, 2.0]])).tolist() == [2]


def test_a_region_of_highest_density_may_be_several_intervals():
    edges = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    mass = np.array(
        [
            [0.05, 0.25, 0.4, 0.25, 0.05],
            [0.4, 0.05, 0.05, 0.1, 0.4],
            [0.3, 0.0, 0.4, 0.0, 0.3],
            [0.1, 0.1, 0.1, 0.1, 0.1],
            np.full(5, np.nan),
        ]
    )
    assert highest_density_parts(edges, mass, 0.6827).tolist() == [1, 2, 2, -1, -1]
    assert highest_density_parts(edges, mass, 0.89).tolist() == [1, 2, 3, -1, -1]
    # 0.3 in a bin of a tenth of the width is the highest density.
    narrow = np.array([0.0, 1.0, 2.0, 2.1, 3.0, 4.0])
    assert highest_density_parts(narrow, np.array([[0.35, 0.0, 0.3, 0.0, 0.35]]), 0.25).tolist() == [1]


def test_two_normals_are_two_intervals_until_they_meet():
    edges = np.linspace(0.0, 2.0, 401)
    for apart, expected in ((0.9, 2), (0.1, 1)):
        parts = [stats.norm(1.0 + sign * apart / 2, 0.06).cdf(edges) for sign in (-1, 1)]
        mass = np.diff(np.mean(parts, axis=0))[None]
        assert highest_density_parts(edges, mass, 0.6827).tolist() == [expected]
        low, high = shortest_intervals(edges, mass, 0.6827)[0]
        # The shortest interval of two far peaks holds the valley: it is longer than the region.
        assert (high - low > 0.5) == (expected == 2)


def test_the_cde_loss_is_least_for_the_right_density():
    truth = stats.norm(0.5, 0.1).rvs(20_000, random_state=np.random.default_rng(1))
    edges = np.linspace(-1, 2, 301)

    def loss(width):
        grid = GridDensities(
            edges, np.repeat(np.diff(stats.norm(0.5, width).cdf(edges))[None], len(truth), axis=0)
        )
        return cde_loss(grid.square_integral(), grid.at(truth))

    # The expected loss of N(0.5, w) is 1 / (2 w sqrt(pi)) - 2 N(0 | sqrt(w^2 + 0.1^2)).
    for width in (0.07, 0.1, 0.14):
        expected = 1 / (2 * width * np.sqrt(np.pi)) - 2 * stats.norm(0, np.hypot(width, 0.1)).pdf(0)
        assert loss(width) == pytest.approx(expected, abs=0.03)
    assert loss(0.1) < min(loss(0.07), loss(0.14))


def test_redshifts_outside_the_grid_have_no_density():
    grid = GridDensities(np.array([0.0, 1.0, 2.0]), np.array([[0.5, 0.4]] * 4))
    z = np.array([-0.1, 0.5, 2.0, 2.1])
    np.testing.assert_allclose(grid.at(z), [0, 0.5, 0.4, 0])
    np.testing.assert_allclose(grid.transform(z), [0, 0.25, 0.9, 0.9])
