"""FITS files: opened with their HDUs read when asked for, and checked to be there whole. Shared by headers and pixels."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from galbatch import storage
from galbatch.core.file_kinds import FIRST_BYTES, kind_by_content
from galbatch.errors import TileError
from galbatch.ingest.pixels.structure import FAULTS, is_damage, require_structure, told_damage

__all__ = [
    "FETCH_AGAIN",
    "FITS_SUFFIXES",
    "first_image",
    "hdu_at",
    "ignore_astropy",
    "n_moved_by_fpack",
    "open_fits",
    "opened_fits",
    "quiet_astropy",
    "require_whole",
    "require_whole_file",
    "stem_of",
]

FITS_SUFFIXES = (
    *(f"{name}{packing}" for name in (".fits", ".fit", ".fts") for packing in ("", ".fz", ".gz", ".bz2")),
    ".fz",
)
"""Endings of FITS files' names, in lower case: what lies in a folder under another name is not looked at."""

FETCH_AGAIN = "the file is probably truncated: fetch it again or exclude the tile"


@contextlib.contextmanager
def open_fits(path: str, files: storage.FileAccessLog) -> Iterator[fits.HDUList]:
    """Open a FITS file of any storage, close it at the end of the context, and yield its HDUs.

    Headers and pixels are read when an HDU is first used.

    A file that its content says is packed, by gzip or bzip2, is unpacked whole, and `files` records that it is.

    Raises
    ------
    TileError
        The file is no FITS file, is damaged, or ends within its headers or its packed content; also where astropy finds so within the context.
    """
    with quiet_astropy():  # also while HDUs are read: require_whole reports a truncated file
        known = not storage.has_local_path(path)
        hdus, content = opened_fits(path, size_bytes=files.identity(path).size_bytes if known else None)
        if content.packing:
            files.packed.add(path)
        with contextlib.closing(hdus), told_damage(path):
            yield hdus


def opened_fits(path: str, *, size_bytes: int | None = None) -> tuple[fits.HDUList, storage.Content]:
    """Open a FITS file as `open_fits` does, to be closed by the caller; returns also what the HDUs are read from.

    Parameters
    ----------
    size_bytes : the file's size, where it is known already; saves a request
    """
    with quiet_astropy(), contextlib.ExitStack() as on_failure:
        try:
            content = storage.open_content(path, size_bytes=size_bytes)
        except IsADirectoryError:
            raise TileError(f"{path}: is a folder, expected a FITS file") from None
        on_failure.callback(content.file.close)
        require_structure(content.file, path)
        try:
            opened = fits.open(content.file, mode="readonly", memmap=False, lazy_load_hdus=True)
        except FAULTS as error:
            if not is_damage(error):  # the disk or the network, not the file: worth another try
                raise
            raise TileError(f"{path}: {_why_no_fits(content, error)}") from None
        on_failure.pop_all()
        return opened, content


def _why_no_fits(content: storage.Content, error: Exception) -> str:
    """Return the reason, for an error message, why astropy does not take a file for FITS."""
    content.file.seek(0)
    first = content.file.read(FIRST_BYTES)
    if first.startswith(b"SIMPLE  ="):
        return f"ends within its first header ({error}); {FETCH_AGAIN}"
    if found := kind_by_content(first):
        hint = (
            ", which layouts galaxiesml and multimodaluniverse read"
            if "HDF5" in found
            else "; fetch the image again or exclude it"
        )
        return f"is no FITS file: it {found}{hint}"
    return f"is no FITS file, or is damaged at its beginning ({error}); fetch it again or exclude it"


@contextlib.contextmanager
def quiet_astropy() -> Iterator[None]:
    """Silence astropy's warnings about files that it reads well."""
    with warnings.catch_warnings():
        ignore_astropy()
        yield


def ignore_astropy() -> None:
    """Silence the same warnings for the whole process.

    Workers with several threads need it: Python's contexts of warnings do not belong to a thread.
    """
    warnings.simplefilter("ignore", AstropyWarning)


def stem_of(path: str, suffixes: Sequence[str] = FITS_SUFFIXES) -> str:
    """Return the name of a file without folder and suffix, of any case: a_g of ``a_g.fits.gz``."""
    name = path.rpartition("/")[2]
    # The longest first: .fits.fz ends with .fz, too.
    for suffix in sorted(suffixes, key=len, reverse=True):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return name


def first_image(hdus: fits.HDUList) -> int | None:
    """Return the number of the first HDU with an image of two axes or more; None if there is none."""
    for number, hdu in enumerate(hdus):
        if hdu.is_image and len(getattr(hdu, "shape", None) or ()) >= 2:
            return number
    return None


def n_moved_by_fpack(hdus: fits.HDUList) -> int:
    """Return by how many places fpack moved all HDUs: 1 if the primary HDU had an image, which then stands behind an empty one."""
    had_image = (
        not getattr(hdus[0], "shape", None) and len(hdus) > 1 and isinstance(hdus[1], fits.CompImageHDU)
    )
    return int(had_image)


def hdu_at(hdus: fits.HDUList, number: int | str, *, where: str, name: str) -> Any:
    """Return the HDU of this number or name; `where` and `name` begin the message if there is none.

    Raises
    ------
    TileError
        There is none; the message lists what is there.
    """
    try:
        return hdus[number]
    except (IndexError, KeyError):
        existing = ", ".join(f"{n} {hdu.name}".rstrip() for n, hdu in enumerate(hdus))
        raise TileError(
            f"{where}: {name}: there is no HDU {number}, {len(hdus)} HDUs are there: {existing}; {FETCH_AGAIN}, "
            "or correct the number"
        ) from None


def require_whole(hdu: Any, *, where: str, plane: str) -> None:
    """Raise unless the file that `hdu` was read from, unpacked, is as long as the header says.

    Raises
    ------
    TileError
        The file ends within the plane.
    """
    info = hdu.fileinfo()
    if info is None:
        return
    compressed = isinstance(hdu, fits.CompImageHDU)
    # Without the padding to 2880 bytes, which some writers leave out at the end of the file.
    needed = info["datSpan"] - 2879 if compressed else hdu.size
    found = info["file"].size - info["datLoc"]
    if found >= needed:
        return
    if compressed or len(getattr(hdu, "shape", ())) != 2:
        raise TileError(
            f"{where}: {plane} has {max(found, 0)} bytes, its header says {needed}; {FETCH_AGAIN}"
        )
    ny, nx = hdu.shape
    rows = max(found, 0) * ny // needed
    raise TileError(f"{where}: {plane} is {rows} x {nx} px, its header says {ny} x {nx}; {FETCH_AGAIN}")


def require_whole_file(hdus: fits.HDUList, path: str) -> None:
    """Raise unless the last HDU is whole and no part of another follows: a cut file would lack planes without a word.

    Raises
    ------
    TileError
        The file ends within its last HDU, or within the header of one more.
    """
    last = hdus[-1]
    require_whole(last, where=path, plane=f"HDU {len(hdus) - 1}")
    info = last.fileinfo()
    if info is None:
        return
    # astropy leaves an HDU out whose header is cut, with a warning.
    info["file"].seek(info["datLoc"] + info["datSpan"])
    if info["file"].read(8) == b"XTENSION":
        raise TileError(f"{path}: ends within the header of HDU {len(hdus)}; {FETCH_AGAIN}")
