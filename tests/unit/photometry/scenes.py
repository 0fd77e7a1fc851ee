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
    n, n_bands, size_px, _ = images.shape
    each = (n, n_bands)
    return CutoutBlock(
        grid=Grid(size_px, scale),
        bands=tuple(bands),
        object_id=np.arange(n),
        ra_deg=np.zeros(n),
        dec_deg=np.zeros(n),
        image=images,
        mask=None,
        variance=None,
        crpix=np.zeros((n, 2)),
        crval=np.zeros((n, 2)),
        cd=np.zeros((n, 2, 2)),
        tile=np.array(["0"] * n),
        coverage=np.isfinite(images).mean(axis=(2, 3)).astype(np.float32),
        sky_sigma_njy=np.full(each, np.nan, np.float32),
        psf_fwhm_arcsec=np.full(each, fwhm, np.float32),
        noise_correlation=np.ones(each, np.float32),
        flags=np.zeros(n, np.int32),
    )
