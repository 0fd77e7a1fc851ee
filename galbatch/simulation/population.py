"""Parameters of simulated galaxies: Table 1 of the GaMPEN paper, with colors, or a magnitude-limited sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galbatch.core.types import ab_mag
from galbatch.errors import ConfigError
from galbatch.simulation.counts import TARGET_MAG, draw_survey_galaxies
from galbatch.simulation.light.camera import BANDS
from galbatch.simulation.light.sersic import elliptical_radius, flux_outside, intensity

__all__ = ["POPULATIONS", "draw_population", "half_light_radius", "require_population"]

Floats = npt.NDArray[np.float64]

POPULATIONS = ("paper", "survey")

SINGLE_SHARE = 0.25
DISK_N = (0.8, 1.2)
BULGE_N = (3.5, 5.0)
DISK_RE_ARCSEC = (0.1, 5.0)
BULGE_RE_ARCSEC = (0.1, 3.0)
AXIS_RATIO = (0.25, 1.0)
FLUX_NJY = (1e3, 5e6)
BULGE_TILT_DEG = 15.0

# Mean and scatter of g-r and r-i: about those of the red sequence and the blue cloud at z = 0.1.
COLORS_MAG = {"disk": ((0.45, 0.10), (0.20, 0.05)), "bulge": ((0.75, 0.08), (0.38, 0.04))}

FIRST_ID = 40_000_000_000_000_000
IDS_PER_SEED = 10**11

# Directions and radii of the grid on which half-light isophotes are found. They give the radius to 0.3 % (tested).
N_ANGLES = 24
N_RADII = 64
N_ITERATIONS = 12
GALAXIES_AT_ONCE = 2000  # With 24 x 64 float64 per galaxy an array takes about 25 MB.


def draw_population(
    n_objects: int, *, bands: Sequence[str], population: str = "paper", seed: int
) -> pa.Table:
    """Return a table of galaxies drawn from one of two populations.

    ``paper`` is Table 1 of the GaMPEN paper (Ghosh et al. 2022): 25 % of the galaxies have a single component, half of
    those with n in 0.8-1.2 (a disk, bt = 0) and half with n in 3.5-5.0 (a bulge, bt = 1). 75 % have a disk and a bulge
    whose position angles differ by at most 15 deg. All parameters are uniform in the ranges of the table. Colors are not
    in the table: each component has its own, and fluxes in r and i follow from those of the components.

    ``survey`` is limited to 16 < i < 23. Numbers per magnitude, sizes, bulge-to-total ratios and colors are described in
    counts.py with their sources. In both populations bt is defined in g.

    Parameters
    ----------
    n_objects : int
        Number of galaxies.
    bands : sequence of str
        Bands of the fluxes, out of g, r, i.
    population : str
        ``paper`` or ``survey``.
    seed : int
        The same seed gives the same galaxies for all choices of bands.

    Returns
    -------
    pyarrow.Table
        One row per galaxy. ``object_id``, int64 of 17 digits; all other columns are float64: ``bt``; ``re_arcsec``,
        half-light radius of the g profile without PSF (see `half_light_radius`); ``flux_njy``, total flux in g;
        ``flux_<band>_njy``; ``mag_<band>`` (AB); ``color_gr_mag``. For disk and bulge ``_n``, ``_re_arcsec`` (half-light
        radius along the major axis), ``_axis_ratio``, ``_angle_deg`` (from the image's +x axis toward +y) and
        ``_flux_<band>_njy``, null where the component is absent.

    Raises
    ------
    ConfigError
        A band is not one of g, r, i, or the population is unknown.
    """
    require_population(population)
    if unknown := set(bands) - set(BANDS):
        raise ConfigError(f"bands {sorted(unknown)}: the population has colors for {list(BANDS)} only")
    # Colors are drawn in all bands, so that the choice of bands does not change the galaxies.
    rng = np.random.default_rng([seed, n_objects])
    if population == "paper":
        bt, components, fluxes = _draw_paper_galaxies(n_objects, rng)
    else:
        bt, components, fluxes = draw_survey_galaxies(n_objects, TARGET_MAG, rng)
    has_both = (bt > 0) & (bt < 1)
    re = np.where(bt == 0, components["disk_re_arcsec"], components["bulge_re_arcsec"])
    re[has_both] = half_light_radius(
        bt[has_both], {name: values[has_both] for name, values in components.items()}
    )
    # Tables of different seeds below 100,000 have different ids, if they have fewer than IDS_PER_SEED rows.
    first = FIRST_ID + (seed % 100_000) * IDS_PER_SEED
    columns: dict[str, object] = {
        "object_id": first + np.arange(n_objects, dtype=np.int64),
        "bt": bt,
        "re_arcsec": re,
    }
    total = {band: fluxes["disk", band] + fluxes["bulge", band] for band in BANDS}
    columns |= {"flux_njy": total["g"]} | {f"flux_{band}_njy": total[band] for band in bands}
    columns["color_gr_mag"] = ab_mag(total["g"]) - ab_mag(total["r"])
    columns |= {f"mag_{band}": ab_mag(total[band]) for band in bands}
    parts = dict(components) | {
        f"{part}_flux_{band}_njy": fluxes[part, band] for part in COLORS_MAG for band in bands
    }
    absent = {"disk": bt == 1, "bulge": bt == 0}
    columns |= {name: pa.array(values, mask=absent[name.split("_")[0]]) for name, values in parts.items()}
    return pa.table(columns)


def require_population(population: str) -> None:
    """Raise ConfigError if the name is not one of POPULATIONS."""
    if population not in POPULATIONS:
        raise ConfigError(
            f"population {population!r} is unknown; expected {' or '.join(map(repr, POPULATIONS))}"
        )


def _draw_paper_galaxies(
    n_objects: int, rng: np.random.Generator
) -> tuple[Floats, dict[str, Floats], dict[tuple[str, str], Floats]]:
    """Draw galaxies of the population `paper`, and return them as `draw_survey_galaxies` does."""
    kind = rng.random(n_objects)
    single_disk = kind < SINGLE_SHARE / 2
    single_bulge = (kind >= SINGLE_SHARE / 2) & (kind < SINGLE_SHARE)
    # Limits away from 0 and 1, which mean that a component is absent.
    bt = np.clip(rng.random(n_objects), 1e-9, 1 - 1e-9)
    bt = np.where(single_disk, 0.0, np.where(single_bulge, 1.0, bt))
    angle = rng.uniform(-90, 90, n_objects)
    tilt = rng.uniform(-BULGE_TILT_DEG, BULGE_TILT_DEG, n_objects)
    bulge_re = rng.uniform(*BULGE_RE_ARCSEC, n_objects)
    columns = {
        "disk_n": rng.uniform(*DISK_N, n_objects),
        "disk_re_arcsec": rng.uniform(*DISK_RE_ARCSEC, n_objects),
        "disk_axis_ratio": rng.uniform(*AXIS_RATIO, n_objects),
        "disk_angle_deg": angle,
        "bulge_n": rng.uniform(*BULGE_N, n_objects),
        "bulge_re_arcsec": np.where(single_bulge, rng.uniform(*DISK_RE_ARCSEC, n_objects), bulge_re),
        "bulge_axis_ratio": rng.uniform(*AXIS_RATIO, n_objects),
        "bulge_angle_deg": np.where(single_bulge, angle, angle + tilt),
    }
    absent = {"disk": single_bulge, "bulge": single_disk}
    columns = {name: np.where(absent[name.split("_")[0]], np.nan, values) for name, values in columns.items()}
    flux_njy = rng.uniform(*FLUX_NJY, n_objects)
    fluxes: dict[tuple[str, str], Floats] = {}
    for part, share in (("disk", 1 - bt), ("bulge", bt)):
        flux = share * flux_njy
        fluxes[part, BANDS[0]] = flux
        for band, (mean, scatter) in zip(BANDS[1:], COLORS_MAG[part], strict=True):
            flux = flux * 10 ** (0.4 * rng.normal(mean, scatter, n_objects))
            fluxes[part, band] = flux
    return bt, columns, fluxes


def half_light_radius(bt: Floats, components: Mapping[str, Floats]) -> Floats:
    """Return the half-light radius of galaxies with a disk and a bulge, along the major axis, without the PSF.

    It is the largest distance from the center to the isophote of the summed profile that encloses half of the total
    light. For bt = 0 and bt = 1 this equals the half-light radius of the single Sersic profile along its major axis.

    Parameters
    ----------
    bt : (object,) float64
        Bulge-to-total ratio.
    components : mapping of str to (object,) float64
        ``disk_n``, ``disk_re_arcsec``, ``disk_axis_ratio``, ``disk_angle_deg`` and the same for ``bulge``, without NaN.

    Returns
    -------
    (object,) float64, arcsec
    """
    radius = np.empty(len(bt))
    for start in range(0, len(bt), GALAXIES_AT_ONCE):
        part = slice(start, start + GALAXIES_AT_ONCE)
        radius[part] = _half_light(bt[part], {name: values[part] for name, values in components.items()})
    return radius


def _half_light(bt: Floats, components: Mapping[str, Floats]) -> Floats:
    """Return what `half_light_radius` does, for all galaxies at once, which takes memory for each.

    The grid is polar, in coordinates in which the mean ellipse of disk and bulge is a circle of radius s.
    """
    q, angle = (
        (components[f"disk_{name}"] + components[f"bulge_{name}"]) / 2 for name in ("axis_ratio", "angle_deg")
    )
    sizes = np.stack([components["disk_re_arcsec"], components["bulge_re_arcsec"]])
    # The isophote lies between about the half-light ellipses of the two components. The factor 4 covers the difference
    # between their axis ratios and the mean one.
    log_s = np.linspace(np.log(sizes.min(axis=0) / 4), np.log(sizes.max(axis=0) * 4), N_RADII, axis=-1)
    phi = np.arange(N_ANGLES) * np.pi / N_ANGLES  # Half a turn: the profile is symmetric.
    turned = np.deg2rad(angle)[:, None]
    x = np.cos(phi) * np.cos(turned) - q[:, None] * np.sin(phi) * np.sin(turned)  # (object, angle) for s = 1
    y = np.cos(phi) * np.sin(turned) + q[:, None] * np.sin(phi) * np.cos(turned)
    galaxies = _TwoComponents(bt, components, (x, y))
    distance = np.hypot(x, y) * np.exp(galaxies.half_light_isophote(log_s))  # (object, angle)
    # The maximum over angles comes from a parabola through three points: the best of 24 directions is up to 0.4 % too small.
    top = distance.argmax(axis=1)[:, None]
    before, at, after = (np.take_along_axis(distance, (top + k) % N_ANGLES, axis=1)[:, 0] for k in (-1, 0, 1))
    curvature = np.minimum(before - 2 * at + after, -1e-12)
    return at - (before - after) ** 2 / (8 * curvature)


class _TwoComponents:
    """Profiles of disk plus bulge with a total flux of 1, evaluated along given directions (object, angle)."""

    def __init__(
        self, bt: Floats, components: Mapping[str, Floats], direction: tuple[Floats, Floats]
    ) -> None:
        self.parts = []
        for part, share in (("disk", 1 - bt), ("bulge", bt)):
            n, re, axis_ratio, angle = (
                components[f"{part}_{name}"][:, None]
                for name in ("n", "re_arcsec", "axis_ratio", "angle_deg")
            )
            # (object, angle) semi-major axis of the component's ellipse through the point with s = 1.
            radius_ratio = elliptical_radius(*direction, axis_ratio=axis_ratio, angle_deg=angle)
            self.parts.append((share[:, None], radius_ratio, n, re, axis_ratio))

    def log_brightness(self, log_s: Floats) -> Floats:
        """Return the logarithm of the surface brightness (object, angle, radius) at ln s (object, radius)."""
        total: Floats = np.zeros(())
        for share, radius_ratio, n, re, axis_ratio in self.parts:
            radius = radius_ratio[..., None] * np.exp(log_s)[:, None, :]
            profile = intensity(radius, n[..., None], re[..., None], axis_ratio=axis_ratio[..., None])
            total = total + share[..., None] * profile
        return np.log(total)

    def light_inside(self, log_s: Floats) -> Floats:
        """Return the fraction of the light (object,) inside the curve ln s (object, angle)."""
        total: Floats = np.zeros(())
        for share, radius_ratio, n, re, _ in self.parts:
            # The light in a direction is proportional to radius_ratio^-2, as is the area of the ellipse in it.
            weight = share * radius_ratio**-2 / (radius_ratio**-2).sum(axis=1, keepdims=True)
            total = total + (weight * (1 - flux_outside(radius_ratio * np.exp(log_s), n, re))).sum(axis=1)
        return total

    def half_light_isophote(self, log_s: Floats) -> Floats:
        """Return the isophote that encloses half of the light, as a curve ln s (object, angle).

        Its brightness is found by regula falsi (the Illinois variant).

        Parameters
        ----------
        log_s : (object, radius) float64
            Evenly spaced ln s of the grid.
        """
        table = self.log_brightness(log_s)  # (object, angle, radius)
        levels = [table.max(axis=(1, 2)), table.min(axis=(1, 2))]
        excess = [np.full(len(table), -0.5), np.full(len(table), 0.5)]
        step = (log_s[:, 1] - log_s[:, 0])[:, None]
        for _ in range(N_ITERATIONS):
            level = (levels[0] * excess[1] - levels[1] * excess[0]) / (excess[1] - excess[0])
            # Brightness decreases outward: the last entry above the level and the next one enclose the isophote.
            last = (table > level[:, None, None]).sum(axis=2).clip(1, N_RADII - 1)[..., None] - 1
            bright, faint = (np.take_along_axis(table, last + k, axis=2)[..., 0] for k in (0, 1))
            fraction = (bright - level[:, None]) / (bright - faint)
            curve = log_s[:, :1] + (last[..., 0] + fraction) * step  # (object, angle)
            now = self.light_inside(curve) - 0.5
            # The root stays bracketed. Halving the excess of the end that is kept makes the method converge fast.
            fainter = now > 0
            excess = [np.where(fainter, excess[0] / 2, now), np.where(fainter, now, excess[1] / 2)]
            levels = [np.where(fainter, levels[0], level), np.where(fainter, level, levels[1])]
        return curve
