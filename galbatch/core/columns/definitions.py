"""The definition of a catalog column, and the columns that every catalog has."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galbatch.core.flags import CatalogFlag, PixelFlag
from galbatch.core.pixels import PATH_COLUMNS

__all__ = [
    "DEC",
    "GRID_KEY",
    "HEALPIX",
    "ID",
    "NO_TEXT",
    "NO_VALUE",
    "OWN_COLUMNS",
    "PIXEL_FLAGS",
    "RA",
    "RESERVED_COLUMNS",
    "SEPARATION",
    "Column",
]

GRID_KEY = "grid"
"""Key of the field metadata of densities: a JSON list of lower end, upper end and number of the bins."""

NO_VALUE = "null: no value, the flags say why"

NO_TEXT = ""
"""The missing text: astropy, FITS and VOTable have no null for text, and astropy would read it as the word None."""


@dataclass(frozen=True, slots=True)
class Column:
    """The definition of a catalog column.

    Attributes
    ----------
    name : str
        The column's name in the catalog.
    dtype : str
        A numpy dtype such as ``int32`` or ``float32``, or ``string``.
    unit : str
        Unit in the VOUnits syntax, "" for none.
    description : str
        One line for users of the catalog. It explains the missing value where one can occur.
    ucd : str
        Unified Content Descriptor (UCD1+), "" for none.
    missing : float or str
        The value that marks a missing one in the program's arrays. Files hold null in place of NaN, and all other values
        as they are.
    flags : type of CatalogFlag, or None
        The meaning of the bits, if this is a column of flags.
    length : int
        Number of values in each row of a column of vectors; 0 for a column of single values. A missing vector is one of missing
        values: astropy cannot read a list that is null itself.
    grid : (float, float), or None
        Ends of the equal bins that the values of a vector belong to; None: they belong to none.
    """

    name: str
    dtype: str
    unit: str
    description: str
    ucd: str = ""
    missing: float | str = math.nan
    flags: type[CatalogFlag] | None = None
    length: int = 0
    grid: tuple[float, float] | None = None

    @property
    def arrow_type(self) -> pa.DataType:
        """The column's pyarrow type."""
        if self.dtype == "string":
            return pa.string()
        of_values = pa.from_numpy_dtype(np.dtype(self.dtype))
        return pa.list_(of_values, self.length) if self.length else of_values

    def empty(self, n_objects: int) -> npt.NDArray[Any]:
        """Return missing values in the column's dtype, (object,) or, of vectors, (object, value); in dtype object if the column holds text.

        Integers have no NaN: a column of integers must state the number that marks a missing value.
        """
        dtype = np.dtype(object) if self.dtype == "string" else np.dtype(self.dtype)
        return np.full((n_objects, self.length) if self.length else n_objects, self.missing, dtype)

    def as_arrow(self, values: npt.NDArray[Any]) -> pa.Array:
        """Return values (object,), or (object, value) of vectors, as an Arrow array of the column's type."""
        if not self.length:
            return pa.array(values, type=self.arrow_type)
        flat = pa.array(np.ascontiguousarray(values).reshape(-1), type=self.arrow_type.value_type)
        return pa.FixedSizeListArray.from_arrays(flat, type=self.arrow_type)

    def as_numpy(self, column: pa.ChunkedArray) -> npt.NDArray[Any]:
        """Return an Arrow column of this type as values (object,), or (object, value) of vectors; nulls of floats are NaN."""
        if not self.length:
            return column.to_numpy()
        flat: npt.NDArray[Any] = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(len(column), self.length).astype(self.dtype, copy=False)


HEALPIX = Column(
    "_healpix_29", "int64", "", "HEALPix index, order 29, NESTED, ICRS; rows are sorted by it", "pos.healpix"
)
ID = Column("object_id", "int64", "", "id of the object, as in the object list", "meta.id;meta.main")
RA = Column("ra_deg", "float64", "deg", "right ascension, ICRS, as in the object list", "pos.eq.ra;meta.main")
DEC = Column("dec_deg", "float64", "deg", "declination, ICRS, as in the object list", "pos.eq.dec;meta.main")
SEPARATION = Column("separation_arcsec", "float64", "arcsec", "distance from the center", "pos.angDistance")
OWN_COLUMNS = (HEALPIX, ID, RA, DEC)
"""The first columns of every leaf (Parquet file of the catalog); `object_id` is int64 or string, as in the object list."""

PIXEL_FLAGS = Column(
    "flags",
    "int32",
    "",
    "what the pixels and the object list say",
    "meta.code.qual",
    missing=0,
    flags=PixelFlag,
)
"""The first result column: columns copied from the object list come before it, columns of the models after it."""

RESERVED_COLUMNS = (*(column.name for column in OWN_COLUMNS), PIXEL_FLAGS.name, *PATH_COLUMNS)
"""Names of the catalog's own columns (and of HATS' path columns): columns of an object list cannot keep them."""
