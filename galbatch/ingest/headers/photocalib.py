"""Zero points that the LSST pipelines keep in a FITS file's archive tables, as a PhotoCalib.

The primary header has the object's id (PHOTOCALIB_ID or ARCHIVE_ID_PHOTOCALIB) and the archive's first HDU
(AR_HDU, counted from 1). That HDU is the index: one row per object and table, ``id``, ``cat.archive`` (HDUs after
the index), ``row0``, ``name``. The object's row has ``calibrationMean``, nJy per image unit, if ``version`` >= 1, and
the id of a ``field`` that has the calibration at each pixel: a Chebyshev polynomial, or a product of such.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from numpy.polynomial import chebyshev

from galbatch.core.types import CalibrationField
from galbatch.errors import TileError

__all__ = ["ArchiveError", "PhotoCalib", "photocalib"]

ID_CARDS = ("ARCHIVE_ID_PHOTOCALIB", "PHOTOCALIB_ID")
DAMAGED = (IndexError, KeyError, ValueError, TypeError, AttributeError)

_Box = tuple[float, float, float, float]

MAX_DEPTH = 8
"""Products within products: a damaged archive may have one that is its own factor."""

PhotoCalib = tuple[float, CalibrationField | None]
"""Mean calibration in nJy per image unit, and how it varies over the image: None if it does not."""


class ArchiveError(TileError):
    """The archive is not there: cutout services leave its cards and cut its tables off."""


def photocalib(hdus: fits.HDUList, image: fits.Header, where: str) -> PhotoCalib | None:
    """Return the calibration that the exposure's PhotoCalib has; None if the file has none.

    Parameters
    ----------
    image : astropy.io.fits.Header
        Header of the image, whose cards LTV1 and LTV2 say where its pixels lie on the exposure.

    Raises
    ------
    ArchiveError
        The archive cannot be read.
    TileError
        The calibration varies over the image in another way than by Chebyshev polynomials, or is no number.
    """
    header = hdus[0].header
    archive_id = next((header[card] for card in ID_CARDS if card in header), None)
    if not archive_id or "AR_HDU" not in header:
        return None
    try:
        records, columns, _ = _records(hdus, int(archive_id))
        record = records[0]
        mean = float(record["calibrationMean"])
        version = int(record["version"]) if "version" in columns.names else 0
        # afw packs the flag isConstant into the bits of a column; before that, no field meant constant.
        if "isConstant" in columns.names:
            constant = bool(record["isConstant"])
        elif "flags" in columns.names:
            constant = bool(record["flags"][0])
        else:
            constant = int(record["field"]) == 0
        field_id = int(record["field"]) if "field" in columns.names else 0
    except DAMAGED as error:
        raise ArchiveError(
            f"{where}: the PhotoCalib {archive_id} cannot be read from the archive at HDU {header['AR_HDU']} "
            f"({error}); fetch the file again, or exclude it"
        ) from None
    if version < 1 or not math.isfinite(mean) or mean <= 0:
        raise TileError(
            f"{where}: the PhotoCalib has version {version} and calibrationMean {mean}; nJy per unit, as versions "
            "from 1 on have it, is needed: exclude the tile"
        )
    return mean, None if constant else _field(hdus, field_id, image, mean=mean, where=where)


def _records(hdus: fits.HDUList, archive_id: int) -> tuple[Any, Any, str]:
    """Return the archive's rows of one object, the columns of their table, and the class that afw restores it with."""
    index_hdu = int(hdus[0].header["AR_HDU"]) - 1
    index = hdus[index_hdu].data
    rows = index[(index["id"] == archive_id) & (index["cat.persistable"] == 0)]
    if len(rows) != 1:
        raise ValueError(f"the index has {len(rows)} rows of it")
    table = hdus[index_hdu + int(rows["cat.archive"][0])]
    first = int(rows["row0"][0])
    records = table.data[first : first + max(int(rows["nrows"][0]), 1)]
    if not len(records):
        raise IndexError(f"its row {first} is not there")
    return records, table.columns, str(rows["name"][0]).strip()


def _polynomial(hdus: fits.HDUList, field_id: int, *, depth: int = 0) -> tuple[_Box, npt.NDArray[np.float64]]:
    """Return the bounding box and the Chebyshev coefficients (order in y, order in x) of a field, in nJy per unit.

    A ProductBoundedField has the ids of its factors in its rows, which share one bounding box.
    """
    records, _, name = _records(hdus, field_id)
    if name == "ProductBoundedField" and depth < MAX_DEPTH:
        factors = [_polynomial(hdus, int(record["id"]), depth=depth + 1) for record in records]
        if len({box for box, _ in factors}) > 1:
            raise ValueError("the factors of its product have different bounding boxes")
        return factors[0][0], functools.reduce(_product, (coefficients for _, coefficients in factors))
    if name != "ChebyshevBoundedField":
        raise ValueError(f"only a ChebyshevBoundedField, and products of them, are read; this is a {name}")
    x0, y0, x1, y1 = (float(records[0][f"bbox_{at}"]) for at in ("min_x", "min_y", "max_x", "max_y"))
    values = np.atleast_1d(np.asarray(records[0]["coefficients"], np.float64))
    if not np.isfinite(values).all() or x1 < x0 or y1 < y0:
        raise ValueError("its coefficients or its bounding box are no numbers")
    return (x0, y0, x1, y1), values.reshape(-1, int(records[0]["order_x"]) + 1)


def _product(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the coefficients (order in y, order in x) of the product of two polynomials, from its values at as many nodes."""
    n_y, n_x = (a + b - 1 for a, b in zip(one.shape, other.shape, strict=True))
    y, x = chebyshev.chebpts1(n_y), chebyshev.chebpts1(n_x)
    values = chebyshev.chebgrid2d(y, x, one) * chebyshev.chebgrid2d(y, x, other)
    in_y = np.linalg.solve(chebyshev.chebvander(y, n_y - 1), values)
    found: npt.NDArray[np.float64] = np.linalg.solve(chebyshev.chebvander(x, n_x - 1), in_y.T).T
    return found


def _field(
    hdus: fits.HDUList, field_id: int, image: fits.Header, *, mean: float, where: str
) -> CalibrationField:
    """Return the polynomial by which a calibration varies over the image, relative to its mean."""
    name = "field"
    try:
        _, _, name = _records(hdus, field_id)
        (x0, y0, x1, y1), values = _polynomial(hdus, field_id)
    except DAMAGED as error:
        raise TileError(
            f"{where}: the PhotoCalib varies over the image by the {name} {field_id}, which cannot be applied ({error}); "
            "calibrate the image to nJy (PhotoCalib.calibrateImage), or exclude the tile"
        ) from None
    coefficients = values / mean
    # afw's bounding box counts pixels, their outer edges are half a pixel further; LTV is minus the place of pixel 0.
    ltv = float(image.get("LTV1", 0.0)), float(image.get("LTV2", 0.0))
    return CalibrationField(
        x_range=(x0 - 0.5 + ltv[0], x1 + 0.5 + ltv[0]),
        y_range=(y0 - 0.5 + ltv[1], y1 + 0.5 + ltv[1]),
        coefficients=tuple(tuple(row) for row in coefficients.tolist()),
    )
