"""FITS headers -> tiles: what every layout's adapter needs."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal

from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS, WcsError

from galbatch import storage
from galbatch.core.types import FileIdentity, Plane, Tile, njy_per_unit
from galbatch.errors import TileError
from galbatch.ingest.headers import lattice
from galbatch.ingest.pixels.cost import is_packed
from galbatch.ingest.pixels.planes import described

__all__ = [
    "FETCH_AGAIN",
    "FITS_SUFFIXES",
    "NONZERO",
    "Planes",
    "add_plane",
    "combined_identity",
    "first_image",
    "hdu_at",
    "ignore_astropy",
    "make_tile",
    "mask_planes",
    "njy_of_fluxmag0",
    "njy_of_unit",
    "open_fits",
    "opened_fits",
    "quiet_astropy",
    "require_whole",
    "require_whole_file",
]

FITS_SUFFIXES = (".fits", ".fits.gz", ".fits.fz")

NONZERO = "NONZERO"
"""Name in `Tile.mask_planes` of masks whose every value but 0 means BAD."""

# Of a pixel; what images in surface brightness (per square arcsec) say is not among them.
NJY_OF_UNIT = {
    "njy": 1.0,
    "ujy": 1e3,
    "mjy": 1e6,
    "jy": 1e9,
    "nanomaggy": njy_per_unit(22.5),
    "nanomaggies": njy_per_unit(22.5),
    "nmgy": njy_per_unit(22.5),
}

FETCH_AGAIN = "the file is probably truncated: fetch it again or exclude the tile"


@contextlib.contextmanager
def open_fits(path: str, files: storage.FileAccessLog) -> Iterator[fits.HDUList]:
    """A FITS file, local or on S3, whose HDUs are read when asked for.

    Raises
    ------
    TileError
        The file is no FITS file, or ends within its headers.
    """
    with quiet_astropy():  # also while HDUs are read: a truncated file is told of by require_whole
        known = not storage.has_local_path(path) and not is_packed(path)
        hdus = opened_fits(path, size_bytes=files.identity(path).size_bytes if known else None)
        try:
            yield hdus
        except (EOFError, zlib.error) as error:
            raise TileError(f"{path}: ends within its gzip stream ({error}); {FETCH_AGAIN}") from None
        finally:
            hdus.close()


def opened_fits(path: str, source: BinaryIO | None = None, *, size_bytes: int | None = None) -> fits.HDUList:
    """As `open_fits`, to be closed by the caller; `source` is what to read instead of the file at `path`."""
    with quiet_astropy(), contextlib.ExitStack() as on_failure:
        try:
            if source is None and not storage.has_local_path(path):
                source = (
                    storage.unpack(path)
                    if is_packed(path)
                    else storage.open_file(path, size_bytes=size_bytes)
                )
            if source is not None:
                on_failure.callback(source.close)
            opened = fits.open(
                path if source is None else source, mode="readonly", memmap=False, lazy_load_hdus=True
            )
            on_failure.pop_all()
            return opened
        except FileNotFoundError:
            raise
        except IsADirectoryError:
            raise TileError(f"{path}: is a folder, expected a FITS file") from None
        except EOFError as error:
            raise TileError(f"{path}: ends within its gzip stream ({error}); {FETCH_AGAIN}") from None
        except OSError as error:
            if error.errno is not None:  # the disk or the network, not the file: worth another try
                raise
            raise TileError(
                f"{path}: is no FITS file, or is damaged at its beginning ({error}); fetch it again or exclude it"
            ) from None


@contextlib.contextmanager
def quiet_astropy() -> Iterator[None]:
    """Without astropy's remarks on files that it reads well."""
    with warnings.catch_warnings():
        ignore_astropy()
        yield


def ignore_astropy() -> None:
    """The same for the whole process, as workers with several threads need: contexts of warnings are not a thread's own."""
    warnings.simplefilter("ignore", AstropyWarning)


@dataclass(frozen=True, slots=True)
class Planes:
    """Which HDUs of one file make a tile, by number or name.

    `weight_kind` says what the weight HDU holds; `mask_planes` maps the survey's plane names to bit numbers;
    `index` is the place on the axes before (y, x) of HDUs that are cubes.
    """

    image: int | str
    mask: int | str | None = None
    weight: int | str | None = None
    weight_kind: Literal["variance", "inverse_variance", "standard_deviation"] = "variance"
    mask_planes: Mapping[str, int] = field(default_factory=dict)
    index: tuple[int, ...] = ()

    def named(self) -> dict[str, int | str]:
        """HDUs by the name that errors use."""
        numbers = {"image": self.image, "mask": self.mask, self.weight_kind.replace("_", " "): self.weight}
        return {name: number for name, number in numbers.items() if number is not None}


def make_tile(
    hdus: fits.HDUList, path: str, *, key: tuple[str, str], planes: Planes, njy: float, psf_fwhm_arcsec: float
) -> Tile:
    """The tile `key` = (tile_id, band) whose planes are HDUs of one file; one image unit is `njy` nJy.

    Raises
    ------
    TileError
        A plane is truncated or of another shape than the image, or there is no celestial WCS.
    """
    tile_id, band = key
    where = f"tile {tile_id} band {band} ({path})"
    found = {
        name: _whole_plane(hdus, Plane(path, number, planes.index), where=where, name=name)
        for name, number in planes.named().items()
    }
    image, shape = found.pop("image")
    if any(planes.index) and image.index != planes.index:
        # Mask and weight may be one for all bands; images of several bands in one plane are a mistake.
        at = ", ".join(map(str, planes.index))
        raise TileError(
            f"{where}: the image is no cube, so nothing is at index {at}; correct [survey.generic] axis"
        )
    for name, (_, other) in found.items():
        _require_shape(other, shape, where=where, name=name)
    wcs_header, wcs = _celestial_wcs(hdus[image.hdu].header, where)
    mask = found.get("mask", (None,))[0]
    weight = found.get(planes.weight_kind.replace("_", " "), (None,))[0]
    return Tile(
        tile_id=tile_id,
        band=band,
        image=image,
        shape_px=shape,
        wcs_header=wcs_header,
        grid_key=lattice.lattice_key(wcs_header),
        njy_per_unit=njy,
        pixel_scale_arcsec=lattice.pixel_scale_arcsec(wcs),
        corners_deg=lattice.corners_deg(wcs, shape),
        mask=mask,
        mask_planes=planes.mask_planes,
        weight=weight,
        weight_kind=planes.weight_kind,
        psf_fwhm_arcsec=psf_fwhm_arcsec,
    )


def add_plane(
    tile: Tile,
    role: Literal["mask", "weight", "psf"],
    path: str,
    files: storage.FileAccessLog,
    *,
    hdu: int | str | None = None,
) -> Tile:
    """The tile with a plane of another file, whose identity then counts too.

    Of a cube the plane at the image's own index is taken; without `hdu` the file's first image.

    Raises
    ------
    TileError
        The file is no FITS file, truncated, lacks the HDU, or is not of the image's shape.
    FileNotFoundError
        There is no such file.
    """
    where = f"{tile.where}, {role} {path}"
    with open_fits(path, files) as hdus:
        number = first_image(hdus) if hdu is None else hdu
        if number is None:
            raise TileError(f"{where}: no HDU has an image; {FETCH_AGAIN}")
        plane, shape = _whole_plane(hdus, Plane(path, number, tile.image.index), where=where, name=role)
    _require_shape(shape, tile.shape_px, where=where, name=role)
    before = tile.identity or files.identity(tile.image.path)
    identity = combined_identity([before, files.identity(path)])
    changes: dict[str, Any] = {role: plane, "identity": identity}
    return dataclasses.replace(tile, **changes)


def combined_identity(parts: Sequence[FileIdentity]) -> FileIdentity:
    """Of a tile made of several files: all bytes, and a hash over the versions in this order."""
    if len(parts) == 1:
        return parts[0]
    text = ",".join(f"{part.size_bytes}:{part.version}" for part in parts)
    return FileIdentity(
        sum(part.size_bytes for part in parts), hashlib.sha256(text.encode()).hexdigest()[:32]
    )


def first_image(hdus: fits.HDUList) -> int | None:
    """Number of the first HDU with an image of two axes or more; None if there is none."""
    for number, hdu in enumerate(hdus):
        if hdu.is_image and len(getattr(hdu, "shape", None) or ()) >= 2:
            return number
    return None


def _whole_plane(hdus: fits.HDUList, plane: Plane, *, where: str, name: str) -> tuple[Plane, tuple[int, int]]:
    """The plane by the number of its HDU, and (y, x); checked to be there whole."""
    hdu = hdu_at(hdus, plane.hdu, where=where, name=name)
    index, shape = _place(getattr(hdu, "shape", None) or (), plane.index, where=f"{where}: {name}")
    require_whole(hdu, where=where, plane=name, path=plane.path)
    return described(hdu, Plane(plane.path, hdus.index_of(plane.hdu), index)), shape


def hdu_at(hdus: fits.HDUList, number: int | str, *, where: str, name: str) -> Any:
    """The HDU of this number or name.

    Raises
    ------
    TileError
        There is none; the message lists what is there.
    """
    try:
        return hdus[number]
    except (IndexError, KeyError):
        there = ", ".join(f"{n} {hdu.name}".rstrip() for n, hdu in enumerate(hdus))
        raise TileError(
            f"{where}: {name}: there is no HDU {number}, {len(hdus)} HDUs are there: {there}; {FETCH_AGAIN}, "
            "or correct the number"
        ) from None


def _place(
    shape: tuple[int, ...], index: tuple[int, ...], *, where: str
) -> tuple[tuple[int, ...], tuple[int, int]]:
    """Index on the axes before (y, x), which may be left out where their length is 1; and (y, x)."""
    before = shape[:-2]
    if len(index) != len(before) and all(length == 1 for length in before):
        index = (0,) * len(before)
    fits_in = len(index) == len(before) and all(0 <= i < n for i, n in zip(index, before, strict=True))
    if len(shape) < 2 or 0 in shape or not fits_in:
        place = f" at index {', '.join(map(str, index))} of a cube" if index else ""
        raise TileError(
            f"{where} has shape {tuple(shape)}; an image (y, x){place} is needed (cubes: layout generic, axis)"
        )
    return index, (int(shape[-2]), int(shape[-1]))


def _require_shape(found: tuple[int, int], image: tuple[int, int], *, where: str, name: str) -> None:
    if found != image:
        raise TileError(f"{where}: {name} is {found} px, the image {image}; they must cover the same pixels")


def _celestial_wcs(header: fits.Header, where: str) -> tuple[str, WCS]:
    if "CPDIS1" in header or "D2IMDIS1" in header:
        raise TileError(
            f"{where}: the WCS has distortion tables (CPDIS, D2IM), which are not read; exclude it"
        )
    chosen = lattice.celestial_header(header)
    text = chosen.tostring()
    try:
        wcs = lattice.parse_wcs(text)
    except (WcsError, ValueError) as error:
        raise TileError(
            f"{where}: the WCS cannot be used ({error}); correct its cards or exclude the tile"
        ) from None
    if not lattice.is_celestial(wcs):
        found = [header.get("CTYPE1"), header.get("CTYPE2")]
        raise TileError(
            f"{where}: no celestial WCS: CTYPE1, CTYPE2 are {found}, right ascension and declination are needed; "
            "solve the image's astrometry or exclude it"
        )
    if not math.isfinite(lattice.pixel_scale_arcsec(wcs)) or lattice.pixel_scale_arcsec(wcs) == 0:
        raise TileError(f"{where}: the WCS has no pixel scale: CD, or PC and CDELT, are missing or singular")
    return text, wcs


def require_whole(hdu: Any, *, where: str, plane: str, path: str) -> None:
    """Raise unless the file at `path`, whose HDU it is, is as long as the header says; packed files are not checked.

    Raises
    ------
    TileError
        The file ends within the plane.
    """
    info = hdu.fileinfo()
    if is_packed(path) or info is None:
        return
    compressed = isinstance(hdu, fits.CompImageHDU)
    # Without the padding to 2880 bytes, which some writers leave out at the end of the file.
    needed = info["datSpan"] - 2879 if compressed else hdu.size
    there = info["file"].size - info["datLoc"]
    if there >= needed:
        return
    if compressed or len(getattr(hdu, "shape", ())) != 2:
        raise TileError(
            f"{where}: {plane} has {max(there, 0)} bytes, its header says {needed}; {FETCH_AGAIN}"
        )
    ny, nx = hdu.shape
    rows = max(there, 0) * ny // needed
    raise TileError(f"{where}: {plane} is {rows} x {nx} px, its header says {ny} x {nx}; {FETCH_AGAIN}")


def require_whole_file(hdus: fits.HDUList, path: str) -> None:
    """Raise unless the last HDU is whole: a cut file would lack the planes behind the cut without a word.

    Raises
    ------
    TileError
        The file ends within its last HDU.
    """
    require_whole(hdus[-1], where=path, plane=f"HDU {len(hdus) - 1}", path=path)


def mask_planes(header: fits.Header) -> dict[str, int]:
    """Bit number of each mask plane by its name, as the numbers differ between releases.

    From cards MP_<name> = bit, or from pairs MSKN<n> = name and MSKM<n> = 1 << bit, as the LSST pipelines
    write since 2026; where both are there, the latter count.
    """
    new = [key for key in header if key.startswith("MSKN") and key[4:].isdigit()]
    if new:
        masks = {key: int(header.get(f"MSKM{key[4:]}", 1 << int(key[4:]))) for key in new}
        return {str(header[key]).strip().upper(): masks[key].bit_length() - 1 for key in new}
    return {key[3:].upper(): int(header[key]) for key in header if key.upper().startswith("MP_")}


def njy_of_unit(unit: Any) -> float | None:
    """One pixel unit in nJy, if it is a unit of flux such as nJy or nanomaggy; else None."""
    return NJY_OF_UNIT.get(str(unit).strip().lower())


def njy_of_fluxmag0(cards: Mapping[str, Any]) -> float | None:
    """One image unit in nJy, from FLUXMAG0, the flux in image units of AB magnitude 0; None if not stated."""
    found = cards.get("FLUXMAG0")
    if not isinstance(found, int | float) or not found > 0 or not math.isfinite(found):
        return None
    return njy_per_unit(2.5 * math.log10(float(found)))
