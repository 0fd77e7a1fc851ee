"""Zero points that the LSST pipelines keep in a FITS file's archive tables, as a PhotoCalib.

The primary header has the object's id (PHOTOCALIB_ID or ARCHIVE_ID_PHOTOCALIB) and the archive's first HDU
(AR_HDU, counted from 1). That HDU is the index: one row per object and table, ``id``, ``cat.archive`` (HDUs after
the index), ``row0``, ``name``. The object's row has ``calibrationMean``, nJy per image unit, if ``version`` >= 1.
"""

from __future__ import annotations

import math
from typing import Any

from astropy.io import fits

from galbatch.errors import TileError

__all__ = ["njy_of_photocalib"]

ID_CARDS = ("ARCHIVE_ID_PHOTOCALIB", "PHOTOCALIB_ID")


def njy_of_photocalib(hdus: fits.HDUList, where: str) -> float | None:
    """One image unit in nJy by the exposure's PhotoCalib; None if the file has none.

    Raises
    ------
    TileError
        The archive is not as afw writes it, or the calibration varies over the image.
    """
    header = hdus[0].header
    archive_id = next((header[card] for card in ID_CARDS if card in header), None)
    if not archive_id or "AR_HDU" not in header:
        return None
    try:
        record, columns = _record(hdus, int(archive_id), int(header["AR_HDU"]) - 1)
        mean = float(record["calibrationMean"])
        version = int(record["version"]) if "version" in columns.names else 0
        constant = _is_constant(record, columns)
    except (IndexError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise TileError(
            f"{where}: the PhotoCalib {archive_id} cannot be read from the archive at HDU {header['AR_HDU']} "
            f"({error}); fetch the file again, or exclude it"
        ) from None
    if version < 1 or not math.isfinite(mean) or mean <= 0:
        raise TileError(
            f"{where}: the PhotoCalib has version {version} and calibrationMean {mean}; nJy per unit, as versions "
            "from 1 on have it, is needed: exclude the tile"
        )
    if not constant:
        raise TileError(
            f"{where}: the PhotoCalib varies over the image; calibrate it to nJy (PhotoCalib.calibrateImage), "
            "or exclude the tile"
        )
    return mean


def _record(hdus: fits.HDUList, archive_id: int, index_hdu: int) -> tuple[Any, Any]:
    """The object's row and the columns of its table."""
    index = hdus[index_hdu].data
    rows = index[(index["id"] == archive_id) & (index["cat.persistable"] == 0)]
    if len(rows) != 1:
        raise ValueError(f"the index has {len(rows)} rows of it")
    table = hdus[index_hdu + int(rows["cat.archive"][0])]
    return table.data[int(rows["row0"][0])], table.columns


def _is_constant(record: Any, columns: Any) -> bool:
    """By the flag isConstant, which afw packs into the bits of a column; else by the absence of a field."""
    if "isConstant" in columns.names:
        return bool(record["isConstant"])
    if "flags" in columns.names:
        return bool(record["flags"][0])  # the only flag of the table
    return int(record["field"]) == 0
