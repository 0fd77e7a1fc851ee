"""The population `survey`: galaxies and stars with numbers, fluxes and sizes like those on the sky.

All counts are in i magnitudes. Fainter than i = 20.5 the cumulative counts of galaxies are 46 x 10^(0.31 (i - 25)) per
arcmin^2, the fit of the LSST Science Book (2009, eq. 3.7) to CFHTLS Deep, valid from 20.5 to 25.5. For brighter galaxies
the slope is 0.5, between that value and the Euclidean 0.6 that the SDSS found for r < 16 (Yasuda et al. 2001). It gives
0.032 per arcmin^2 to i = 17.4; the main sample of the SDSS (r < 17.77, i about 17.4; Strauss et al. 2002) has 92 per
deg^2 = 0.026.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from galbatch.core.types import AB_ZERO_POINT_NJY

__all__ = [
    "FAINTEST_NEIGHBOR_MAG",
    "GALAXY_COUNTS",
    "STAR_COUNTS",
    "TARGET_MAG",
    "Counts",
    "draw_survey_galaxies",
    "star_colors_mag",
]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Counts:
    """Differential number counts: a power law of the flux on each side of one magnitude.

    Attributes
    ----------
    knot_mag : float
        Magnitude at which the slope changes.
    density : float
        Sources per arcmin^2 and magnitude at `knot_mag`.
    bright_slope, faint_slope : float
        Slopes of log10(density) per magnitude, on the bright and on the faint side.
    """

    knot_mag: float
    density: float
    bright_slope: float
    faint_slope: float

    def per_arcmin2(self, bright_mag: float, faint_mag: float) -> float:
        """Return the number of sources per arcmin^2 between two magnitudes."""
        return self._below(faint_mag) - self._below(bright_mag)

    def draw(self, uniform: Floats, bright_mag: float, faint_mag: float) -> Floats:
        """Return magnitudes (source,) between two limits, from uniform random numbers (source,) in [0, 1)."""
        # The inverse of the cumulative counts `_below`, evaluated on both sides of the knot at once: the clipped argument
        # makes the term of the other side 0.
        low, high = self._below(bright_mag), self._below(faint_mag)
        wanted = low + uniform * (high - low)
        at_knot = self.density / (math.log(10) * self.bright_slope)
        bright = np.log10(np.minimum(wanted, at_knot) / at_knot) / self.bright_slope
        more = np.maximum(wanted - at_knot, 0.0) * math.log(10) * self.faint_slope / self.density
        return self.knot_mag + bright + np.log10(1 + more) / self.faint_slope

    def _below(self, mag: float) -> float:
        """Return the number of sources per arcmin^2 brighter than `mag`: the integral of the density from minus infinity."""
        from_knot = mag - self.knot_mag
        at_knot = self.density / (math.log(10) * self.bright_slope)
        if from_knot <= 0:
            return float(at_knot * 10 ** (self.bright_slope * from_knot))
        beyond = (10 ** (self.faint_slope * from_knot) - 1) / (math.log(10) * self.faint_slope)
        return float(at_knot + self.density * beyond)


# The density is the derivative of the cumulative counts 46 x 10^(0.31 (i - 25)) at the knot.
GALAXY_COUNTS = Counts(20.5, 46 * 10 ** (0.31 * (20.5 - 25)) * 0.31 * math.log(10), 0.5, 0.31)

STAR_COUNTS = Counts(20.0, 0.30, 0.2, 0.1)
"""Stars, about as many as models of the Galaxy have at 45 degrees from its plane: 2300 per deg^2 to i = 20."""

TARGET_MAG = (16.0, 23.0)
"""Limits of the galaxies in the object list, i magnitudes."""
FAINTEST_NEIGHBOR_MAG = 25.5
BRIGHTEST_STAR_MAG = 14.0

DISK_ONLY, BULGE_ONLY = 0.25, 0.10
BT_BETA = (0.9, 1.8)  # Beta distribution of bt in g for galaxies with both components: one third on average.
DISK_N = (0.8, 1.2)
BULGE_N = (2.0, 5.0)  # From pseudobulges to ellipticals.
# Half-light radius along the major axis: the median disk scale length of faint galaxies, ln(r_d / arcsec) =
# -1.145 - 0.269 (i - 23) (Miller et al. 2013, appendix B), times 1.678, the ratio of half-light radius and scale length of
# an exponential disk. The log-normal scatter is our choice.
LN_RE_AT_23 = -1.145 + math.log(1.678)
LN_RE_SLOPE = -0.269
LN_RE_SCATTER = 0.40
RE_LIMITS_ARCSEC = (0.06, 12.0)
BULGE_OVER_DISK_RE = (
    math.log(0.4),
    0.35,
)  # Mean and scatter of ln(bulge radius / disk radius) of galaxies with both.
THICKNESS = 0.2  # The axis ratio of a disk seen edge-on.
BULGE_AXIS_RATIO = (0.5, 1.0)
BULGE_TILT_DEG = 15.0

# Mean and scatter of g-r and r-i: galaxies at many redshifts scatter more than those of `paper` at z = 0.1.
COLORS_MAG = {"disk": ((0.50, 0.20), (0.25, 0.12)), "bulge": ((0.95, 0.25), (0.45, 0.12))}


def draw_survey_galaxies(
    n_objects: int, limits_mag: tuple[float, float], rng: np.random.Generator
) -> tuple[Floats, dict[str, Floats], dict[tuple[str, str], Floats]]:
    """Draw galaxies of the population `survey`.

    Parameters
    ----------
    n_objects : int
    limits_mag : (float, float)
        Bright and faint limit, i magnitudes.
    rng : numpy.random.Generator

    Returns
    -------
    bt : (object,) float64
        Bulge-to-total ratio in g; 0 for a disk alone, 1 for a bulge alone.
    columns : dict of str to (object,) float64
        Shape of both components, such as ``disk_re_arcsec``; NaN where the component is absent.
    fluxes : dict of (component, band) to (object,) float64
        Flux in nJy of each component in g, r and i.
    """
    # The order of the draws is part of the result: a seed must give the same galaxies in every version.
    mag = GALAXY_COUNTS.draw(rng.random(n_objects), *limits_mag)
    kind = rng.random(n_objects)
    # Limits away from 0 and 1, which mean that a component is absent.
    bt = np.clip(rng.beta(*BT_BETA, n_objects), 1e-4, 1 - 1e-4)
    bt = np.where(kind < DISK_ONLY, 0.0, np.where(kind >= 1 - BULGE_ONLY, 1.0, bt))
    typical = LN_RE_AT_23 + LN_RE_SLOPE * (mag - 23)
    disk_re = np.clip(np.exp(typical + LN_RE_SCATTER * rng.standard_normal(n_objects)), *RE_LIMITS_ARCSEC)
    ratio = np.exp(rng.normal(*BULGE_OVER_DISK_RE, n_objects))
    bulge_re = np.where(bt == 1, disk_re, np.clip(disk_re * ratio, *RE_LIMITS_ARCSEC))
    facing = rng.random(n_objects)  # The cosine of the inclination is uniform for random directions.
    angle = rng.uniform(-90, 90, n_objects)
    tilt = rng.uniform(-BULGE_TILT_DEG, BULGE_TILT_DEG, n_objects)
    columns = {
        "disk_n": rng.uniform(*DISK_N, n_objects),
        "disk_re_arcsec": disk_re,
        # An oblate spheroid of axis ratio THICKNESS, seen at this inclination.
        "disk_axis_ratio": np.sqrt(facing**2 + THICKNESS**2 * (1 - facing**2)),
        "disk_angle_deg": angle,
        "bulge_n": rng.uniform(*BULGE_N, n_objects),
        "bulge_re_arcsec": bulge_re,
        "bulge_axis_ratio": rng.uniform(*BULGE_AXIS_RATIO, n_objects),
        "bulge_angle_deg": np.where(bt == 1, angle, angle + tilt),
    }
    absent = {"disk": bt == 1, "bulge": bt == 0}
    columns = {name: np.where(absent[name.split("_")[0]], np.nan, values) for name, values in columns.items()}
    relative: dict[tuple[str, str], Floats] = {}
    for part, share in (("disk", 1 - bt), ("bulge", bt)):
        flux = share
        relative[part, "g"] = flux
        for band, (mean, scatter) in zip(("r", "i"), COLORS_MAG[part], strict=True):
            flux = flux * 10 ** (0.4 * rng.normal(mean, scatter, n_objects))
            relative[part, band] = flux
    # Fluxes relative to g so far; now all are scaled to the drawn i magnitude.
    total = 10 ** (0.4 * (AB_ZERO_POINT_NJY - mag)) / (relative["disk", "i"] + relative["bulge", "i"])
    return bt, columns, {key: values * total for key, values in relative.items()}


def star_colors_mag(n_stars: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Draw the colors g-r and r-i (star,) of stars on the stellar locus, from turn-off stars to early M dwarfs."""
    # The locus bends at g-r = 1.2: for M dwarfs r-i rises while g-r stays nearly constant.
    gr = rng.uniform(0.3, 1.45, n_stars)
    return gr, 0.4 * gr + 0.5 * np.maximum(gr - 1.2, 0) + rng.normal(0, 0.05, n_stars)
