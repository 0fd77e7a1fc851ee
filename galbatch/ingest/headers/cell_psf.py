"""PSFs of cell-based coadds: one kernel image for each cell of pixels, as lsst.images writes them (schema cell_psf 1).

The JSON tree says which HDU has the array (cell y, cell x, y, x), and where the cells lie: ``psf.bounds.bbox`` in the tract's
pixels, of which ``image.start`` is the image's first; ``psf.bounds.grid.cell_shape`` is a cell's size.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from astropy.io import fits

from galbatch.core.types import Plane, PsfCells, Tile
from galbatch.errors import TileError
from galbatch.ingest.pixels.planes import described

__all__ = ["with_cell_psf"]


def with_cell_psf(tile: Tile, hdus: fits.HDUList, where: str) -> Tile:
    """Return the tile with the kernel images of its cells, if its file has a JSON tree that tells of them.

    Raises
    ------
    TileError
        The tree tells of a PSF that is not laid out so.
    """
    if "JSONADDR" not in hdus[0].header:
        return tile
    try:
        tree = json.loads(bytes(hdus["JSON"].data["JSON"][0]))
        if "psf" not in tree:
            return tile
        hdu = hdus[_source(tree["psf"]["array"])]
        cells = _cells(tree, hdu.shape)
        plane = described(hdu, Plane(tile.image.path, hdus.index_of(hdu), (0, 0)))
    except (KeyError, IndexError, ValueError, TypeError, OSError) as error:
        raise TileError(
            f"{where}: the PSF of its cells cannot be read ({type(error).__name__}: {error}); an array (cell y, cell x, y, x) in an HDU of its own is "
            f"expected, as lsst.images writes it: state the width instead, [survey] psf_fwhm_arcsec = {{{tile.band} = ..}}"
        ) from None
    return dataclasses.replace(tile, psf=plane, psf_cells=cells)


def _source(array: Mapping[str, Any]) -> str | tuple[str, int]:
    """Return the HDU that an array's reference names: ``fits:PSF``, or ``fits:PSF,2`` by name and version."""
    scheme, _, name = str(array["source"]).partition(":")
    name, _, version = name.partition(",")
    if scheme != "fits" or not name:
        raise ValueError(f"source {array['source']!r} names no HDU")
    return (name, int(version)) if version else name


def _cells(tree: Mapping[str, Any], shape: tuple[int, ...]) -> PsfCells:
    """Return where the cells lie on the image, in agreement with the array's shape."""
    bounds, start = tree["psf"]["bounds"], tree["image"]["start"]
    height, width = (int(length) for length in bounds["grid"]["cell_shape"])
    box = bounds["bbox"]
    n_cells = (
        (int(box["y"]["stop"]) - int(box["y"]["start"])) // height,
        (int(box["x"]["stop"]) - int(box["x"]["start"])) // width,
    )
    if len(shape) != 4 or shape[:2] != n_cells:
        raise ValueError(f"the array's shape is {shape}, the tree tells of {n_cells} cells")
    first = int(box["y"]["start"]) - int(start[0]), int(box["x"]["start"]) - int(start[1])
    return PsfCells(first, (height, width), n_cells, (int(shape[2]), int(shape[3])))
