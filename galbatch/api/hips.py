"""A HiPS of a column, for Aladin: the mean of its values in each pixel of a map, as FITS tiles that reproject makes."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from galbatch import catalog, storage
from galbatch.core import sky
from galbatch.core.columns import DEC, RA
from galbatch.errors import OutputError, UsageError

__all__ = ["mean_map", "write_hips"]

Floats = npt.NDArray[np.float64]

MAX_MAP_PIXELS = 2**26
"""Largest map, 8192 pixels square: with sums and numbers it takes 1.5 GB."""

HIPS_PROPERTIES = "properties"


def write_hips(catalog_path: str, column: str, folder: str, *, pixel_arcsec: float) -> int:
    """Write a HiPS of the mean of a column's values, and return the number of its files.

    Parameters
    ----------
    catalog_path : str
        Finished or not.
    column : str
        A column of numbers.
    folder : str
        Folder to write, which must not exist: local or S3.
    pixel_arcsec : float
        Width of the map's pixels, arcsec. Tiles are on HEALPix pixels of about this width, of which each takes the value of the
        nearest pixel of the map; pixels without a value are NaN.

    Raises
    ------
    CatalogError
        There is no catalog, or no such column.
    UsageError
        The column is not one of numbers, has no value, or the map would have more than 2^26 pixels.
    OutputError
        The folder exists, there is no space, or no permission to write.
    """
    if storage.exists(folder):
        raise OutputError(f"{folder}: exists; choose another folder for the HiPS, or remove it")
    rows = catalog.read_catalog(catalog_path, columns=[RA.name, DEC.name, column])
    values = rows.column(column).to_numpy()
    if not np.issubdtype(values.dtype, np.number):
        raise UsageError(
            f"{catalog_path}: column {column} is {rows.schema.field(column).type}, expected numbers"
        )
    good = np.isfinite(values)
    if not good.any():
        raise UsageError(f"{catalog_path}: column {column} has no value")
    ra, dec = rows.column(RA.name).to_numpy()[good], rows.column(DEC.name).to_numpy()[good]
    image, wcs = mean_map(ra, dec, values[good].astype(np.float64), pixel_deg=pixel_arcsec / 3600)
    stated = {"obs_title": f"mean of {column}", "creator_did": f"ivo://PRIVATE_USER/galbatch/{column}"}
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary, "hips")
        _tiles(image, wcs, made, stated)
        names = sorted(str(path.relative_to(made)) for path in made.rglob("*") if path.is_file())
        # Without properties nobody opens it: they are written last.
        for name in sorted(names, key=lambda name: name == HIPS_PROPERTIES):
            storage.publish(storage.join(folder, name), Path(made, name).read_bytes())
    return len(names)


def mean_map(ra_deg: Floats, dec_deg: Floats, values: Floats, *, pixel_deg: float) -> tuple[Floats, Any]:
    """Return the mean of values in the pixels of a map about them, and the map's WCS (gnomonic, north up).

    Parameters
    ----------
    ra_deg, dec_deg, values : (object,) float64
        Positions in ICRS, deg, within 60 deg of their mean; and finite numbers.
    pixel_deg : float
        Width of a pixel.

    Returns
    -------
    image : (y, x) float64, NaN where no object is
    wcs : astropy.wcs.WCS

    Raises
    ------
    UsageError
        The map would have more than 2^26 pixels, or the objects are too far apart for one map.
    """
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = _mean_position(ra_deg, dec_deg)
    wcs.wcs.cdelt = [-pixel_deg, pixel_deg]
    place = np.stack(wcs.all_world2pix(ra_deg, dec_deg, 0))
    # One pixel of margin: the edge of a map is not reprojected.
    low = np.floor(place.min(axis=1)) - 1
    size = np.ceil(place.max(axis=1)) + 2 - low
    if not np.isfinite(place).all() or size.prod() > MAX_MAP_PIXELS:
        raise UsageError(
            f"HiPS in pixels of {3600 * pixel_deg:g} arcsec: the map has {size[0]:.3g} x {size[1]:.3g} pixels, more than "
            f"{MAX_MAP_PIXELS} in all; choose larger pixels"
        )
    # Before, the reference point had the coordinate -1: FITS counts from 1, and CRPIX was 0.
    wcs.wcs.crpix = -low
    x, y = np.rint(place - low[:, None]).astype(np.int64)
    shape = int(size[1]), int(size[0])
    flat = np.ravel_multi_index((y, x), shape)
    sums = np.bincount(flat, weights=values, minlength=shape[0] * shape[1])
    numbers = np.bincount(flat, minlength=len(sums))
    mean = np.divide(sums, numbers, out=np.full(len(sums), np.nan), where=numbers > 0)
    return mean.reshape(shape), wcs


def _mean_position(ra_deg: Floats, dec_deg: Floats) -> tuple[float, float]:
    """Return the direction of the mean of unit vectors, in deg."""
    mean = sky.unit_vectors(ra_deg, dec_deg).mean(axis=0)
    ra, dec = sky.position_deg(mean[None, :])
    return float(ra[0]), float(dec[0])


def _tiles(image: Floats, wcs: Any, folder: Path, properties: dict[str, str]) -> None:
    """Write the tiles of all orders, by reproject."""
    from reproject import reproject_interp
    from reproject.hips import reproject_to_hips

    with warnings.catch_warnings():
        # Tiles that lie in the map and have no object are all NaN, of which NumPy warns.
        warnings.simplefilter("ignore")
        reproject_to_hips(
            (image, wcs),
            coord_system_out="equatorial",
            reproject_function=reproject_interp,
            output_directory=str(folder),
            properties=properties,
            order="nearest-neighbor",
        )
