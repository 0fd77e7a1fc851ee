"""The gallery of the report: cutouts from the store as small color pictures."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import matplotlib.image
import numpy as np
import numpy.typing as npt

from galbatch import ingest, storage
from galbatch.api import Cutout
from galbatch.core.flags import PixelFlag
from galbatch.core.types import BLOCK_OBJECTS, CutoutBlock
from galbatch.errors import OutputError
from galbatch.reporting.contents import Contents

__all__ = ["Picture", "choose_pictures", "intensity_stretch", "write_thumbnail"]

T = TypeVar("T")
Floats = npt.NDArray[np.float64]

N_CLEAN = 12
N_FLAGGED = 12
PER_FLAG = 2
MAX_GROUPS = (
    16  # One block is read from each group, so that the time for a page does not grow with the store.
)

SOFTENING = 3.0  # The intensity stretch is linear below about this many units of brightness (of sky noise).
PIXELS_PER_PX = 3  # A pixel of a cutout as pixels of a picture: 96 px are too small to see on a screen.
BLANK_RGB = 0.82  # Pixels without data are light gray, which no drawn sky resembles.


@dataclass(frozen=True, slots=True)
class Picture:
    """The cutout of one object as PNG. `row` is the object's row in `Contents`."""

    row: int
    png: bytes


def choose_pictures(store: str, contents: Contents) -> tuple[list[Picture], list[Picture]]:
    """Return pictures of objects without flags, and of flagged objects.

    Parameters
    ----------
    store : str
        Path of the cutout store.
    contents : Contents
        The catalog made from it.

    Returns
    -------
    clean : list of Picture
        Up to `N_CLEAN`, evenly distributed over the store.
    flagged : list of Picture
        Up to `N_FLAGGED`, about `PER_FLAG` for each flag.
    """
    row_of = {identity: row for row, identity in enumerate(contents.object_id)}
    groups = _evenly(ingest.list_done(store), MAX_GROUPS)
    # Rounded up: the surplus is cut at the end.
    per_group = -(-N_CLEAN // max(len(groups), 1))
    clean: list[Picture] = []
    flagged: list[Picture] = []
    seen: Counter[PixelFlag] = Counter()
    for pixel, grid in groups:
        done = ingest.read_done(store, pixel, grid)
        if done is None:
            continue
        stop = min(int(done["n_objects"]), BLOCK_OBJECTS)
        block = ingest.read_block(store, pixel, grid, start=0, stop=stop)
        rows = [row_of.get(identity, -1) for identity in block.object_id.tolist()]
        fine = [i for i, row in enumerate(rows) if row >= 0 and contents.flags[row] == 0]
        scales = _scales(block)
        clean += [_picture(block, i, rows[i], scales) for i in _evenly(fine, per_group)]
        for i, row in enumerate(rows):
            has_pixels = row >= 0 and bool(np.isfinite(block.image[i]).any())
            if not has_pixels:
                continue
            new = [flag for flag in PixelFlag(int(contents.flags[row])) if seen[flag] < PER_FLAG]
            seen.update(new)
            if new:
                flagged.append(_picture(block, i, row, scales))
    return clean[:N_CLEAN], _evenly(flagged, N_FLAGGED)


def _evenly(items: Sequence[T], n: int) -> list[T]:
    """Return up to `n` of the items, evenly spaced."""
    if len(items) <= n:
        return list(items)
    return [items[index] for index in np.linspace(0, len(items) - 1, n).round().astype(int)]


def _picture(block: CutoutBlock, index: int, row: int, scales: Floats) -> Picture:
    picture = intensity_stretch(block.image[index].astype(np.float64), scales)
    buffer = io.BytesIO()
    # Row 0 of a FITS image is at the bottom, but that of a PNG at the top.
    matplotlib.image.imsave(buffer, picture[::-1], format="png")
    return Picture(row, buffer.getvalue())


def write_thumbnail(path: str, cutout: Cutout) -> None:
    """Write a cutout as a color picture (PNG), with row 0 at the bottom; raises as `storage.publish` does.

    Brightness is in units of the noise of the sky in the first band, of the same flux in all bands: an object of equal
    fluxes is white.

    Raises
    ------
    OutputError
        Another suffix than ``.png``; no space, or no permission.
    """
    if not path.lower().endswith(".png"):
        raise OutputError(f"{path}: pictures of cutouts are PNG files; end the name in .png")
    image = cutout.image.astype(np.float64)
    noise = float(cutout.sky_sigma_njy[0])
    if not noise > 0:
        # A cutout full of a galaxy has no sky: then the scatter of its own faint half stands for it.
        finite = image[0][np.isfinite(image[0])]
        noise = float(np.quantile(finite, 0.5) - np.quantile(finite, 0.16)) if finite.size else 1.0
    picture = intensity_stretch(image, np.full(len(image), max(noise, np.finfo(np.float32).tiny)))
    picture = picture.repeat(PIXELS_PER_PX, axis=0).repeat(PIXELS_PER_PX, axis=1)
    buffer = io.BytesIO()
    matplotlib.image.imsave(buffer, picture[::-1], format="png")
    storage.publish(path, buffer.getvalue())


def _scales(block: CutoutBlock) -> Floats:
    """Return the flux (band,) in nJy of one unit of brightness in each band.

    In the first band it is the sky noise. The other bands are scaled so that objects of the block's median color are white.
    """
    # A low quantile of the noise over objects, because cutouts full of a large galaxy measure its light as noise.
    sigma = block.sky_sigma_njy[:, 0]
    sigma = sigma[np.isfinite(sigma) & (sigma > 0)]
    light = np.nan_to_num(block.image).sum(axis=(2, 3), dtype=np.float64)  # (object, band)
    # Colors are ratios of fluxes, so objects with a band of zero or negative flux are left out.
    shining = light[(light > 0).all(axis=1)]
    color = np.median(shining / shining[:, :1], axis=0) if len(shining) else np.ones(len(block.bands))
    return color * (float(np.quantile(sigma, 0.1)) if len(sigma) else 1.0)


def intensity_stretch(image_njy: Floats, scale_njy: Floats) -> Floats:
    """Return an RGB image with an arsinh intensity stretch that preserves colors (Lupton et al. 2004, PASP 116, 133).

    Parameters
    ----------
    image_njy
        (band, y, x) float64; NaN becomes light gray.
    scale_njy
        (band,) float64, flux of one unit of brightness: about the sky noise.

    Returns
    -------
    (y, x, rgb) float64 in 0..1; the last band is red, the first blue.
    """
    blank = ~np.isfinite(image_njy).all(axis=0)  # (y, x)
    scaled = np.nan_to_num(image_njy) / scale_njy[:, None, None]
    # One gain per pixel, from the mean over bands: an arsinh of each band alone would turn bright centers white.
    brightness = np.maximum(scaled.mean(axis=0), 0)
    # White begins at the brightest 0.15 % of pixels, or the noise of a blank sky would be drawn white.
    top = max(float(np.quantile(brightness, 0.9985)), 2 * SOFTENING)
    level = np.arcsinh(brightness / SOFTENING) / np.arcsinh(top / SOFTENING)
    gain = np.divide(level, brightness, out=np.zeros_like(level), where=brightness > 0)
    # Two bands have no green: their mean stands for it.
    middle = scaled.mean(axis=0) if len(scaled) < 3 else scaled[len(scaled) // 2]
    rgb = np.stack([np.clip(band * gain, 0, 1) for band in (scaled[-1], middle, scaled[0])], axis=-1)
    rgb[blank] = BLANK_RGB
    return rgb
