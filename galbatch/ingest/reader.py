"""Windows of tiles: only the pixels asked for, in nJy, native byte order and galbatch's mask bits."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from galbatch.errors import TileError
from galbatch.ingest import headers
from galbatch.ingest.planes import Box, PlaneReader, open_plane
from galbatch.types import MaskBit, Plane, Tile

__all__ = ["Pixels", "TileReader"]

# Neighboring objects lie on few tiles: 5 bands of a patch and its 8 neighbors fit in 48.
MAX_OPEN_FILES = 48

# The survey's names of planes, in galbatch's bits; planes of other names say nothing that the flags use.
MASK_BIT_OF_PLANE = {
    "BAD": MaskBit.BAD,
    "UNMASKEDNAN": MaskBit.BAD,
    "SAT": MaskBit.SAT,
    "INTRP": MaskBit.INTRP,
    "CR": MaskBit.CR,
    "EDGE": MaskBit.EDGE,
    "SENSOR_EDGE": MaskBit.EDGE,
    "DETECTED": MaskBit.DETECTED,
    "DETECTED_NEGATIVE": MaskBit.NEGATIVE,
    "SUSPECT": MaskBit.SUSPECT,
    "CROSSTALK": MaskBit.SUSPECT,
    "NO_DATA": MaskBit.NO_DATA,
    "BRIGHT_OBJECT": MaskBit.BRIGHT_OBJECT,
    "CLIPPED": MaskBit.CLIPPED,
}


@dataclass(frozen=True, slots=True)
class Pixels:
    """A window of a tile.

    Attributes
    ----------
    image : (y, x) float32, nJy; NaN where the tile has no data
    mask : (y, x) uint16 in MaskBit bits; 0 where the tile has no mask
    variance : (y, x) float32, nJy^2; NaN where unknown
    """

    image: npt.NDArray[np.float32]
    mask: npt.NDArray[np.uint16]
    variance: npt.NDArray[np.float32]


class TileReader:
    """Reads windows of tiles and keeps the files of the last ones open; use it as a context manager."""

    def __init__(self, max_open: int = MAX_OPEN_FILES) -> None:
        self._max_open = max_open
        self._files: OrderedDict[str, fits.HDUList] = OrderedDict()
        self._planes: dict[Plane, PlaneReader] = {}

    def __enter__(self) -> TileReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._files:
            self._close_oldest()

    def read(self, tile: Tile, box: Box) -> Pixels:
        """The pixels of `box`, which lies within the tile.

        Pixels with the NO_DATA bit, or with a weight that says nothing was measured (inverse variance 0),
        are NaN.

        Raises
        ------
        TileError
            The file is truncated or damaged.
        OSError
            It cannot be read now.
        """
        pixels = Pixels(
            np.empty(box.shape, np.float32), np.empty(box.shape, np.uint16), np.empty(box.shape, np.float32)
        )
        self.read_into(tile, box, out=pixels)
        return pixels

    def read_into(self, tile: Tile, box: Box, *, out: Pixels) -> bool:
        """As `read`, into arrays of the box's shape; returns whether every pixel is covered."""
        np.multiply(
            self._window(tile, tile.image, box=box),
            np.float32(tile.njy_per_unit),
            out=out.image,
            casting="same_kind",
        )
        if tile.mask is None:
            out.mask.fill(0)
        else:
            decode_mask(self._window(tile, tile.mask, box=box), tile.mask_planes, out=out.mask)
            if np.bitwise_or.reduce(out.mask, axis=None) & MaskBit.NO_DATA:
                out.image[(out.mask & MaskBit.NO_DATA) != 0] = np.nan
        if tile.weight is None:
            out.variance.fill(np.nan)
        else:
            self._read_variance(tile, box, out=out)
        missing = np.isnan(out.image)
        if not missing.any():
            return True
        out.variance[missing] = np.nan
        return False

    def _read_variance(self, tile: Tile, box: Box, *, out: Pixels) -> None:
        """Fill the variance; sets NaN in the image where nothing was measured."""
        assert tile.weight is not None
        weight = self._window(tile, tile.weight, box=box)
        unit = np.float32(tile.njy_per_unit**2)
        if tile.weight_kind == "variance":
            np.multiply(weight, unit, out=out.variance, casting="same_kind")
            return
        weight = weight.astype(np.float32)
        unmeasured = ~(weight > 0)
        out.image[unmeasured] = np.nan
        weight[unmeasured] = np.nan
        if tile.weight_kind == "inverse_variance":
            np.divide(unit, weight, out=out.variance)
        else:
            np.multiply(weight**2, unit, out=out.variance)

    def _window(self, tile: Tile, plane: Plane, *, box: Box) -> npt.NDArray[Any]:
        if plane not in self._planes or plane.path not in self._files:
            self._planes[plane] = self._open_plane(tile, plane)
        self._files.move_to_end(plane.path)
        try:
            return self._planes[plane].read(box)
        except (ValueError, TypeError, EOFError) as error:  # what astropy raises on cut compressed data
            raise TileError(
                f"{tile.where}: cannot be read at rows {box.y0} to {box.y1} ({error}); fetch it again or exclude it"
            ) from None

    def _open_plane(self, tile: Tile, plane: Plane) -> PlaneReader:
        with headers.quiet_astropy():
            hdus = self._open_file(plane.path)
            try:
                hdu = hdus[plane.hdu]
            except IndexError:
                raise TileError(
                    f"{tile.where}: HDU {plane.hdu} is not there; the file is probably truncated: "
                    "fetch it again or exclude the tile"
                ) from None
            name = _plane_name(tile, plane)
            headers.require_whole(hdu, where=tile.where, plane=name, size_bytes=headers.file_size(plane.path))
            return open_plane(hdu, plane)

    def _open_file(self, path: str) -> fits.HDUList:
        if path not in self._files:
            while len(self._files) >= self._max_open:
                self._close_oldest()
            self._files[path] = headers.opened_fits(path)
        return self._files[path]

    def _close_oldest(self) -> None:
        path, hdus = self._files.popitem(last=False)
        self._planes = {plane: reader for plane, reader in self._planes.items() if plane.path != path}
        hdus.close()


def _plane_name(tile: Tile, plane: Plane) -> str:
    if plane == tile.image:
        return "image"
    return "mask" if plane == tile.mask else tile.weight_kind.replace("_", " ")


def decode_mask(stored: npt.NDArray[Any], planes: Mapping[str, int], *, out: npt.NDArray[np.uint16]) -> None:
    """The survey's mask in galbatch's bits, by tables of 65536 entries, one for each 16 bits of the integer.

    Parameters
    ----------
    stored : (y, x) integers in any byte order, or integers read as floats
    planes : bit number by the survey's name of the plane
    out : (y, x) uint16, overwritten
    """
    if stored.dtype.kind not in "iu":
        stored = stored.astype(np.int64)
    known = tuple(
        sorted(
            (number, int(MASK_BIT_OF_PLANE[name]))
            for name, number in planes.items()
            if name in MASK_BIT_OF_PLANE
        )
    )
    np.take(_mask_table(known, 0), stored.astype(np.uint16), out=out, mode="wrap")
    for shift in range(16, 8 * stored.dtype.itemsize, 16):
        if any(shift <= number < shift + 16 for number, _ in known):
            out |= _mask_table(known, shift)[(stored >> shift).astype(np.uint16)]


@functools.lru_cache(maxsize=256)
def _mask_table(known: tuple[tuple[int, int], ...], shift: int) -> npt.NDArray[np.uint16]:
    """What every value of the 16 bits from bit `shift` on is in galbatch's bits."""
    values = np.arange(1 << 16)
    table = np.zeros(1 << 16, np.uint16)
    for number, bit in known:
        if shift <= number < shift + 16:
            table |= ((values >> (number - shift)) & 1).astype(np.uint16) * np.uint16(bit)
    return table
