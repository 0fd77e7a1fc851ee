"""Photometry columns: what `galbatch.photometry` measures in the pixels of a cutout, beside the networks.

They stand after the provenance columns: first those of the object, then those of each band. All begin with ``phot_``.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from functools import cache

from galbatch.core.columns.definitions import Column
from galbatch.core.ucds import band_ucd

__all__ = [
    "PHOT_AXIS_RATIO",
    "PHOT_N_OTHERS",
    "PHOT_PREFIX",
    "PHOT_RADIUS",
    "photometry_band_columns",
    "photometry_columns",
    "photometry_names",
]

PHOT_PREFIX = "phot_"

UNKNOWN = "null: no pixels, or no light to measure it with"

PHOT_RADIUS = Column(
    "phot_radius_arcsec",
    "float32",
    "arcsec",
    "semi-major axis of the aperture, 2.5 Kron radii of the detection image, in which fluxes of all bands are summed; null: no pixels",
    "phys.angSize.smajAxis;instr.setup",
)
PHOT_AXIS_RATIO = Column(
    "phot_axis_ratio",
    "float32",
    "",
    "minor over major axis of the aperture; 1 also where the object is too faint or too small for an ellipse; null: no pixels",
    "src.morph.param",
)
PHOT_N_OTHERS = Column(
    "phot_n_others",
    "int16",
    "",
    "number of other sources in the detection image that have pixels within the aperture, listed or not; -1: no pixels",
    "meta.number",
    -1,
)
OF_OBJECT = (PHOT_RADIUS, PHOT_AXIS_RATIO, PHOT_N_OTHERS)

OF_BAND = {
    "flux": (
        "njy",
        "nJy",
        "flux in the aperture in band {band}, less the local sky; pixels of other sources are replaced by the mean of the rest",
        "phot.flux.density;{of}",
    ),
    "flux_err": (
        "njy",
        "nJy",
        "error of the flux in band {band}: noise of the sky and error of its level, without the source's own photon noise",
        "stat.error;phot.flux.density;{of}",
    ),
    "half_light_radius": (
        "arcsec",
        "arcsec",
        "radius of the circle with half of the aperture's flux in band {band}, with the PSF",
        "phys.angSize;{of}",
    ),
    "half_light_radius_err": (
        "arcsec",
        "arcsec",
        "error of the half-light radius in band {band} from the noise of the sky",
        "stat.error;phys.angSize;{of}",
    ),
    "peak": (
        "njy",
        "nJy",
        "brightest pixel of the object in band {band}, less the local sky",
        "phot.flux.density;{of};stat.max",
    ),
    "noise": (
        "njy",
        "nJy",
        "scatter from pixel to pixel about the object in band {band}: the error of the brightest pixel",
        "stat.stdev;instr.skyLevel",
    ),
    "others_share": (
        "",
        "",
        "share of the light within the aperture in band {band} that lies in pixels of other sources",
        "stat.probability",
    ),
    "sky": (
        "njy",
        "nJy",
        "median of the pixels along the cutout's edges that no source has, in band {band}: the level that was subtracted; null: too "
        "few of them, and nothing was subtracted",
        "instr.skyLevel",
    ),
    "sky_err": ("njy", "nJy", "error of the local sky in band {band}", "stat.error;instr.skyLevel"),
    "core_ratio": (
        "",
        "",
        "radius of the circle with half of the light within 1.25 PSF widths (FWHM) of the center, in PSF widths, in band {band}: 0.52 to 0.58 "
        "of stars, more of galaxies; null: the PSF is unknown, or no light",
        "phys.angSize;arith.ratio",
    ),
    "flat_share": (
        "",
        "",
        "share of the core, the pixels above half the peak within the half-light radius, that is as bright as the peak, to 1 percent or two "
        "sigma (10 percent at most), in band {band}: 0.01 to 0.2 of galaxies and stars, more where a core is cut off; null: peak below 3 sigma",
        "stat.probability",
    ),
    "asymmetric_share": (
        "",
        "",
        "share of the object's light in band {band} that the opposite side of its center lacks, less what noise makes of it: below 0.1 of single "
        "galaxies without arms, more where another source is merged with it; null: signal-to-noise below 10",
        "src.morph.param",
    ),
}
"""Unit in the name, unit, description and UCD of the columns of a band, by what they measure."""


@cache
def photometry_band_columns(band: str) -> Mapping[str, Column]:
    """Return the photometry columns of a band, by what they measure, such as ``half_light_radius``."""
    return {what: _band_column(what, band) for what in OF_BAND}


def _band_column(what: str, band: str) -> Column:
    suffix, unit, text, ucd = OF_BAND[what]
    name = "_".join(part for part in (f"{PHOT_PREFIX}{what}", suffix, band) if part)
    unknown = "" if "null:" in text else f"; {UNKNOWN}"
    return Column(name, "float32", unit, text.format(band=band) + unknown, ucd.format(of=band_ucd(band)))


def photometry_columns(bands: Sequence[str]) -> list[Column]:
    """Return the photometry columns of a catalog whose cutouts have `bands`, in the order of the leaf."""
    return [*OF_OBJECT, *(column for band in bands for column in photometry_band_columns(band).values())]


def photometry_names(names: Sequence[str]) -> list[str]:
    """Return the photometry columns that a list of columns begins with; none in catalogs that lack them.

    Catalogs of other versions may lack some columns of a band. A network may be called ``phot``: its columns are no flux and
    its error of the same band.
    """
    if list(names[: len(OF_OBJECT)]) != [column.name for column in OF_OBJECT]:
        return []
    is_flux = re.compile(_band_column("flux", "(?P<band>.+)").name)
    stop = len(OF_OBJECT)
    while stop < len(names) and (found := is_flux.fullmatch(names[stop])):
        of_band = [column.name for column in photometry_band_columns(found["band"]).values()]
        there = list(itertools.takewhile(of_band.__contains__, names[stop:]))
        if there[:2] != of_band[:2]:
            break
        stop += len(there)
    return list(names[:stop])
