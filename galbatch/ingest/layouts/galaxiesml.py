"""GalaxiesML (HSC PDR2 galaxies in HDF5), and files like it: one stamp per row and band, positions in datasets.

The published files have ``image`` (object, 5, 64 or 127, same) in bands g r i z y, and one dataset for each catalog
column, ``object_id`` among them. [survey.galaxiesml] maps the names; where they differ, the error shows what is
there. The stamps have no WCS: each is taken as a TAN projection, north up, with the object's position on the
central pixel, 0-based index size // 2 (for even sizes one could as well say half a pixel less: `center_px`). HSC's
cutouts lie on the tract's pixels, so an object may be up to half a pixel away from there.

The zero point is the file's attribute ``zero_point_mag`` or that of [survey] (27.0 for HSC coadds); release and
background are the file's attributes of these names or those of [survey].
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from galbatch.config import GalaxiesMlConfig, SurveyConfig
from galbatch.core.types import FileIdentity, Plane, Tile
from galbatch.errors import TileError
from galbatch.ingest.headers import StatedScale, north_up_corners_deg, plain_key, scale_of_attribute
from galbatch.ingest.layouts.overrides import stated_psf_fwhm_arcsec
from galbatch.ingest.pixels import HDF5_SUFFIXES, Hdf5File, open_hdf5
from galbatch.storage import FileAccessLog

__all__ = ["GalaxiesMlLayout"]

KEY = "[survey.galaxiesml]"

# One empty dict for all tiles: each of its own would take 64 bytes, some 30 MB for a file of 100,000 rows.
NO_PLANES: dict[str, int] = {}


class GalaxiesMlLayout:
    """Adapter of HDF5 files of stamps."""

    expects = "HDF5 files (.h5, .hdf5) as [survey.galaxiesml] maps them"
    suffixes: tuple[str, ...] = HDF5_SUFFIXES

    def wants(self, path: str, survey: SurveyConfig) -> bool:
        return True

    def tiles_in(self, path: str, survey: SurveyConfig, files: FileAccessLog) -> list[Tile]:
        # One tile for each row and band; 100,000 rows in 5 bands take some 10 s.
        with open_hdf5(path) as file:
            bands = [band for band in survey.bands if band in survey.galaxiesml.bands]
            stamps = {band: _Stamps.of(file, band, survey) for band in bands}
            ids, positions = _rows(file, survey.galaxiesml)
        if not bands:
            return []
        # All bands must have a stamp of one size for every position: rows are matched by their place alone.
        images = [images for of_band in stamps.values() for images in of_band.images]
        if {one.shape for one in images} != {(len(ids), *images[0].shape[1:])}:
            shapes = ", ".join(f"{one.name} {one.shape}" for one in images)
            raise TileError(
                f"{path}: {len(ids)} positions, and (object, y, x) of the stamps are {shapes}; they must be the same"
            )
        return list(_tiles((path, files.identity(path)), stamps, ids, positions, survey.galaxiesml))


@dataclass(frozen=True, slots=True)
class _Images:
    """A dataset of images: of one band, or of all of them on the axis after the first."""

    name: str
    shape: tuple[int, int, int]  # (object, y, x)
    before: tuple[int, ...]  # of a plane's index: the band's place on its axis, if there is one
    storage: Mapping[str, Any]  # what `Plane` says of how the pixels are stored

    @staticmethod
    def of(file: Hdf5File, pattern: str, band: str, *, bands: Sequence[str], key: str) -> _Images:
        """Return the dataset that `pattern` names for a band; `key` is the config key that holds the pattern."""
        name = pattern.replace("{band}", band)
        dataset = file.dataset(name, key=key)
        shape = tuple(int(length) for length in dataset.shape)
        if len(shape) == 4 and shape[1] == len(bands):
            before: tuple[int, ...] = (bands.index(band),)
        elif len(shape) == 3 and name != pattern:
            before = ()
        else:
            raise TileError(
                f"{file.path}: {name} has shape {shape}; (object, band, y, x) with {len(bands)} bands is needed, "
                f"or (object, y, x) and {{band}} in the name; correct {key}, or {KEY} bands = [..]"
            )
        stored = {
            "bytes_per_px": int(dataset.dtype.itemsize),
            "block_px": tuple(int(n) for n in dataset.chunks[-2:]) if dataset.compression else None,
            "stored_bytes": int(dataset.id.get_storage_size()) // max(math.prod(shape[:-2]), 1),
        }
        return _Images(name, (shape[0], shape[-2], shape[-1]), before, stored)

    def plane(self, path: str, row: int) -> Plane:
        """Return the plane of one object's image."""
        return Plane(path, self.name, (row, *self.before), **self.storage)


@dataclass(frozen=True, slots=True)
class _Stamps:
    """Values that all stamps of a band share."""

    image: _Images
    variance: _Images | None
    njy_per_unit: float
    psf_fwhm_arcsec: float
    release: str
    background: str

    @staticmethod
    def of(file: Hdf5File, band: str, survey: SurveyConfig) -> _Stamps:
        """Return the values of a band, from its datasets and the file's attributes."""
        config, cards = survey.galaxiesml, file.attributes
        variance = None
        if config.variance:
            variance = _Images.of(file, config.variance, band, bands=config.bands, key=f"{KEY} variance")
        stated = StatedScale.of(survey, band, f"band {band} of {file.path}")
        return _Stamps(
            image=_Images.of(file, config.image, band, bands=config.bands, key=f"{KEY} image"),
            variance=variance,
            njy_per_unit=scale_of_attribute("zero_point_mag", cards.get("zero_point_mag"), stated),
            psf_fwhm_arcsec=stated_psf_fwhm_arcsec(survey, band, cards),
            release=survey.release or str(cards.get("release", "")),
            background=survey.background or str(cards.get("background", "")),
        )

    @property
    def images(self) -> list[_Images]:
        """The datasets of image and, if there is one, variance."""
        return [self.image] if self.variance is None else [self.image, self.variance]


def _rows(file: Hdf5File, config: GalaxiesMlConfig) -> tuple[list[str], npt.NDArray[np.float64]]:
    """Return the tile ids, and the positions (object, ra or dec) float64 in deg."""
    columns = [
        np.asarray(file.dataset(name, key=f"{KEY} {key}")[...], np.float64).ravel()
        for key, name in (("ra", config.ra), ("dec", config.dec))
    ]
    found = np.asarray(file.dataset(config.id, key=f"{KEY} id")[...]).ravel()
    if len(columns[0]) != len(columns[1]):
        raise TileError(
            f"{file.path}: {config.ra} has {len(columns[0])} rows, {config.dec} {len(columns[1])}"
        )
    positions = np.stack(columns, axis=1)
    bad = ~(np.isfinite(positions).all(axis=1) & (np.abs(positions[:, 1]) <= 90))
    if bad.any():
        rows = ", ".join(map(str, np.flatnonzero(bad)[:5]))
        raise TileError(
            f"{file.path}: no celestial WCS: {bad.sum()} rows have no position in {config.ra}, {config.dec} (rows "
            f"{rows}); deg are needed: take the rows out, or name other datasets: {KEY} ra, dec"
        )
    if len(found) != len(positions):
        raise TileError(f"{file.path}: {config.id} has {len(found)} rows, {config.ra} {len(positions)}")
    stem = PurePosixPath(file.path).stem
    names = [value.decode() if isinstance(value, bytes) else str(value) for value in found.tolist()]
    # A file may hold an object several times, and ids of tiles must differ: then the row counts too.
    if len(set(names)) == len(names):
        return [f"{stem}/{name}" for name in names], positions
    return [f"{stem}/{name}#{row}" for row, name in enumerate(names)], positions


# --- tiles, made in bulk: 100,000 WCS objects of astropy would take half a minute ----------------------------


def _tiles(
    file: tuple[str, FileIdentity],
    stamps: Mapping[str, _Stamps],
    ids: Sequence[str],
    positions: npt.NDArray[np.float64],
    config: GalaxiesMlConfig,
) -> Iterator[Tile]:
    """Yield one tile for each row and band; the bands of a row share their WCS and corners."""
    path, identity = file
    shape = next(iter(stamps.values())).image.shape[1:]  # (y, x), the same in all bands
    scale_deg = config.pixel_scale_arcsec / 3600.0
    crpix = [1.0 + (n // 2 if config.center_px is None else config.center_px) for n in shape[::-1]]
    cd = np.diag([-scale_deg, scale_deg])
    fixed = _cards(
        CTYPE1="'RA---TAN'",
        CTYPE2="'DEC--TAN'",
        CRPIX1=f"{crpix[0]!r}",
        CRPIX2=f"{crpix[1]!r}",
        CD1_1=f"{-scale_deg!r}".upper(),
        CD2_2=f"{scale_deg!r}".upper(),
        CD1_2="0.0",
        CD2_1="0.0",
    )
    corners = north_up_corners_deg(positions, shape, crpix=crpix, scale_deg=scale_deg).tolist()
    for row, (tile_id, (ra, dec)) in enumerate(zip(ids, positions.tolist(), strict=True)):
        # 14 decimals: an angle of 360 deg in float64 has no more.
        header = _cards(CRVAL1=f"{ra:.14f}", CRVAL2=f"{dec:.14f}") + fixed + "END".ljust(80)
        key = plain_key((ra, dec), cd, crpix)
        corners_deg = tuple((a, d) for a, d in corners[row])
        for band, of_band in stamps.items():
            yield Tile(
                tile_id=tile_id,
                band=band,
                image=of_band.image.plane(path, row),
                shape_px=shape,
                wcs_header=header,
                grid_key=key,
                njy_per_unit=of_band.njy_per_unit,
                pixel_scale_arcsec=config.pixel_scale_arcsec,
                corners_deg=corners_deg,
                mask_planes=NO_PLANES,
                weight=None if of_band.variance is None else of_band.variance.plane(path, row),
                psf_fwhm_arcsec=of_band.psf_fwhm_arcsec,
                release=of_band.release,
                background=of_band.background,
                identity=identity,
            )


def _cards(**values: str) -> str:
    """Return the text of FITS cards, 80 characters each."""
    return "".join(f"{key:<8}= {value:>20}".ljust(80) for key, value in values.items())
