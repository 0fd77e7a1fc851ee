"""FITS headers -> tiles: what every layout's adapter needs."""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS, WcsError

from galbatch import storage
from galbatch.errors import TileError
from galbatch.ingest import lattice
from galbatch.types import Plane, Tile, njy_per_unit

__all__ = [
    "Planes",
    "file_size",
    "make_tile",
    "mask_planes",
    "njy_from_fluxmag0",
    "open_fits",
    "opened_fits",
    "require_whole",
    "require_whole_file",
]

# S3 reads come in blocks; s3fs's default of 50 MiB would fetch a whole tile for one cutout.
S3_BLOCK_BYTES = 256 * 1024


@contextlib.contextmanager
def open_fits(path: str) -> Iterator[fits.HDUList]:
    """A FITS file, local or on S3, whose HDUs are read when asked for.

    Raises
    ------
    TileError
        The file is no FITS file, or ends within its headers.
    """
    with quiet_astropy():  # also while HDUs are read: a truncated file is told of by require_whole
        hdus = opened_fits(path)
        try:
            yield hdus
        finally:
            hdus.close()


def opened_fits(path: str) -> fits.HDUList:
    """As `open_fits`, to be closed by the caller."""
    remote: dict[str, Any] = {}
    if storage.is_s3(path):
        remote = {"use_fsspec": True, "fsspec_kwargs": {"default_block_size": S3_BLOCK_BYTES}}
    with quiet_astropy():
        try:
            return fits.open(path, mode="readonly", memmap=False, lazy_load_hdus=True, **remote)
        except FileNotFoundError:
            raise
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
        warnings.simplefilter("ignore", AstropyWarning)
        yield


@dataclass(frozen=True, slots=True)
class Planes:
    """Which HDUs of one file make a tile.

    `weight_kind` says what the weight HDU holds; `mask_planes` maps the survey's plane names to bit numbers.
    """

    image: int
    mask: int | None = None
    weight: int | None = None
    weight_kind: Literal["variance", "inverse_variance"] = "variance"
    mask_planes: dict[str, int] = field(default_factory=dict)

    def named(self) -> dict[str, int]:
        """HDU numbers by the name that errors use."""
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
    shape = _image_shape(hdus[planes.image], where)
    for name, number in planes.named().items():
        require_whole(hdus[number], where=where, plane=name, size_bytes=file_size(path))
        if tuple(hdus[number].shape) != shape:
            raise TileError(
                f"{where}: {name} is {hdus[number].shape} px, the image {shape}; they must cover the same pixels"
            )
    wcs_header, wcs = _celestial_wcs(hdus[planes.image].header, where)

    def plane(number: int | None) -> Plane | None:
        return None if number is None else Plane(path, number)

    return Tile(
        tile_id=tile_id,
        band=band,
        image=Plane(path, planes.image),
        shape_px=shape,
        wcs_header=wcs_header,
        grid_key=lattice.lattice_key(wcs_header),
        njy_per_unit=njy,
        pixel_scale_arcsec=lattice.pixel_scale_arcsec(wcs),
        corners_deg=lattice.corners_deg(wcs, shape),
        mask=plane(planes.mask),
        mask_planes=planes.mask_planes,
        weight=plane(planes.weight),
        weight_kind=planes.weight_kind,
        psf_fwhm_arcsec=psf_fwhm_arcsec,
        identity=storage.identity(path),
    )


def _image_shape(hdu: Any, where: str) -> tuple[int, int]:
    shape: tuple[int, ...] = getattr(hdu, "shape", None) or ()
    if len(shape) != 2 or 0 in shape:
        raise TileError(
            f"{where}: HDU {hdu.name or 'image'} has shape {tuple(shape)}; an image (y, x) is needed"
        )
    return int(shape[0]), int(shape[1])


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


def file_size(path: str) -> int | None:
    """Bytes of the file, None where the pixels are not at the offsets that the headers say (gzip)."""
    if path.endswith((".gz", ".bz2")):
        return None
    return storage.identity(path).size_bytes if storage.is_s3(path) else os.path.getsize(path)


def require_whole(hdu: Any, *, where: str, plane: str, size_bytes: int | None) -> None:
    """Raise unless the file is as long as the HDU's header says.

    Raises
    ------
    TileError
        The file ends within the plane.
    """
    info = hdu.fileinfo()
    if size_bytes is None or info is None:
        return
    compressed = isinstance(hdu, fits.CompImageHDU)
    # Without the padding to 2880 bytes, which some writers leave out at the end of the file.
    needed = info["datSpan"] - 2879 if compressed else hdu.size
    there = size_bytes - info["datLoc"]
    if there >= needed:
        return
    remedy = "the file is probably truncated: fetch it again or exclude the tile"
    if compressed or len(getattr(hdu, "shape", ())) != 2:
        raise TileError(f"{where}: {plane} has {max(there, 0)} bytes, its header says {needed}; {remedy}")
    ny, nx = hdu.shape
    rows = max(there, 0) * ny // needed
    raise TileError(f"{where}: {plane} is {rows} x {nx} px, its header says {ny} x {nx}; {remedy}")


def require_whole_file(hdus: fits.HDUList, path: str) -> None:
    """Raise unless the last HDU is whole: a cut file would lack the planes behind the cut without a word.

    Raises
    ------
    TileError
        The file ends within its last HDU.
    """
    require_whole(hdus[-1], where=path, plane=f"HDU {len(hdus) - 1}", size_bytes=file_size(path))


def mask_planes(header: fits.Header) -> dict[str, int]:
    """Bit number of each mask plane by its name, from the MP_* cards: the numbers differ between releases."""
    return {key[3:].upper(): int(header[key]) for key in header if key.upper().startswith("MP_")}


def njy_from_fluxmag0(header: fits.Header, where: str) -> float:
    """One image unit in nJy, from FLUXMAG0, the flux in image units of an object of AB magnitude 0.

    Raises
    ------
    TileError
        The card is not there or not positive.
    """
    found = header.get("FLUXMAG0")
    if not isinstance(found, int | float) or not found > 0 or not math.isfinite(found):
        what = "no FLUXMAG0 card" if found is None else f"FLUXMAG0 = {found!r}"
        raise TileError(
            f"{where}: {what} in the primary header, so the zero point is unknown; add FLUXMAG0 "
            "(6.3096e10 for HSC coadds: zero point 27.0) or exclude the tile"
        )
    return njy_per_unit(2.5 * math.log10(float(found)))
