"""Ready-made FITS stamps, a directory of them: each is one small tile.

What an HDU holds is read from EXTNAME or EXTTYPE, from MP_* cards, and else from its place (image, mask,
variance: the HSC cutout service leaves them unnamed, the last two often empty).

A catalog may lie in their folder or the one above: GaMPEN's ``info.csv`` with ``cutouts/<object_id>.fits``, or the list that was sent
to a cutout service. Stamps without a WCS take their position from it, on the central pixel (0-based index
size // 2), north up, at `pixel_scale_arcsec`. A stamp with a WCS must hold its catalog position: else stamps and
catalog were mixed up.
"""

from __future__ import annotations

import dataclasses
import typing
from collections import ChainMap
from collections.abc import Mapping
from typing import Any

from astropy.io import fits

from galbatch.config import SurveyConfig
from galbatch.core.types import Tile, WeightKind
from galbatch.errors import TileError
from galbatch.ingest.headers import (
    Planes,
    StatedScale,
    combined_identity,
    image_scale,
    make_tile,
    wcs_cards,
)
from galbatch.ingest.layouts.bands import band_in_name, band_statements, matching_band
from galbatch.ingest.layouts.hsc import BACKGROUND_OF_RELEASE, release_in
from galbatch.ingest.layouts.overrides import labeled, stated_bits, stated_psf_fwhm_arcsec
from galbatch.ingest.layouts.stamp_catalog import north_up_wcs, position_in_catalog, require_inside
from galbatch.ingest.pixels import (
    FITS_SUFFIXES,
    NO_BITS,
    named_bits,
    open_fits,
    require_whole_file,
    stem_of,
)
from galbatch.storage import FileAccessLog

__all__ = ["StampsLayout"]

ROLES = {
    "IMAGE": "image",
    "SCI": "image",
    "MASK": "mask",
    "MSK": "mask",
    "VARIANCE": "variance",
    "VAR": "variance",
    "WGT": "inverse_variance",
    "WEIGHT": "inverse_variance",
    "IVAR": "inverse_variance",
    "INVVAR": "inverse_variance",
    # Drizzled images have exposure times, inverse variances or weights of no unit under the name WHT: 0 is no data in all of them.
    **dict.fromkeys(("WHT", "COV", "COVERAGE", "EXP", "NEXP"), "coverage"),
    **dict.fromkeys(("ERR", "ERROR", "RMS", "SIGMA", "STD", "STDDEV", "UNCERT"), "standard_deviation"),
    **dict.fromkeys(("DQ", "FLAG", "FLAGS"), "mask"),
}
# What astropy and fpack call a compressed image that has no name.
NO_NAME = ("", "COMPRESSED_IMAGE")


class StampsLayout:
    """Adapter of FITS stamps."""

    expects = (
        "FITS stamps, the band in BAND, FILTER, the file name (..-HSC-I-.., .._g.fits) or [survey.stamps]"
    )
    suffixes: tuple[str, ...] = FITS_SUFFIXES

    def wants(self, path: str, survey: SurveyConfig) -> bool:
        named = band_in_name(path, survey.bands)
        return named is None or matching_band(named, survey.bands) is not None

    def tiles_in(self, path: str, survey: SurveyConfig, files: FileAccessLog) -> list[Tile]:
        # The stamp; nothing from files of tables or of other bands.
        with open_fits(path, files) as hdus:
            planes = _planes(hdus, path, survey.stamps.mask_planes)
            if planes is None:
                require_whole_file(hdus, path)
                return []
            header = hdus[planes.image].header
            cards = ChainMap(header, hdus[0].header)
            band = matching_band(_band(cards, path, survey), survey.bands)
            if band is None:
                return []
            tile_id = stem_of(path)
            where = f"tile {tile_id} band {band} ({path})"
            found = position_in_catalog(path, survey.stamps, files, where=where)
            if found is not None and "CTYPE1" not in wcs_cards(hdus, planes.image):
                # The tile is then made as if the file had this WCS.
                header.update(
                    north_up_wcs(
                        found[1], hdus[planes.image].shape[-2:], survey.stamps.pixel_scale_arcsec, where=where
                    )
                )
            tile = make_tile(
                hdus,
                path,
                key=(tile_id, band),
                planes=planes,
                njy=image_scale(hdus, planes.image, StatedScale.of(survey, band, where)),
                psf_fwhm_arcsec=stated_psf_fwhm_arcsec(survey, band, cards),
            )
            require_whole_file(hdus, path)
        if found is not None:
            catalog, position = found
            require_inside(tile, position, catalog)
            # Another position makes another tile of the same file.
            identity = combined_identity([files.identity(path), files.identity(catalog)])
            tile = dataclasses.replace(tile, identity=identity)
        release = survey.release or release_in(path)
        background = BACKGROUND_OF_RELEASE.get(release, "")
        return [labeled(tile, survey, release=release, background=background)]


def _planes(hdus: fits.HDUList, path: str, mask_planes: Mapping[str, int] | str | None) -> Planes | None:
    """Return the HDUs to read: the first image, and those of mask and weight that have its shape; None without an image."""
    numbers: dict[str, int] = {}
    for number, hdu in enumerate(hdus):
        shape = getattr(hdu, "shape", None) or ()
        image = numbers.get("image")
        # HSC's cutout service leaves mask and variance empty where they were not asked for: another shape. Radio's tools, and
        # mosaics made by them, write axes of length 1 before (y, x).
        is_plane = hdu.is_image and len(shape) >= 2 and set(shape[:-2]) <= {1}
        if not is_plane or (image is not None and shape[-2:] != hdus[image].shape[-2:]):
            continue
        names = [str(hdu.header.get(card, "")).strip().upper() for card in ("EXTTYPE", "EXTNAME")]
        role = next((ROLES[name] for name in names if name in ROLES), None)
        if role is None and any(key.startswith("MP_") for key in hdu.header):
            role = "mask"
        elif role is None and (image is None or all(name in NO_NAME for name in names)):
            # Unnamed HDUs are known by their place after the image; one of another name, such as CTX, is neither.
            role = "image" if image is None else {1: "mask", 2: "variance"}.get(number - image)
        if role is not None:
            numbers.setdefault(role, number)
    if "image" not in numbers:
        return None
    mask = numbers.get("mask")
    bits = NO_BITS
    if mask is not None:
        stated = stated_bits(mask_planes, hdus[mask].header, path)
        bits = named_bits(hdus, mask, path) if stated is None else stated
    kinds: tuple[WeightKind, ...] = typing.get_args(WeightKind)
    kind: WeightKind = next((kind for kind in kinds if kind in numbers), "variance")
    return Planes(numbers["image"], mask, numbers.get(kind), kind, bits)


def _band(cards: Mapping[str, Any], path: str, survey: SurveyConfig) -> str:
    """Return the band by BAND, else by the file name, else by FILTER and its like, else by the config."""
    said = dict(band_statements(cards))
    named = band_in_name(path, survey.bands)
    band = said.get("BAND") or named or next(iter(said.values()), survey.stamps.band)
    if not band:
        raise TileError(
            f"{path}: the band is unknown: no BAND or FILTER card, and the file name does not say it "
            "(..-HSC-I-.., .._g.fits); add the card, rename the stamp, or state [survey.stamps] band"
        )
    return band
