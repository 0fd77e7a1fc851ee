import numpy as np
import pytest

from galbatch.core.types import ab_mag
from galbatch.errors import ConfigError
from galbatch.simulation import draw_population
from galbatch.simulation.population import half_light_radius


@pytest.fixture(scope="module")
def galaxies():
    return draw_population(4000, bands=("g", "r"), seed=7).to_pandas()


def brute_force_radius(galaxy):
    """Half-light isophote by sorting a million cells of a log-polar grid by brightness."""
    radii = np.geomspace(1e-4, 500, 4000)
    phi = (np.arange(360) + 0.5) * np.pi / 360
    x, y = radii * np.cos(phi)[:, None], radii * np.sin(phi)[:, None]
    brightness = np.zeros_like(x)
    for part, share in (("disk", 1 - galaxy.bt), ("bulge", galaxy.bt)):
        n, re, q, angle = (galaxy[f"{part}_{name}"] for name in ("n", "re_arcsec", "axis_ratio", "angle_deg"))
        b = 2 * n - 1 / 3 + 4 / (405 * n) + 46 / (25515 * n**2)  # Ciotti & Bertin 1999, eq. 18
        turn = np.deg2rad(angle)
        along, across = x * np.cos(turn) + y * np.sin(turn), (y * np.cos(turn) - x * np.sin(turn)) / q
        profile = np.exp(-b * ((np.hypot(along, across) / re) ** (1 / n) - 1))
        brightness += share * profile / (profile * radii**2).sum()
    light = (brightness * radii**2).ravel()
    order = np.argsort(-brightness.ravel())
    level = brightness.ravel()[order[np.searchsorted(np.cumsum(light[order]), 0.5 * light.sum())]]
    return np.where(brightness > level, radii, 0).max()


def test_a_quarter_has_one_component_half_of_them_disks(galaxies):
    single = galaxies[(galaxies.bt == 0) | (galaxies.bt == 1)]
    assert len(single) == pytest.approx(1000, abs=90)  # 3 sigma
    assert (single.bt == 0).mean() == pytest.approx(0.5, abs=0.05)
    assert single.disk_n.isna().equals(single.bt == 1)
    assert single.bulge_n.isna().equals(single.bt == 0)


@pytest.mark.parametrize(
    ("column", "low", "high"),
    [
        ("disk_n", 0.8, 1.2), ("bulge_n", 3.5, 5.0), ("disk_re_arcsec", 0.1, 5.0), ("flux_njy", 1e3, 5e6),
        ("disk_axis_ratio", 0.25, 1.0), ("bulge_axis_ratio", 0.25, 1.0), ("disk_angle_deg", -90, 90),
    ],
)  # fmt: skip
def test_ranges_of_table_1_are_filled_evenly(galaxies, column, low, high):
    values = galaxies[column].dropna().to_numpy()
    assert values.min() >= low
    assert values.max() <= high
    share, _ = np.histogram(values, bins=4, range=(low, high))
    np.testing.assert_allclose(share / len(values), 0.25, atol=0.03)


def test_bulges_are_smaller_beside_a_disk_and_nearly_aligned(galaxies):
    both = galaxies[(galaxies.bt > 0) & (galaxies.bt < 1)]
    assert both.bulge_re_arcsec.max() <= 3.0
    assert galaxies[galaxies.bt == 1].bulge_re_arcsec.max() > 4.5
    tilt = both.bulge_angle_deg - both.disk_angle_deg
    assert tilt.abs().max() <= 15.0
    assert tilt.std() == pytest.approx(15 / np.sqrt(3), rel=0.05)
    share, _ = np.histogram(both.bt, bins=4, range=(0, 1))
    np.testing.assert_allclose(share / len(both), 0.25, atol=0.03)


def test_fluxes_add_up_and_bulges_are_redder(galaxies):
    parts = galaxies.disk_flux_r_njy.fillna(0) + galaxies.bulge_flux_r_njy.fillna(0)
    np.testing.assert_allclose(parts, galaxies.flux_r_njy, rtol=1e-12)
    np.testing.assert_allclose(galaxies.bulge_flux_g_njy.fillna(0), galaxies.bt * galaxies.flux_njy)
    np.testing.assert_allclose(galaxies.mag_r, ab_mag(galaxies.flux_r_njy))
    np.testing.assert_allclose(galaxies.color_gr_mag, galaxies.mag_g - galaxies.mag_r, atol=1e-12)
    assert galaxies[galaxies.bt == 1].color_gr_mag.mean() == pytest.approx(0.75, abs=0.02)
    assert galaxies[galaxies.bt == 0].color_gr_mag.mean() == pytest.approx(0.45, abs=0.02)


def test_half_light_radius_equals_brute_force():
    galaxies = draw_population(40, bands=("g",), seed=11).to_pandas()
    both = galaxies[(galaxies.bt > 0) & (galaxies.bt < 1)].iloc[:5]
    assert len(both) == 5
    for _, galaxy in both.iterrows():
        assert galaxy.re_arcsec == pytest.approx(brute_force_radius(galaxy), rel=0.006)


def test_two_equal_components_are_one():
    rng = np.random.default_rng(3)
    limits = {"n": (0.8, 5), "re_arcsec": (0.1, 5), "axis_ratio": (0.25, 1), "angle_deg": (-90, 90)}
    shape = {name: rng.uniform(*ends, 200) for name, ends in limits.items()}
    both = {f"{part}_{name}": values for part in ("disk", "bulge") for name, values in shape.items()}
    np.testing.assert_allclose(half_light_radius(rng.random(200), both), shape["re_arcsec"], rtol=1e-3)


def test_ids_have_17_digits_and_differ_between_seeds():
    ids = [set(draw_population(50, bands=("g",), seed=seed)["object_id"].to_pylist()) for seed in (1, 2)]
    assert all(len(str(number)) == 17 for number in ids[0] | ids[1])
    assert len(ids[0] | ids[1]) == 100


def test_bands_do_not_change_the_galaxies():
    one, two = (draw_population(50, bands=bands, seed=4) for bands in (("r",), ("g", "r", "i")))
    for name in one.column_names:
        assert one[name].equals(two[name]), name


def test_what_is_not_there_is_refused():
    with pytest.raises(ConfigError, match=r"\['z'\].*\['g', 'r', 'i'\]"):
        draw_population(5, bands=("g", "z"), seed=1)
    with pytest.raises(ConfigError, match="population 'sky' is unknown; expected 'paper' or 'survey'"):
        draw_population(5, bands=("g",), population="sky", seed=1)
