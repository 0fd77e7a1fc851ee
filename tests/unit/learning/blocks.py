"""Blocks of cutouts for stores that networks learn from."""

import numpy as np
import numpy.typing as npt

from galbatch.core.types import CutoutBlock, Grid


def block_of(
    grid: Grid, bands: tuple[str, ...], images: npt.NDArray[np.float32], ids: npt.NDArray[np.int64]
) -> CutoutBlock:
    """Return whole cutouts without mask and variance, from images (object, band, y, x) and ids (object,)."""
    n, of_band = len(ids), (len(ids), len(bands))
    return CutoutBlock(
        grid=grid,
        bands=bands,
        object_id=ids,
        ra_deg=np.linspace(150, 151, n),
        dec_deg=np.zeros(n),
        image=images,
        mask=None,
        variance=None,
        crpix=np.full((n, 2), grid.size_px / 2),
        crval=np.zeros((n, 2)),
        cd=np.zeros((n, 2, 2)),
        tile=np.full(n, "t"),
        coverage=np.ones(of_band, np.float32),
        sky_sigma_njy=np.full(of_band, 2.0, np.float32),
        psf_fwhm_arcsec=np.full(of_band, 0.8, np.float32),
        noise_correlation=np.ones(of_band, np.float32),
        flags=np.zeros(n, np.int32),
    )
