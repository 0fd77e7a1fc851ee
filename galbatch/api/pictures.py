"""Pictures of cutouts: the bands as colors, with an arsinh intensity stretch, as PNG."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from galbatch import storage
from galbatch.api.cutouts import Cutout, safe_name
from galbatch.core.types import CutoutBlock
from galbatch.errors import OutputError

__all__ = [
    "color_bands",
    "color_picture",
    "encoded_png",
    "intensity_stretch",
    "montage_png",
    "picture_png",
    "thumbnail_path",
    "thumbnail_png",
    "write_montage",
    "write_thumbnail",
]

Floats = npt.NDArray[np.float64]

SOFTENING = 3.0
"""The intensity stretch is linear below about this many units of brightness (of sky noise)."""

PIXELS_PER_PX = 3
"""Pixels of a picture for each pixel of a cutout: 96 px are too small to see on a screen."""

THUMBNAIL_PX = 96
"""Cutouts with more pixels a side are binned to at most so many: a picture has 10 to 20 kB then."""

MONTAGE_COLUMNS = 7
"""Pictures in a row of a montage: an object and its 20 neighbors make three rows."""

MONTAGE_PX = 144
"""Smallest side of a picture in a montage, in pixels."""

GAP_PX = 4
"""Pixels between the pictures of a montage."""

BLANK_RGB = 0.82
"""Pixels without data are light gray, which no drawn sky resembles."""


def write_thumbnail(path: str, cutout: Cutout) -> None:
    """Write a cutout as a color picture (PNG), see `picture_png`; raises as `storage.publish` does.

    Raises
    ------
    OutputError
        Another suffix than ``.png``; no space, or no permission.
    """
    _require_png(path)
    storage.publish(path, picture_png(cutout))


def write_montage(path: str, cutouts: Sequence[Cutout], labels: Sequence[str]) -> None:
    """Write pictures of cutouts side by side (PNG), see `montage_png`; raises as `write_thumbnail` does."""
    _require_png(path)
    storage.publish(path, montage_png(cutouts, labels))


def _require_png(path: str) -> None:
    if not path.lower().endswith(".png"):
        raise OutputError(f"{path}: pictures of cutouts are PNG files; end the name in .png")


def thumbnail_path(catalog_path: str, object_id: int | str) -> str:
    """Return the path of the picture that ``galbatch show`` writes of an object, in this user's folder of temporary files."""
    # On a machine of many users each has a folder of their own. Windows has no uid, and a temporary folder for each user.
    user = os.getuid() if hasattr(os, "getuid") else ""
    # Of the id as well: ids that differ in case, or in characters that files' names do not have, are different objects.
    digest = hashlib.sha256(f"{storage.absolute(catalog_path)} {object_id}".encode()).hexdigest()[:8]
    return str(Path(tempfile.gettempdir(), f"galbatch-{user}", f"{digest}_{safe_name(object_id)}.png"))


def picture_png(cutout: Cutout) -> bytes:
    """Return a cutout as a color picture (PNG), with row 0 at the bottom.

    Brightness is in units of the noise of the sky in the first band, of the same flux in all bands: an object of equal
    fluxes is white.
    """
    picture = color_picture(cutout)
    return encoded_png(picture.repeat(PIXELS_PER_PX, axis=0).repeat(PIXELS_PER_PX, axis=1))


def montage_png(cutouts: Sequence[Cutout], labels: Sequence[str]) -> bytes:
    """Return pictures of cutouts side by side (PNG), `MONTAGE_COLUMNS` in a row, each with a label in its upper left corner."""
    from PIL import Image, ImageDraw

    pictures = [Image.open(io.BytesIO(encoded_png(color_picture(one)))) for one in cutouts]
    # Cutouts of several grids differ in size: all are shown as large as the largest, and at least legibly.
    cell = max(MONTAGE_PX, *(picture.width for picture in pictures))
    n_columns = min(MONTAGE_COLUMNS, len(pictures))
    n_rows = -(-len(pictures) // n_columns)
    montage = Image.new(
        "RGB", (n_columns * (cell + GAP_PX) - GAP_PX, n_rows * (cell + GAP_PX) - GAP_PX), "white"
    )
    draw = ImageDraw.Draw(montage)
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        row, column = divmod(number, n_columns)
        left, top = column * (cell + GAP_PX), row * (cell + GAP_PX)
        montage.paste(picture.resize((cell, cell), Image.Resampling.NEAREST), (left, top))
        draw.text((left + 4, top + 2), label, fill="white", stroke_width=1, stroke_fill="black")
    buffer = io.BytesIO()
    montage.save(buffer, format="png")
    return buffer.getvalue()


def color_picture(cutout: Cutout) -> Floats:
    """Return a cutout as an RGB image (y, x, rgb) float64 in 0..1, see `picture_png`."""
    image = cutout.image.astype(np.float64)
    noise = float(cutout.sky_sigma_njy[0])
    if not noise > 0:
        # A cutout full of a galaxy has no sky: then the scatter of its own faint half stands for it.
        finite = image[0][np.isfinite(image[0])]
        noise = float(np.quantile(finite, 0.5) - np.quantile(finite, 0.16)) if finite.size else 1.0
    return intensity_stretch(image, np.full(len(image), max(noise, np.finfo(np.float32).tiny)))


def encoded_png(picture: Floats) -> bytes:
    """Return an RGB image (y, x, rgb) float64 in 0..1 as PNG, with row 0 at the bottom."""
    # Loaded here: most that opens a catalog draws nothing.
    from PIL import Image

    buffer = io.BytesIO()
    # Row 0 of a FITS image is at the bottom, but that of a PNG at the top.
    Image.fromarray((picture[::-1] * 255).round().astype(np.uint8)).save(buffer, format="png")
    return buffer.getvalue()


def color_bands(bands: Sequence[str]) -> tuple[str, ...]:
    """Return the bands that `intensity_stretch` draws as red, green and blue; red and blue alone where there are two."""
    middle = (bands[len(bands) // 2],) if len(bands) > 2 else ()
    return tuple(dict.fromkeys((bands[-1], *middle, bands[0])))


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


def thumbnail_png(cutouts: CutoutBlock, index: int) -> bytes:
    """Return a cutout of a block as a small color picture (PNG), binned where it is large, for the dashboard."""
    image = cutouts.image[index].astype(np.float64)  # (band, y, x)
    step = -(-image.shape[-1] // THUMBNAIL_PX)
    size = image.shape[-1] // step * step
    n_bins = size // step
    # NaN of a bin stays NaN, which is drawn gray: where tiles end, pictures show it.
    binned = image[:, :size, :size].reshape(len(image), n_bins, step, n_bins, step).mean(axis=(2, 4))
    first = binned[0][np.isfinite(binned[0])]
    # A cutout full of a galaxy has no sky: its median stands for it, or all of the picture would be white.
    noise = float(np.nan_to_num(cutouts.sky_sigma_njy[index, 0])) / step
    unit = max(noise, float(np.median(first)) / 3 if first.size else 0.0, float(np.finfo(np.float32).tiny))
    scale = np.full(len(binned), unit)
    return encoded_png(intensity_stretch(binned, scale))
