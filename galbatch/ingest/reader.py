"""Windows of tiles: only the pixels asked for, in nJy, native byte order and galbatch's mask bits."""

from __future__ import annotations

from collections import OrderedDict
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
        image = self._window(tile, tile.image, box=box).astype(np.float32)
        image *= np.float32(tile.njy_per_unit)
        mask = np.zeros(box.shape, np.uint16)
        if tile.mask is not None:
            mask = _decode(self._window(tile, tile.mask, box=box), tile)
            image[(mask & MaskBit.NO_DATA) != 0] = np.nan
        variance = self._variance(tile, box, image=image)
        return Pixels(image, mask, variance)

    def _variance(self, tile: Tile, box: Box, *, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The variance; sets NaN in `image` where nothing was measured."""
        if tile.weight is None:
            return np.full(box.shape, np.nan, np.float32)
        weight = self._window(tile, tile.weight, box=box).astype(np.float32)
        if tile.weight_kind == "inverse_variance":
            unmeasured = ~(weight > 0)
            image[unmeasured] = np.nan
            weight[unmeasured] = np.nan
            weight = 1.0 / weight
        weight *= np.float32(tile.njy_per_unit**2)
        weight[np.isnan(image)] = np.nan
        return weight

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


def _decode(stored: npt.NDArray[Any], tile: Tile) -> npt.NDArray[np.uint16]:
    """The survey's mask in galbatch's bits."""
    values = stored.astype(np.int64)
    mask = np.zeros(values.shape, np.uint16)
    present = int(np.bitwise_or.reduce(values, axis=None)) if values.size else 0
    for name, number in tile.mask_planes.items():
        bit = MASK_BIT_OF_PLANE.get(name)
        if bit is not None and present >> number & 1:
            mask |= ((values >> number) & 1).astype(np.uint16) * np.uint16(bit)
    return mask
