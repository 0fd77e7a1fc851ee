"""Stamps in HDF5, one for each row and band, with positions in datasets: what GalaxiesML's and MultimodalUniverse's files share.

The stamps have no WCS: each is taken as a TAN projection, north up, with the object's position on the central pixel, 0-based index
size // 2 (for even sizes one could as well say half a pixel less: `center_px`). Cutouts lie on their survey's pixels, so an object may be
up to half a pixel away from there.

The zero point is the file's attribute ``zero_point_mag`` or that of [survey]; release and background are the file's attributes of
these names or those of [survey]. What a weight is must be known: by `weight_kind`, or by the name of its dataset.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from galbatch.config import Hdf5Config, SurveyConfig
from galbatch.core.types import FileIdentity, Plane, Tile, WeightKind
from galbatch.errors import TileError
from galbatch.ingest.headers import StatedScale, north_up_corners_deg, plain_key, scale_of_attribute
from galbatch.ingest.layouts.bands import matching_band
from galbatch.ingest.layouts.overrides import stated_mask_planes, stated_psf_fwhm_arcsec
from galbatch.ingest.pixels import HDF5_SUFFIXES, Hdf5File, open_hdf5
from galbatch.storage import FileAccessLog

__all__ = ["Hdf5StampsLayout"]

# One empty dict for all tiles: each of its own would take 64 bytes, some 30 MB for a file of 100,000 rows.
NO_PLANES: dict[str, int] = {}

# Words of a dataset's name that say what its values are; "weight" alone says nothing.
WEIGHT_WORDS: Mapping[str, WeightKind] = {
    **dict.fromkeys(("ivar", "invvar", "inverse"), "inverse_variance"),
    **dict.fromkeys(("variance", "var"), "variance"),
    **dict.fromkeys(("std", "stddev", "sigma", "rms", "err", "error"), "standard_deviation"),
    **dict.fromkeys(("coverage", "exposure", "exposures", "nexp"), "coverage"),
}


class Hdf5StampsLayout:
    """The base of the layouts for stamps in HDF5; a subclass says which section of run.toml maps the names."""

    name: str
    expects: str
    suffixes: tuple[str, ...] = HDF5_SUFFIXES

    def section(self, survey: SurveyConfig) -> Hdf5Config:
        """Return the section of [survey] that maps the names of this layout's datasets."""
        raise NotImplementedError

    def group_of(self, path: str) -> str:
        """Return the first part of the tile ids of a file."""
        raise NotImplementedError

    def wants(self, path: str, survey: SurveyConfig) -> bool:
        return True

    def said_of_bands(self, path: str, survey: SurveyConfig) -> str:
        """Return the words of an error on the bands that a file has."""
        with open_hdf5(path) as file:
            bands = _Datasets(file, self.section(survey), key=f"[survey.{self.name}]").bands
        return f"{path} has bands {', '.join(bands)}"

    def tiles_in(self, path: str, survey: SurveyConfig, files: FileAccessLog) -> list[Tile]:
        # One tile for each row and band; 100,000 rows in 5 bands take some 10 s.
        with open_hdf5(path) as file:
            if file.is_packed:
                files.packed.add(path)
            datasets = _Datasets(file, self.section(survey), key=f"[survey.{self.name}]")
            in_file = datasets.bands
            # The survey's name of a band by the file's.
            bands = {matching_band(name, survey.bands): name for name in reversed(in_file)}
            stamps = {
                band: _Stamps.of(datasets, bands[band], band, survey)
                for band in survey.bands
                if band in bands
            }
            ids, positions = _rows(datasets, self.group_of(path))
        if not stamps or not ids:
            return []
        # All bands must have a stamp of one size for every position: rows are matched by their place alone.
        images = [images for of_band in stamps.values() for images in of_band.images]
        if {one.shape for one in images} != {(len(ids), *images[0].shape[1:])}:
            shapes = ", ".join(f"{one.name} {one.shape}" for one in images)
            raise TileError(
                f"{path}: {len(ids)} positions, and (object, y, x) of the stamps are {shapes}; they must be the same"
            )
        return list(_tiles((path, files.identity(path)), stamps, ids, positions))


class _Datasets:
    """The datasets of a file, by the keys of a section of run.toml that name them; `key` is that section's name."""

    def __init__(self, file: Hdf5File, config: Hdf5Config, *, key: str) -> None:
        self.file = file
        self.config = config
        self.key = key

    def named(self, key: str) -> str:
        """Return the name of the dataset for a key; "" if there is none, and run.toml does not ask for it."""
        name: str = getattr(self.config, key)
        names = [name, *self.config.alternatives.get(key, ())]
        by_default = name == type(self.config).model_fields[key].default
        there = [one for one in names if one and self.file.find(one) is not None]
        if there:
            return there[0]
        return "" if by_default and key in self.config.may_be_missing else name

    def read(self, key: str) -> npt.NDArray[Any] | None:
        """Return the whole dataset that a key names; None if it names none."""
        name = self.named(key)
        return self.file.values(name, key=f"{self.key} {key}") if name else None

    @functools.cached_property
    def bands(self) -> list[str]:
        """Return the bands in the order of the file's band axis, by run.toml or by the file, where all rows have the same."""
        if self.config.bands:
            return list(self.config.bands)
        stored = self.read("band_names")
        if stored is None:
            raise TileError(f"{self.file.path}: the bands are unknown; state {self.key} bands = [..]")
        image = self.file.find(self.named("image"))
        # One name for each plane, or a row of them for each object.
        of_planes = stored.ndim == 1 and image is not None and image.ndim == 4
        rows = np.atleast_2d(stored) if of_planes or stored.ndim != 1 else stored[:, None]
        decoded = (
            tuple(value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in row)
            for row in rows.tolist()
        )
        names = list(dict.fromkeys(decoded))
        if len(names) > 1 or any(len(set(row)) < len(row) for row in names):
            raise TileError(
                f"{self.file.path}: {self.named('band_names')} should name each band once, and in all rows alike; it has "
                f"{' and '.join(', '.join(row) for row in names[:2])}: split the file, or state {self.key} bands = [..]"
            )
        return list(names[0]) if names else []

    def numbers(self, key: str) -> npt.NDArray[np.float64] | None:
        """Return the numbers of a dataset as float64; None if the key names none.

        Raises
        ------
        TileError
            The dataset holds something else.
        """
        values = self.read(key)
        if values is not None and values.dtype.kind not in "biuf":
            raise TileError(
                f"{self.file.path}: {self.named(key)} holds {values.dtype}, numbers are needed; name another dataset: "
                f"{self.key} {key} = .."
            )
        return None if values is None else values.astype(np.float64)

    def of_band(self, key: str, place: int, n_rows: int) -> npt.NDArray[np.float64] | None:
        """Return (object,) float64: a number of each row in the band at `place`; None if the file has none.

        The dataset may hold one number, one for each row, or one for each row and band.
        """
        values = self.numbers(key)
        if values is None:
            return None
        if values.ndim == 2 and values.shape == (n_rows, len(self.bands)):
            return values[:, place]
        if values.size == 1 or values.shape in ((n_rows,), (n_rows, 1)):
            return np.broadcast_to(values.ravel(), n_rows)
        raise TileError(
            f"{self.file.path}: {self.named(key)} has shape {values.shape}; ({n_rows},) or ({n_rows}, {len(self.bands)}) is needed: "
            f"name another dataset: {self.key} {key} = .."
        )

    def scale_arcsec(self, place: int, n_rows: int) -> float:
        """Return the pixel scale of a band, by run.toml or by the file, where it is the same in all rows."""
        if self.config.pixel_scale_arcsec is not None:
            return self.config.pixel_scale_arcsec
        values = self.of_band("scale", place, n_rows)
        # 0.168 is stored as float32: its shortest decimals are meant.
        scales = [] if values is None else [float(str(np.float32(value))) for value in np.unique(values)]
        if len(scales) != 1 or not 0 < scales[0] < math.inf:
            raise TileError(
                f"{self.file.path}: the pixel scale is {', '.join(map(str, scales[:3])) or 'not there'}; one positive number "
                f"for all rows is needed: state {self.key} pixel_scale_arcsec = .."
            )
        return scales[0]

    def weight_kind(self) -> WeightKind:
        """Return what the weights are: by run.toml, else by the name of their dataset."""
        name = self.named("weight")
        words = re.split(r"[^a-z]+", name.lower())
        kind = self.config.weight_kind or next((WEIGHT_WORDS[w] for w in words if w in WEIGHT_WORDS), None)
        if kind is None:
            raise TileError(
                f"{self.file.path}: the name of {name} does not say what it holds; state {self.key} weight_kind = "
                '"variance", "inverse_variance", "standard_deviation" or "coverage"'
            )
        return kind


@dataclass(frozen=True, slots=True)
class _Images:
    """A dataset of images: of one band, or of all of them on the axis after the first."""

    name: str
    shape: tuple[int, int, int]  # (object, y, x)
    before: tuple[int, ...]  # of a plane's index: the band's place on its axis, if there is one
    storage: Mapping[str, Any]  # what `Plane` says of how the pixels are stored

    @staticmethod
    def of(datasets: _Datasets, key: str, band: str, *, for_all_bands: bool = False) -> _Images | None:
        """Return the dataset that a key names for a band of the file; None if there is none.

        Parameters
        ----------
        for_all_bands : bool
            Whether (object, y, x) is one plane for all bands, as masks may be.
        """
        pattern, bands = datasets.named(key), datasets.bands
        if not pattern:
            return None
        name = pattern.replace("{band}", band)
        dataset = datasets.file.dataset(name, key=f"{datasets.key} {key}")
        shape = tuple(int(length) for length in dataset.shape)
        if len(shape) == 4 and shape[1] == len(bands):
            before: tuple[int, ...] = (bands.index(band),)
        elif len(shape) == 3 and (name != pattern or for_all_bands or len(bands) == 1):
            before = ()
        else:
            raise TileError(
                f"{datasets.file.path}: {name} has shape {shape}; (object, band, y, x) with {len(bands)} bands is needed, "
                f"or (object, y, x) and {{band}} in the name; correct {datasets.key} {key}, or {datasets.key} bands = [..]"
            )
        if dataset.dtype.kind not in "biuf":
            raise TileError(
                f"{datasets.file.path}: {name} holds {dataset.dtype}, numbers are needed; name another dataset: "
                f"{datasets.key} {key} = .."
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
    """Values that all stamps of a band share, and the PSF's width (object,) in arcsec of each."""

    image: _Images
    mask: _Images | None
    mask_planes: Mapping[str, int]
    weight: _Images | None
    weight_kind: WeightKind
    psf_fwhm_arcsec: Sequence[float]
    njy_per_unit: float
    frame: _Frame
    release: str
    background: str

    @staticmethod
    def of(datasets: _Datasets, in_file: str, band: str, survey: SurveyConfig) -> _Stamps:
        """Return the values of a band, `in_file` in the file's words, from its datasets and the file's attributes."""
        file, place = datasets.file, datasets.bands.index(in_file)
        cards = file.attributes
        image = _Images.of(datasets, "image", in_file)
        assert image is not None  # its dataset may not be missing
        mask = _Images.of(datasets, "mask", in_file, for_all_bands=True)
        planes = {} if mask is None else stated_mask_planes(datasets.config.mask_planes)
        if planes is None:
            raise TileError(
                f"{file.path}: {datasets.key} mask names a mask, and nothing says what its values mean; state mask_planes = "
                '{SAT = 1, ..}, "nonzero" or "zero"'
            )
        weight = _Images.of(datasets, "weight", in_file)
        stated = StatedScale.of(survey, band, f"band {band} of {file.path}")
        widths = (
            datasets.of_band("psf_fwhm", place, image.shape[0])
            if band not in survey.psf_fwhm_arcsec
            else None
        )
        if widths is None:
            widths = np.full(image.shape[0], stated_psf_fwhm_arcsec(survey, band, cards))
        return _Stamps(
            image=image,
            mask=mask,
            mask_planes=planes or NO_PLANES,
            weight=weight,
            weight_kind="variance" if weight is None else datasets.weight_kind(),
            # A width of 0 or less is no measurement.
            psf_fwhm_arcsec=np.where(widths > 0, widths, np.nan).tolist(),
            njy_per_unit=scale_of_attribute("zero_point_mag", cards.get("zero_point_mag"), stated),
            frame=_Frame.of(datasets.config, image.shape[1:], datasets.scale_arcsec(place, image.shape[0])),
            release=survey.release or str(cards.get("release", "")),
            background=survey.background or str(cards.get("background", "")),
        )

    @property
    def images(self) -> list[_Images]:
        """The datasets of image, mask and weight that there are."""
        return [images for images in (self.image, self.mask, self.weight) if images is not None]


def _rows(datasets: _Datasets, group: str) -> tuple[list[str], npt.NDArray[np.float64]]:
    """Return the tile ids, and the positions (object, ra or dec) float64 in deg."""
    file, config, key = datasets.file, datasets.config, datasets.key
    columns = []
    for column in ("ra", "dec"):
        values = datasets.numbers(column)
        assert values is not None  # positions may not be missing
        columns.append(values.ravel())
    found = file.values(config.id, key=f"{key} id").ravel()
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
            f"{rows}); deg are needed: take the rows out, or name other datasets: {key} ra, dec"
        )
    if len(found) != len(positions):
        raise TileError(f"{file.path}: {config.id} has {len(found)} rows, {config.ra} {len(positions)}")
    names = [
        value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in found.tolist()
    ]
    # A file may hold an object several times, and ids of tiles must differ: then the row counts too.
    if len(set(names)) == len(names):
        return [f"{group}/{name}" for name in names], positions
    return [f"{group}/{name}#{row}" for row, name in enumerate(names)], positions


# --- tiles, made in bulk: 100,000 WCS objects of astropy would take half a minute ----------------------------


@dataclass(frozen=True, slots=True)
class _Frame:
    """The pixel grid that stamps of one size and scale share, but for the position on their central pixel."""

    shape: tuple[int, int]  # (y, x)
    scale_arcsec: float
    crpix: tuple[float, float]

    @staticmethod
    def of(config: Hdf5Config, shape: tuple[int, int], scale_arcsec: float) -> _Frame:
        """Return the frame of stamps of this shape (y, x)."""
        center = [n // 2 if config.center_px is None else config.center_px for n in shape[::-1]]
        return _Frame(shape, scale_arcsec, (1.0 + center[0], 1.0 + center[1]))

    def places(self, positions: npt.NDArray[np.float64]) -> Iterator[dict[str, Any]]:
        """Yield what a tile says of its place on the sky, for each position (ra, dec) in deg."""
        scale_deg = self.scale_arcsec / 3600.0
        cd = np.diag([-scale_deg, scale_deg])
        fixed = _cards(
            CTYPE1="'RA---TAN'",
            CTYPE2="'DEC--TAN'",
            CRPIX1=f"{self.crpix[0]!r}",
            CRPIX2=f"{self.crpix[1]!r}",
            CD1_1=f"{-scale_deg!r}".upper(),
            CD2_2=f"{scale_deg!r}".upper(),
            CD1_2="0.0",
            CD2_1="0.0",
        )
        corners = north_up_corners_deg(positions, self.shape, crpix=self.crpix, scale_deg=scale_deg).tolist()
        for (ra, dec), of_row in zip(positions.tolist(), corners, strict=True):
            yield {
                # 14 decimals: an angle of 360 deg in float64 has no more.
                "wcs_header": _cards(CRVAL1=f"{ra:.14f}", CRVAL2=f"{dec:.14f}") + fixed + "END".ljust(80),
                "grid_key": plain_key((ra, dec), cd, self.crpix),
                "corners_deg": tuple((a, d) for a, d in of_row),
                "shape_px": self.shape,
                "pixel_scale_arcsec": self.scale_arcsec,
            }


def _tiles(
    file: tuple[str, FileIdentity],
    stamps: Mapping[str, _Stamps],
    ids: Sequence[str],
    positions: npt.NDArray[np.float64],
) -> Iterator[Tile]:
    """Yield one tile for each row and band; bands of one scale share their WCS and corners."""
    path, identity = file
    frames = list(dict.fromkeys(of_band.frame for of_band in stamps.values()))
    for row, (tile_id, *places) in enumerate(
        zip(ids, *(frame.places(positions) for frame in frames), strict=True)
    ):
        for band, of_band in stamps.items():
            yield Tile(
                tile_id=tile_id,
                band=band,
                image=of_band.image.plane(path, row),
                njy_per_unit=of_band.njy_per_unit,
                mask=None if of_band.mask is None else of_band.mask.plane(path, row),
                mask_planes=of_band.mask_planes,
                weight=None if of_band.weight is None else of_band.weight.plane(path, row),
                weight_kind=of_band.weight_kind,
                psf_fwhm_arcsec=of_band.psf_fwhm_arcsec[row],
                release=of_band.release,
                background=of_band.background,
                identity=identity,
                **places[frames.index(of_band.frame)],
            )


def _cards(**values: str) -> str:
    """Return the text of FITS cards, 80 characters each."""
    return "".join(f"{key:<8}= {value:>20}".ljust(80) for key, value in values.items())
