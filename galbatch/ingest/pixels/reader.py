"""Windows of tiles: only the pixels asked for, in nJy, native byte order and galbatch's mask bits."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from galbatch import storage
from galbatch.core.flags import MaskBit
from galbatch.core.types import FileIdentity, Plane, Tile
from galbatch.errors import TileError
from galbatch.ingest.pixels import hdf5, no_data
from galbatch.ingest.pixels.cost import ExpectedReads
from galbatch.ingest.pixels.fits_files import opened_fits, quiet_astropy, require_whole
from galbatch.ingest.pixels.masks import decode_mask, planes_of_hdu
from galbatch.ingest.pixels.planes import Box, PlaneReader, open_plane
from galbatch.ingest.pixels.scaling import calibration_factor, linear_counts
from galbatch.ingest.pixels.structure import FAULTS, is_damage

__all__ = ["Pixels", "TileReader", "fill_plane"]

# Neighboring objects lie on few tiles: 5 bands of a patch and its 8 neighbors fit in 48.
MAX_OPEN_FILES = 48

# Of planes fetched whole and of unpacked files, in TMPDIR: four HSC patches in 5 bands, all planes, take 4 GB.
MAX_HELD_BYTES = 4 * 2**30


@dataclass(frozen=True, slots=True)
class Pixels:
    """The pixels of a window of a tile.

    Attributes
    ----------
    image : (y, x) float32, nJy; NaN where the tile has no data
    mask : (y, x) uint16 in MaskBit bits; 0 where the tile has no mask
    variance : (y, x) float32, nJy^2; NaN where unknown

    A mask or variance that no tile has may be one value broadcast to all pixels: such an array is read-only and is not filled.
    """

    image: npt.NDArray[np.float32]
    mask: npt.NDArray[np.uint16]
    variance: npt.NDArray[np.float32]


class TileReader:
    """A reader of windows of tiles, which keeps the files of the last tiles open; a context manager.

    Each file must be the one that the run was planned with when it is opened and still when it is closed: one that was written
    over in between may have given some of its old pixels and some of its new ones. So leaving the context may raise TileError.
    """

    def __init__(
        self, max_open: int = MAX_OPEN_FILES, *, expected: Mapping[Plane, ExpectedReads] | None = None
    ) -> None:
        self._max_open = max_open
        self._expected = expected or {}
        self._files: OrderedDict[str, fits.HDUList | hdf5.Hdf5File] = OrderedDict()
        self._contents: dict[str, storage.Content] = {}
        # The tile for which each open file was opened, by its path.
        self._opened_for: dict[str, Tile] = {}
        self._planes: dict[Plane, PlaneReader] = {}
        # What is measured once for all objects that a kernel or a tile is near; of a tile by the name of the fact and the image.
        self.kernel_fwhm_px: dict[Plane, float] = {}
        self.of_tile: dict[tuple[str, Plane], Any] = {}
        self._lowest: dict[Plane, no_data.LowestInteger | None] = {}

    def __enter__(self) -> TileReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        opened_for = dict(self._opened_for)
        while self._files:
            self._close_oldest()
        # Another error says more, and its cutouts are not used either.
        for path, tile in opened_for.items() if error is None else ():
            _require_planned(tile, path)

    def read(self, tile: Tile, box: Box) -> Pixels:
        """Return the pixels of `box`, which lies within the tile.

        Pixels without data are NaN, by the image's own values, its weight and the NO_DATA bit: see `no_data`.

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
        """Read as `read` does, into arrays of the box's shape, and return whether every pixel has data."""
        # Sentinels overflow, and weights of 0 are divided by: what comes of it is found to be no data.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            covered = self._read_image(tile, box, out=out.image)
            covered &= self._read_mask(tile, box, out=out)
            covered &= self._read_variance(tile, box, out=out)
            if tile.calibration is not None:
                factor = calibration_factor(tile.calibration, box)
                np.multiply(out.image, factor, out=out.image)
                if out.variance.flags.writeable:
                    np.multiply(out.variance, factor**2, out=out.variance)
        # One meaning of "no data" for all that follows: where the image is NaN, the variance is.
        if not covered and out.variance.flags.writeable:
            out.variance[np.isnan(out.image)] = np.nan
        return covered

    def _read_image(self, tile: Tile, box: Box, *, out: npt.NDArray[np.float32]) -> bool:
        """Fill the image in nJy, NaN where its own values say that there are no data, and return whether there are everywhere."""
        unit, stored = tile.njy_per_unit, self.window(tile, tile.image, box=box)
        np.multiply(stored, np.float32(unit), out=out, casting="same_kind")
        missing = no_data.in_image(out, stored, njy_per_unit=unit, lowest=self._lowest.get(tile.image))
        if no_data.maybe_constant(out):
            constant = self._constant(tile, box)
            missing = constant if missing is None else missing | constant
        return not _blanked(out, missing)

    def _constant(self, tile: Tile, box: Box) -> npt.NDArray[np.bool_]:
        """Return where the image is padded with one value, (y, x) bool."""
        # Of an area that the box cuts, the part beside it is seen too: neighboring cutouts agree where it ends.
        wide = box.grown(no_data.MIN_SIDE_OF_OTHERS_PX - 1).clipped(tile.shape_px)
        around = self.window(tile, tile.image, box=wide)
        found = no_data.constant_areas(around)[box.shifted(-wide.y0, -wide.x0).slices]
        if not found.all() or around[0, 0] <= 0:
            return found
        # A tile that is one brightness everywhere is a flat simulation: nothing in it was observed and the rest padded.
        # Eight rows tell. A brightness is positive: a whole tile of -99 is padding.
        ny, nx = tile.shape_px
        rows = [self.window(tile, tile.image, box=Box(y, y + 1, 0, nx)) for y in range(0, ny, ny // 8 + 1)]
        return found & any((row != around[0, 0]).any() for row in rows)

    def _read_mask(self, tile: Tile, box: Box, *, out: Pixels) -> bool:
        """Fill the mask; set NaN in the image where it says NO_DATA; return whether it says so nowhere."""
        if tile.mask is None:
            fill_plane(out.mask, 0)
            return True
        decode_mask(self.window(tile, tile.mask, box=box), planes_of_hdu(tile.mask_planes, 0), out=out.mask)
        for number, plane in enumerate(tile.more_masks, start=1):
            more = np.empty_like(out.mask)
            decode_mask(self.window(tile, plane, box=box), planes_of_hdu(tile.mask_planes, number), out=more)
            np.bitwise_or(out.mask, more, out=out.mask)
        # Most windows have no such pixel: one pass over the mask is cheaper than indexing the image.
        if not np.bitwise_or.reduce(out.mask, axis=None) & MaskBit.NO_DATA:
            return True
        return not _blanked(out.image, (out.mask & MaskBit.NO_DATA) != 0)

    def _read_variance(self, tile: Tile, box: Box, *, out: Pixels) -> bool:
        """Fill the variance; set NaN in the image where nothing was measured; return whether all was."""
        if tile.weight is None:
            fill_plane(out.variance, np.nan)
            return True
        # A window may be a view of the file, in its byte order: nothing is written into it.
        weight = self.window(tile, tile.weight, box=box)
        no_data.variance_of(weight, tile.weight_kind, njy_per_unit=tile.njy_per_unit, out=out.variance)
        missing = no_data.in_weight(out.variance, weight, tile.weight_kind)
        if tile.weight_kind == "coverage":
            out.variance.fill(np.nan)
        return not _blanked(out.image, missing)

    def prefetch(self, tile: Tile, boxes: Sequence[Box]) -> None:
        """Fetch the windows of this tile that `read` will be asked for next; those fetched before are dropped.

        From S3 all planes' windows come by many requests at a time; local files are not touched.

        Raises
        ------
        TileError, OSError
            As `read`.
        """
        self._prefetch(tile, tile.pixel_planes, boxes)

    def prefetch_psf(self, tile: Tile, boxes: Sequence[Box]) -> None:
        """Fetch windows of the tile's PSF map as `prefetch` does: read one by one, each pixel takes a request."""
        self._prefetch(tile, (tile.psf,), boxes)

    def _prefetch(self, tile: Tile, planes: Sequence[Plane | None], boxes: Sequence[Box]) -> None:
        for plane in planes:
            if plane is not None and storage.reads_by_request(plane.path):
                try:
                    self._reader(tile, plane).prefetch(boxes)
                except FAULTS as error:
                    raise _told(error, tile, plane) from None

    def _reader(self, tile: Tile, plane: Plane) -> PlaneReader:
        reader = self._planes.get(plane)
        if reader is None or plane.path not in self._files:
            reader = self._planes[plane] = self._open_plane(tile, plane)
        # The file that was used last is closed last.
        self._files.move_to_end(plane.path)
        return reader

    def window(self, tile: Tile, plane: Plane, *, box: Box) -> npt.NDArray[Any]:
        """Return the window `box` (y, x) of one plane of the tile, in linear units and any byte order; raises as `read` does."""
        try:
            stored = self._reader(tile, plane).read(box)
            return stored if plane.asinh is None else linear_counts(stored, plane.asinh)
        except FAULTS as error:
            raise _told(error, tile, plane, place=f" at rows {box.y0} to {box.y1}") from None

    def _open_plane(self, tile: Tile, plane: Plane) -> PlaneReader:
        with quiet_astropy():
            hdus = self._open_file(tile, plane)
            if isinstance(hdus, hdf5.Hdf5File):
                return hdus.plane(plane)
            try:
                hdu = hdus[plane.hdu]
            except IndexError:
                raise TileError(
                    f"{tile.where}: HDU {plane.hdu} is not there; the file is probably truncated: "
                    "fetch it again or exclude the tile"
                ) from None
            # What is none of these three is the weight.
            names = {tile.image: "image", tile.psf: "PSF map"}
            names |= dict.fromkeys((tile.mask, *tile.more_masks), "mask")
            name = names.get(plane, tile.weight_kind.replace("_", " "))
            require_whole(hdu, where=tile.where, plane=name)
            self._lowest[plane] = no_data.LowestInteger.of(hdu.header)
            source = self._contents[plane.path].file
            opened = open_plane(hdu, plane, source=source, expected=self._expected.get(plane))
        # The file just opened stays, however large it is: without it nothing can be read.
        while len(self._files) > 1 and self._held_bytes() + opened.held_bytes > MAX_HELD_BYTES:
            self._make_room()
        return opened

    def _held_bytes(self) -> int:
        """Return the bytes on this machine's disk of copies of files that are elsewhere or packed."""
        unpacked = [os.fstat(c.file.fileno()).st_size for c in self._contents.values() if c.packing]
        return sum(unpacked) + sum(reader.held_bytes for reader in self._planes.values())

    def _open_file(self, tile: Tile, plane: Plane) -> fits.HDUList | hdf5.Hdf5File:
        path = plane.path
        if path not in self._files:
            while len(self._files) >= self._max_open:
                self._make_room()
            planned = _require_planned(tile, path)
            size_bytes = planned.size_bytes if planned is not None else None
            self._opened_for[path] = tile
            # Datasets have names; of FITS files, planes keep the numbers of HDUs.
            if isinstance(plane.hdu, str):
                self._files[path] = hdf5.Hdf5File(path)
                return self._files[path]
            self._files[path], self._contents[path] = opened_fits(path, size_bytes=size_bytes)
        self._files.move_to_end(path)
        return self._files[path]

    def _make_room(self) -> None:
        """Close the file that was not used for longest, which must still be the one that was planned."""
        path = next(iter(self._files))
        tile = self._opened_for[path]
        self._close_oldest()
        _require_planned(tile, path)

    def _close_oldest(self) -> None:
        path, hdus = self._files.popitem(last=False)
        self._planes = {plane: reader for plane, reader in self._planes.items() if plane.path != path}
        self._contents.pop(path, None)
        self._opened_for.pop(path, None)
        hdus.close()


def _require_planned(tile: Tile, path: str) -> FileIdentity | None:
    """Return the identity of a file with a plane of the tile; None if the plan does not tell what file it should be.

    Raises
    ------
    TileError
        The file is another one than the run was planned with.
    """
    planned = dict(tile.files).get(path)
    if planned is None:
        return None
    found = storage.identity(path)
    if found != planned:
        raise TileError(
            f"{tile.where}: {path} was replaced: it is {found} now, and was {planned} when the run was planned; put the old "
            "file back, or start the run again: it says which outputs were made of the old one"
        )
    return found


def _told(error: Exception, tile: Tile, plane: Plane, *, place: str = "") -> Exception:
    """Return what to raise for an error of reading a plane: a TileError if its file is damaged, else the error with its file."""
    if is_damage(error):
        # Masks and weights may lie in files of their own, which the tile's name does not say.
        file = "" if plane.path == tile.image.path else f", {plane.path}"
        said = str(error) or type(error).__name__
        return TileError(f"{tile.where}{file}: cannot be read{place} ({said}); fetch it again or exclude it")
    # The kernel's errors of reading name no file, and a run must tell one bad file from a disk that fails. Those without
    # a number would change their text.
    if isinstance(error, OSError) and error.errno is not None and error.filename is None:
        error.filename = plane.path
    return error


def _blanked(image: npt.NDArray[np.float32], missing: npt.NDArray[np.bool_] | None) -> bool:
    """Set NaN where `missing`, None for nowhere, and return whether there is such a pixel."""
    if missing is None or not missing.any():
        return False
    image[missing] = np.nan
    return True


def fill_plane(plane: npt.NDArray[Any], value: float) -> None:
    """Set every pixel of a plane (y, x), unless it is read-only because one value is broadcast to all pixels."""
    if plane.flags.writeable:
        plane.fill(value)
