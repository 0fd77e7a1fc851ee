"""Zero points that the LSST pipelines keep in a FITS file's archive tables, as a PhotoCalib.

The primary header has the object's id (PHOTOCALIB_ID or ARCHIVE_ID_PHOTOCALIB) and the archive's first HDU
(AR_HDU, counted from 1). That HDU is the index: one row per object and table, ``id``, ``cat.archive`` (HDUs after
the index), ``row0``, ``name``. The object's row has ``calibrationMean``, nJy per image unit, if ``version`` >= 1, and
the id of a ``field`` that has the calibration at each pixel.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from astropy.io import fits

from galbatch.core.types import CalibrationField
from galbatch.errors import TileError

__all__ = ["ArchiveError", "PhotoCalib", "photocalib"]

ID_CARDS = ("ARCHIVE_ID_PHOTOCALIB", "PHOTOCALIB_ID")
DAMAGED = (IndexError, KeyError, ValueError, TypeError, AttributeError)

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
        The calibration varies over the image in another way than a Chebyshev polynomial, or is no number.
    """
    header = hdus[0].header
    archive_id = next((header[card] for card in ID_CARDS if card in header), None)
    if not archive_id or "AR_HDU" not in header:
        return None
    try:
        record, columns, _ = _record(hdus, int(archive_id))
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


def _record(hdus: fits.HDUList, archive_id: int) -> tuple[Any, Any, str]:
    """Return the archive's row of one object, the columns of its table, and the class that afw restores it with."""
    index_hdu = int(hdus[0].header["AR_HDU"]) - 1
    index = hdus[index_hdu].data
    rows = index[(index["id"] == archive_id) & (index["cat.persistable"] == 0)]
    if len(rows) != 1:
        raise ValueError(f"the index has {len(rows)} rows of it")
    table = hdus[index_hdu + int(rows["cat.archive"][0])]
    return table.data[int(rows["row0"][0])], table.columns, str(rows["name"][0]).strip()


def _field(
    hdus: fits.HDUList, field_id: int, image: fits.Header, *, mean: float, where: str
) -> CalibrationField:
    """Return the polynomial by which a calibration varies over the image, relative to its mean."""
    name = "field"
    try:
        record, _, name = _record(hdus, field_id)
        if name != "ChebyshevBoundedField":
            raise ValueError(f"only a ChebyshevBoundedField is read, this is a {name}")
        x0, y0, x1, y1 = (float(record[f"bbox_{at}"]) for at in ("min_x", "min_y", "max_x", "max_y"))
        order_x = int(record["order_x"])
        values = np.atleast_1d(np.asarray(record["coefficients"], np.float64)) / mean
        coefficients = values.reshape(-1, order_x + 1)  # (order in y, order in x)
        if not np.isfinite(values).all() or x1 < x0 or y1 < y0:
            raise ValueError("its coefficients or its bounding box are no numbers")
    except DAMAGED as error:
        raise TileError(
            f"{where}: the PhotoCalib varies over the image by the {name} {field_id}, which cannot be applied ({error}); "
            "calibrate the image to nJy (PhotoCalib.calibrateImage), or exclude the tile"
        ) from None
    # afw's bounding box counts pixels, their outer edges are half a pixel further; LTV is minus the place of pixel 0.
    ltv = float(image.get("LTV1", 0.0)), float(image.get("LTV2", 0.0))
    return CalibrationField(
        x_range=(x0 - 0.5 + ltv[0], x1 + 0.5 + ltv[0]),
        y_range=(y0 - 0.5 + ltv[1], y1 + 0.5 + ltv[1]),
        coefficients=tuple(tuple(row) for row in coefficients.tolist()),
    )
