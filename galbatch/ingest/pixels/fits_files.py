"""FITS files: opened with their HDUs read when asked for, and checked to be there whole. Shared by headers and pixels."""

from __future__ import annotations

import contextlib
import warnings
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from galbatch import storage
from galbatch.errors import TileError
from galbatch.ingest.pixels.cost import is_packed

__all__ = [
    "FETCH_AGAIN",
    "FITS_SUFFIXES",
    "first_image",
    "hdu_at",
    "ignore_astropy",
    "open_fits",
    "opened_fits",
    "quiet_astropy",
    "require_whole",
    "require_whole_file",
]

FITS_SUFFIXES = (".fits", ".fits.gz", ".fits.fz")

FETCH_AGAIN = "the file is probably truncated: fetch it again or exclude the tile"


@contextlib.contextmanager
def open_fits(path: str, files: storage.FileAccessLog) -> Iterator[fits.HDUList]:
    """Open a FITS file of any storage, whose HDUs are read when asked for.

    Raises
    ------
    TileError
        The file is no FITS file, or ends within its headers.
    """
    with quiet_astropy():  # also while HDUs are read: require_whole reports a truncated file
        known = not storage.has_local_path(path) and not is_packed(path)
        hdus = opened_fits(path, size_bytes=files.identity(path).size_bytes if known else None)
        try:
            yield hdus
        except (EOFError, zlib.error) as error:
            raise TileError(f"{path}: ends within its gzip stream ({error}); {FETCH_AGAIN}") from None
        finally:
            hdus.close()


def opened_fits(path: str, source: BinaryIO | None = None, *, size_bytes: int | None = None) -> fits.HDUList:
    """Open a FITS file as `open_fits` does, to be closed by the caller.

    Parameters
    ----------
    source : binary file to read instead of the file at `path`; closed with the HDUs
    size_bytes : the file's size, where it is known already; saves a request
    """
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
            if b"#ASDF" in _first_bytes(path):
                raise TileError(
                    f"{path}: is an ASDF file (Roman's format), which is not read; write the image as FITS"
                ) from None
            raise TileError(
                f"{path}: is no FITS file, or is damaged at its beginning ({error}); fetch it again or exclude it"
            ) from None


def _first_bytes(path: str) -> bytes:
    """The bytes by which a file that is no FITS file may be known."""
    try:
        with storage.open_file(path) as file:
            return file.read(8)
    except OSError:
        return b""


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


def first_image(hdus: fits.HDUList) -> int | None:
    """Return the number of the first HDU with an image of two axes or more; None if there is none."""
    for number, hdu in enumerate(hdus):
        if hdu.is_image and len(getattr(hdu, "shape", None) or ()) >= 2:
            return number
    return None


def hdu_at(hdus: fits.HDUList, number: int | str, *, where: str, name: str) -> Any:
    """Return the HDU of this number or name.

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


def require_whole(hdu: Any, *, where: str, plane: str, path: str) -> None:
    """Raise unless the file at `path`, that `hdu` was read from, is as long as the header says; packed files are not checked.

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
    """Raise unless the last HDU is whole: a cut file would lack the planes behind the cut without a word.

    Raises
    ------
    TileError
        The file ends within its last HDU.
    """
    require_whole(hdus[-1], where=path, plane=f"HDU {len(hdus) - 1}", path=path)
