import numpy as np
import pytest

from galbatch.simulation import draw_population
from galbatch.simulation.counts import GALAXY_COUNTS, STAR_COUNTS
from galbatch.simulation.light.camera import draw_psfs
from galbatch.simulation.light.noise import CORRELATION, correlated
from galbatch.simulation.surroundings import draw_neighbors


@pytest.fixture(scope="module")
def galaxies():
    return draw_population(8_000, bands=("g", "r", "i"), population="survey", seed=7).to_pandas()


def test_counts_are_those_of_the_sources_cited():
    # LSST Science Book: 46 x 10^(0.31 (i - 25)) per arcmin^2, here between two magnitudes past the knot.
    wanted = 46 * (10 ** (0.31 * -0.5) - 10 ** (0.31 * -4))
    assert GALAXY_COUNTS.per_arcmin2(21, 24.5) == pytest.approx(wanted, rel=1e-6)
    # SDSS's main sample: 92 per deg^2 to r = 17.77; ours is a quarter above it.
    assert 3600 * GALAXY_COUNTS.per_arcmin2(5, 17.4) == pytest.approx(92, rel=0.3)
    assert 3600 * STAR_COUNTS.per_arcmin2(5, 20) == pytest.approx(2345, rel=0.01)


@pytest.mark.parametrize("counts", [GALAXY_COUNTS, STAR_COUNTS], ids=["galaxies", "stars"])
def test_drawn_magnitudes_follow_the_counts(counts):
    mag = counts.draw(np.random.default_rng(1).random(200_000), 16.0, 25.0)
    assert 16.0 <= mag.min() < 17.0
    assert 24.99 < mag.max() <= 25.0
    for edge in (18.0, 20.5, 22.0, 24.0):
        wanted = counts.per_arcmin2(16, edge) / counts.per_arcmin2(16, 25)
        assert (mag < edge).mean() == pytest.approx(wanted, abs=5 * np.sqrt(wanted / 200_000))


def test_targets_have_the_slope_of_the_counts(galaxies):
    n, _ = np.histogram(galaxies.mag_i, bins=[20.5, 21, 21.5, 22, 22.5, 23])
    slope = np.polyfit(np.arange(5) * 0.5, np.log10(n), 1)[0]
    assert slope == pytest.approx(0.31, abs=0.03)
    assert galaxies.mag_i.min() > 16
    assert galaxies.mag_i.max() <= 23


def test_fainter_galaxies_are_smaller(galaxies):
    """The median disk alone: 1.678 exp(-1.145 - 0.269 (i - 23)) arcsec, with a log-normal scatter of 0.40."""
    disks = galaxies[galaxies.bt == 0]
    assert len(disks) == pytest.approx(2000, abs=120)
    residual = np.log(disks.re_arcsec / 1.678) + 1.145 + 0.269 * (disks.mag_i - 23)
    assert residual.median() == pytest.approx(0.0, abs=0.03)
    assert residual.std() == pytest.approx(0.40, abs=0.02)


def test_shares_of_kinds_and_fluxes(galaxies):
    assert (galaxies.bt == 1).mean() == pytest.approx(0.10, abs=0.011)
    inside = galaxies.bt[(galaxies.bt > 0) & (galaxies.bt < 1)]
    assert inside.mean() == pytest.approx(0.9 / 2.7, abs=0.013)
    for band in "gri":
        parts = galaxies[f"disk_flux_{band}_njy"].fillna(0) + galaxies[f"bulge_flux_{band}_njy"].fillna(0)
        np.testing.assert_allclose(parts, galaxies[f"flux_{band}_njy"], rtol=1e-12)
    np.testing.assert_allclose(
        galaxies.bulge_flux_g_njy.fillna(0), galaxies.bt * galaxies.flux_njy, rtol=1e-12
    )
    assert (galaxies.re_arcsec > 0).all()


def test_bands_do_not_change_the_galaxies():
    one, two = (draw_population(40, bands=b, population="survey", seed=4) for b in (("r",), ("g", "r", "i")))
    for name in one.column_names:
        assert one[name].equals(two[name]), name


def test_neighbors_are_as_dense_as_the_counts():
    """In 60 fields of 136 arcsec: 5.1 arcmin^2 each."""
    settings = {"size_px": 571, "flux_g_njy": 1e9, "pixel_scale_arcsec": 0.168}
    drawn = [draw_neighbors(("g",), np.random.default_rng([1, k]), **settings) for k in range(60)]
    area = 60 * ((571 * 0.168 + 40) / 60) ** 2
    places = np.concatenate([np.unique(one.galaxies.position_px, axis=0) for one in drawn])
    wanted = area * GALAXY_COUNTS.per_arcmin2(16, 25.5)
    assert len(places) == pytest.approx(wanted, abs=4 * np.sqrt(wanted))
    inside = ((places > 0) & (places < 571)).all(axis=1).mean()
    assert inside == pytest.approx((571 * 0.168 / (571 * 0.168 + 40)) ** 2, abs=0.02)
    stars = sum(len(one.stars) for one in drawn)
    wanted = area * STAR_COUNTS.per_arcmin2(14, 25.5)
    assert stars == pytest.approx(wanted, abs=4 * np.sqrt(wanted))


def test_nothing_brighter_lies_upon_a_target():
    near = 0
    for seed in range(40):
        faint, bright = (
            draw_neighbors(
                ("g",), np.random.default_rng(seed), size_px=96, flux_g_njy=flux, pixel_scale_arcsec=0.168
            )
            for flux in (0.0, 1e9)
        )
        distance = np.hypot(*(faint.galaxies.position_px - 48).T) * 0.168
        assert distance.min() > 0.8
        near += len(bright.galaxies) - len(faint.galaxies)
    assert near > 0


def test_noise_is_correlated_as_stated():
    noise = correlated(np.random.default_rng(2).standard_normal((1202, 1202)))
    assert noise.shape == (1200, 1200)
    assert noise.std() == pytest.approx(1.0, abs=0.004)
    for lag, stated in zip((1, 2, 3), (*CORRELATION, 0.0), strict=True):
        for one, other in ((noise[lag:], noise[:-lag]), (noise[:, lag:], noise[:, :-lag])):
            assert (one * other).mean() == pytest.approx(stated, abs=0.005)
    blocks = noise.reshape(60, 20, 60, 20).sum(axis=(1, 3))
    assert blocks.std() / 20 == pytest.approx(1.41, abs=0.05)


def test_psfs_scatter_by_eight_percent():
    widths = [[p.fwhm_arcsec for p in draw_psfs(("g", "i"), np.random.default_rng(k))] for k in range(3000)]
    relative = np.array(widths) / [0.85, 0.66]
    np.testing.assert_allclose(relative[:, 0], relative[:, 1])
    assert relative.mean() == pytest.approx(1.0, abs=0.01)
    assert relative.std() == pytest.approx(0.08, abs=0.005)
