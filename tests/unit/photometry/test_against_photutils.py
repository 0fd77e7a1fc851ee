"""Photometry of cutouts against photutils on the tile that they were cut from: 196 simulated objects, and 24 of DECaLS."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.convolution import convolve
from astropy.io import fits
from photutils.segmentation import SourceCatalog, detect_sources

from galbatch import photometry
from galbatch.config import PhotometryConfig
from galbatch.core.sky_noise import clipped_sky
from tests.unit.photometry.scenes import block_of, noise

KERNEL = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16  # SExtractor's and SEP's default
SIZE_PX = 64


def by_photutils(tile: np.ndarray, floor: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x, y, Kron flux and half-light radius in px of the sources of a whole tile."""
    sky, sigma = (float(one[0]) for one in clipped_sky(tile.reshape(1, -1)))
    segments = detect_sources(convolve(tile - sky, KERNEL), 1.5 * sigma, 5)
    # photutils bounds Kron radii by isophotal ones, ours by an arcsecond, which of DECaLS is the same for faint sources.
    sources = SourceCatalog(tile - sky, segments, kron_params=(2.5, floor, 0.0))
    radius = np.asarray([getattr(one, "value", one) for one in sources.flux_radius(0.5)])
    return sources.x_centroid, sources.y_centroid, sources.kron_flux, radius


def cut(tile: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Cutouts (object, band, y, x) of 64 px about positions, NaN beyond the tile."""
    padded, half = np.pad(tile, SIZE_PX, constant_values=np.nan), SIZE_PX // 2
    corners = [(round(b) + SIZE_PX - half, round(a) + SIZE_PX - half) for a, b in zip(x, y, strict=True)]
    return np.stack([padded[None, j : j + SIZE_PX, i : i + SIZE_PX] for j, i in corners])


def compared(
    tile: np.ndarray, x: np.ndarray, y: np.ndarray, *, scale: float, floor: float
) -> dict[str, np.ndarray]:
    """Ours over photutils', and how sure ours are."""
    found = photometry.measure_photometry(block_of(cut(tile, x, y), scale=scale), PhotometryConfig())
    there_x, there_y, flux, radius = by_photutils(tile, floor)
    nearest = [int(np.argmin(np.hypot(there_x - a, there_y - b))) for a, b in zip(x, y, strict=True)]
    apart = np.hypot(there_x[nearest] - x, there_y[nearest] - y)
    return {
        "apart_px": apart,
        "flux": found["phot_flux_njy_r"] / flux[nearest],
        "radius": found["phot_half_light_radius_arcsec_r"] / (radius[nearest] * scale),
        "snr": found["phot_flux_njy_r"] / found["phot_flux_err_njy_r"],
    }


def exponential(
    y: np.ndarray, x: np.ndarray, *, flux: float, radius: float, ratio: float, angle: float
) -> np.ndarray:
    """An inclined disk with a core as wide as a PSF."""
    along, across = x * np.cos(angle) + y * np.sin(angle), (y * np.cos(angle) - x * np.sin(angle)) / ratio
    light = np.exp(-np.sqrt(along**2 + across**2 + 2.0) / radius)
    return flux * light / light.sum()


def test_196_simulated_disks() -> None:
    rng = np.random.default_rng(5)
    n, step = 14, 70
    tile = noise((n * step, n * step), 1.0)
    x, y = (
        one.ravel() + rng.uniform(-0.4, 0.4, n * n)
        for one in np.meshgrid(*[np.arange(n) * step + step // 2] * 2)
    )
    for a, b in zip(x, y, strict=True):
        rows, columns = np.ogrid[round(b) - 35 : round(b) + 35, round(a) - 35 : round(a) + 35]
        tile[rows, columns] += exponential(
            rows - b,
            columns - a,
            flux=10 ** rng.uniform(3.0, 4.5),
            radius=rng.uniform(1.2, 3.0),
            ratio=rng.uniform(0.4, 1.0),
            angle=rng.uniform(0, np.pi),
        )
    ours = compared(tile, x, y, scale=0.168, floor=0.1)
    assert (ours["apart_px"] < 1.0).all()
    for what in ("flux", "radius"):
        assert np.median(ours[what]) == pytest.approx(1.0, abs=0.01), what
        # 68 percent of them.
        assert np.diff(np.quantile(ours[what], [0.16, 0.84]))[0] / 2 < 0.02, what
        assert np.abs(ours[what] - 1).max() < 0.25, what


@pytest.mark.parametrize("band", ["g", "r", "z"])
def test_24_sources_of_decals(realdata: Path, band: str) -> None:
    with fits.open(realdata / "decals_dr9" / "cutout_59.1067_-30.4848.fits") as hdus:
        images = [
            hdu for hdu in hdus if hdu.header.get("BAND") == band and hdu.header.get("IMAGETYP") == "image"
        ]
        tile = images[0].data.astype(np.float64) * 3631.0  # nanomaggies to nJy
    sources = np.genfromtxt(
        realdata / "decals_dr9" / "sources.csv", delimiter=",", names=True, dtype=None, encoding="utf-8"
    )
    ours = compared(tile, sources["x_px"], sources["y_px"], scale=0.262, floor=1.4)
    inside = (np.abs(sources["x_px"] - 128) < 100) & (np.abs(sources["y_px"] - 128) < 100)
    known = inside & (ours["apart_px"] < 1.5) & (ours["snr"] > 10)
    assert known.sum() >= 6
    for what in ("flux", "radius"):
        assert np.median(ours[what][known]) == pytest.approx(1.0, abs=0.04), what
        assert np.abs(ours[what][known] - 1).max() < 0.25, what
