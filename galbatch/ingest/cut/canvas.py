"""The arrays of a block of cutouts while tiles fill them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from galbatch.core.types import CutoutSpec, Tile
from galbatch.ingest.pixels import Box, Pixels, fill_plane

__all__ = ["Canvas"]


@dataclass(slots=True)
class Canvas:
    """A block of cutouts that is being filled; its arrays have the shapes, dtypes and units of `CutoutBlock`.

    `tiles_used` has for each object the ids of the tiles that gave it pixels, `main_tile` for an object and band the tile that
    the cutout is mainly made of.
    """

    spec: CutoutSpec
    image: npt.NDArray[np.float32]
    mask: npt.NDArray[np.uint16]
    variance: npt.NDArray[np.float32]
    crpix: npt.NDArray[np.float64]
    crval: npt.NDArray[np.float64]
    cd: npt.NDArray[np.float64]
    psf_fwhm_arcsec: npt.NDArray[np.float32]
    noise_correlation: npt.NDArray[np.float32]
    flags: npt.NDArray[np.int32]
    band_key: npt.NDArray[np.int64]
    tile: list[str] = field(default_factory=list)
    tiles_used: list[set[str]] = field(default_factory=list)
    main_tile: dict[tuple[int, int], Tile] = field(default_factory=dict)

    @classmethod
    def blank(cls, n_objects: int, tiles: Sequence[Tile], *, spec: CutoutSpec) -> Canvas:
        """Return a canvas for `n_objects`; planes are undefined until `begin`, those that no tile has are one value."""
        shape = (n_objects, len(spec.bands), spec.grid.size_px, spec.grid.size_px)
        # A survey without masks or weights needs no arrays of them: one value stands for all, and is not writable.
        has_mask = any(tile.mask is not None for tile in tiles)
        has_variance = any(tile.weight is not None for tile in tiles)
        return cls(
            spec,
            image=np.empty(shape, np.float32),
            mask=np.empty(shape, np.uint16) if has_mask else np.broadcast_to(np.uint16(0), shape),
            variance=np.empty(shape, np.float32)
            if has_variance
            else np.broadcast_to(np.float32(np.nan), shape),
            crpix=np.empty((n_objects, 2)),
            crval=np.empty((n_objects, 2)),
            cd=np.empty((n_objects, 2, 2)),
            psf_fwhm_arcsec=np.full(shape[:2], np.nan, np.float32),
            noise_correlation=np.full(shape[:2], np.nan, np.float32),
            flags=np.zeros(n_objects, np.int32),
            band_key=np.zeros(shape[:2], np.int64),
            tiles_used=[set() for _ in range(n_objects)],
        )

    def pixels(self, at: tuple[int, int]) -> Pixels:
        """Return views of one band of one cutout."""
        return Pixels(self.image[at], self.mask[at], self.variance[at])

    def begin(self, at: tuple[int, int]) -> None:
        """Set every pixel to not covered: done just before a band is filled, while its pixels fit in the cache."""
        self.image[at] = np.nan
        fill_plane(self.variance[at], np.nan)
        fill_plane(self.mask[at], 0)

    def add(self, at: tuple[int, int], *, box: Box, pixels: Pixels) -> int:
        """Add what `pixels` cover and the canvas does not yet; return the number of pixels added."""
        image = self.image[at][box.slices]
        new = np.isnan(image) & ~np.isnan(pixels.image)  # (y, x) bool
        n_new = int(np.count_nonzero(new))
        image[new] = pixels.image[new]
        if self.mask.flags.writeable:
            self.mask[at][box.slices][new] = pixels.mask[new]
        if self.variance.flags.writeable:
            self.variance[at][box.slices][new] = pixels.variance[new]
        return n_new
