"""The gallery of the report: cutouts from the store as small color pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from galbatch import api, ingest
from galbatch.core.flags import PixelFlag, quality_bits
from galbatch.core.types import BLOCK_OBJECTS, CutoutBlock
from galbatch.reporting.contents import Contents
from galbatch.reporting.marks import marks_svg

__all__ = ["Picture", "choose_pictures"]

T = TypeVar("T")
Floats = npt.NDArray[np.float64]

N_CLEAN = 12
N_FLAGGED = 12
PER_FLAG = 2
MAX_GROUPS = (
    16  # One block is read from each group, so that the time for a page does not grow with the store.
)


@dataclass(frozen=True, slots=True)
class Picture:
    """The cutout of one object as PNG. `row` is the object's row in `Contents`; `marks` an SVG of scale bar and directions."""

    row: int
    png: bytes
    marks: str
    bands: tuple[str, ...]


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
        Up to `N_CLEAN` without quality flags, evenly distributed over the store.
    flagged : list of Picture
        Up to `N_FLAGGED` others, about `PER_FLAG` for each flag.
    """
    row_of = {identity: row for row, identity in enumerate(contents.object_id)}
    # An object has a cutout on each grid of the store: one grid shows it once.
    largest = ingest.stored_grids(store)[:1]
    groups = _evenly([group for group in ingest.list_done(store) if group[1] in largest], MAX_GROUPS)
    # Rounded up: the surplus is cut at the end.
    per_group = -(-N_CLEAN // max(len(groups), 1))
    clean: list[Picture] = []
    flagged: list[Picture] = []
    seen: Counter[PixelFlag] = Counter()
    against = quality_bits(PixelFlag)
    for pixel, grid in groups:
        done = ingest.read_done(store, pixel, grid)
        if done is None:
            continue
        stop = min(int(done["n_objects"]), BLOCK_OBJECTS)
        block = ingest.read_block(store, pixel, grid, start=0, stop=stop)
        rows = [row_of.get(identity, -1) for identity in block.object_id.tolist()]
        fine = [i for i, row in enumerate(rows) if row >= 0 and contents.flags[row] & against == 0]
        scales = _scales(block)
        # Flags of information leave an object fine: it is not shown again for them.
        shown = _evenly(fine, per_group)
        clean += [_picture(block, i, rows[i], scales) for i in shown]
        for i, row in enumerate(rows):
            has_pixels = row >= 0 and bool(np.isfinite(block.image[i]).any())
            if not has_pixels or i in shown:
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
    picture = api.intensity_stretch(block.image[index].astype(np.float64), scales)
    marks = marks_svg(block.image.shape[-1], block.cd[index])
    return Picture(row, api.encoded_png(picture), marks, block.bands)


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
