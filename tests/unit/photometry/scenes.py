"""Scenes with known light, and the blocks that hold them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from galbatch.core.types import CutoutBlock, Grid

SCALE = 0.168


def gaussian(
    size_px: int, *, flux: float, sigma_px: float, at: tuple[float, float] | None = None
) -> np.ndarray:
    """A round Gaussian (y, x) of a total flux; `at` is (x, y), by default the central pixel."""
    x0, y0 = at or (size_px // 2, size_px // 2)
    y, x = np.indices((size_px, size_px))
    radius2 = (x - x0) ** 2 + (y - y0) ** 2
    return flux / (2 * np.pi * sigma_px**2) * np.exp(-radius2 / (2 * sigma_px**2))


def noise(shape: Sequence[int], sigma: float, seed: int = 1) -> np.ndarray:
    """Independent normal noise."""
    return np.random.default_rng(seed).normal(0.0, sigma, shape)


def block_of(
    images: np.ndarray, bands: Sequence[str] = ("r",), *, scale: float = SCALE, fwhm: float = 0.7
) -> CutoutBlock:
    """The cutouts (object, band, y, x) as a block, without mask and variance, as a store of the image alone has them."""
    images = np.asarray(images, np.float32)
    widths = np.full(images.shape[:2], fwhm, np.float32)
    return CutoutBlock.of_images(images, bands, Grid(images.shape[-1], scale), psf_fwhm_arcsec=widths)
