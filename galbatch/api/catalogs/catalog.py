"""A catalog in Python: narrowed by place, ids, flags and expressions, then read as a table."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
import pyarrow as pa
from astropy.coordinates import SkyCoord
from astropy.table import QTable

from galbatch import catalog
from galbatch.api.catalogs.conditions import Good, Ids, Where, bits_against, box_of, cone_of, excluded_by
from galbatch.api.catalogs.files import CatalogFiles
from galbatch.api.catalogs.intervals import interval_columns
from galbatch.api.catalogs.objects import CatalogObject
from galbatch.api.catalogs.rows import Rows
from galbatch.api.catalogs.similar import Metric, similar_rows
from galbatch.api.catalogs.tables import as_frame, as_qtable
from galbatch.catalog import RowCondition
from galbatch.config import nearest_hint
from galbatch.core.columns import ID, MODEL_FLAGS, PIXEL_FLAGS, SEPARATION, parse_columns, quantile_columns
from galbatch.core.texts import counted, html_card
from galbatch.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Catalog", "open_catalog"]


def open_catalog(url: str, *, store: str | None = None) -> Catalog:
    """Open a catalog that ``galbatch run`` made, or is making.

    Parameters
    ----------
    url : str
        Folder of the catalog, on a disk or S3.
    store : str or None
        The cutout store that the catalog was made from; None: that which the catalog's properties state.

    Returns
    -------
    Catalog
        All rows. None are read yet.

    Raises
    ------
    CatalogError
        There is no catalog.

    Warns
    -----
    UserWarning
        The catalog is not finished, or lacks partitions that failed.

    Examples
    --------
    >>> import galbatch
    >>> galbatch.open_catalog("catalog")
    <Catalog catalog: 3 objects, model net>
    """
    files = CatalogFiles(str(url).rstrip("/"))
    # Of a folder that is no catalog the user hears now, not at the first table.
    _ = files.schema
    if files.state:
        warnings.warn(f"{files.path}: {files.state}", stacklevel=2)
    return Catalog(Rows(files), store)


@dataclass(frozen=True, repr=False, eq=False)
class Catalog:
    """Rows of a catalog. Methods that narrow it return another Catalog; rows are read by `table`, `to_pandas` and ``len``.

    Only the leaves, row groups and columns are read that are needed. Rows come in the order of the sky (HEALPix); after
    `cone` the nearest come first, after `ids` in the order of the ids.

    Examples
    --------
    >>> import astropy.units as u
    >>> import galbatch
    >>> from astropy.coordinates import SkyCoord
    >>> catalog = galbatch.open_catalog("catalog")
    >>> near = catalog.cone(SkyCoord(150.1, -2.2, unit="deg"), 10 * u.arcsec)
    >>> near.where("net_re_arcsec_q500 > 1").table(["object_id", "net_re_arcsec_q500", "separation_arcsec"])
    <QTable length=2>
        object_id     net_re_arcsec_q500 separation_arcsec
                            arcsec             arcsec
          int64            float32            float64
    ----------------- ------------------ -----------------
    43000000000000017               1.25               0.0
                   -5                3.0 3.597...
    """

    _rows: Rows
    _store: str | None = None
    _narrowed_by: tuple[str, ...] = ()

    # --- what it is ----------------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """Folder of the catalog."""
        return self._files.path

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, in the catalog's order; after `cone` the last is ``separation_arcsec``."""
        return self._rows.columns

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models, as in run.toml."""
        keys = parse_columns(self._files.schema.names).values()
        return tuple(model for model, key in keys if key == MODEL_FLAGS)

    @property
    def quantities(self) -> tuple[str, ...]:
        """Quantities that have quantiles, as ``<model>_<quantity>``."""
        return tuple(f"{model}_{quantity}" for model, quantity in quantile_columns(self._files.schema.names))

    @property
    def is_finished(self) -> bool:
        """Whether the run has finished the catalog and no partition is missing."""
        return not self._files.state

    @property
    def properties(self) -> dict[str, str]:
        """The catalog's properties as text, such as ``galbatch_seed``; empty if it is not finished."""
        return dict(self._files.properties)

    # --- narrowing -----------------------------------------------------------------------------------------

    def cone(self, center: SkyCoord, radius: u.Quantity) -> Catalog:
        """Return the rows within `radius` of a position, the nearest first, with their ``separation_arcsec``.

        Parameters
        ----------
        center : astropy.coordinates.SkyCoord
            One position in any frame that can be transformed to ICRS.
        radius : astropy.units.Quantity
            An angle.

        Raises
        ------
        UsageError
            `center` is not one position, or `radius` is not an angle of 0 or more.

        Examples
        --------
        >>> import astropy.units as u
        >>> import galbatch
        >>> from astropy.coordinates import SkyCoord
        >>> len(galbatch.open_catalog("catalog").cone(SkyCoord("10h00m24s -2d12m00s"), 10 * u.arcsec))
        2
        """
        text = f"within {radius} of {center.to_string('hmsdms', precision=1) if isinstance(center, SkyCoord) else center}"
        return self._narrower(cone_of(center, radius), text)

    def box(self, ra: u.Quantity, dec: u.Quantity) -> Catalog:
        """Return the rows in a box of right ascension and declination (ICRS), with its edges.

        Parameters
        ----------
        ra : astropy.units.Quantity, (2,)
            Lowest and highest right ascension; across 0 h the first is larger: ``(350, 10) * u.deg``.
        dec : astropy.units.Quantity, (2,)
            Lowest and highest declination.

        Raises
        ------
        UsageError
            These are no two angles each, or the lowest declination is above the highest.

        Examples
        --------
        >>> import astropy.units as u
        >>> import galbatch
        >>> len(galbatch.open_catalog("catalog").box(ra=(150, 151) * u.deg, dec=(-2.3, -2.22) * u.deg))
        1
        """
        return self._narrower(box_of(ra, dec), f"ra in {ra}, dec in {dec}")

    def ids(self, object_ids: Iterable[int | str] | int | str) -> Catalog:
        """Return the rows of some ids, in their order.

        Raises
        ------
        UsageError
            An id is not in the catalog; the message names all that are not.

        Examples
        --------
        >>> import galbatch
        >>> galbatch.open_catalog("catalog").ids([-5, 43000000000000019]).to_arrow(["object_id"]).to_pydict()
        {'object_id': [-5, 43000000000000019]}
        """
        given = [object_ids] if isinstance(object_ids, int | str | np.integer) else list(object_ids)
        values = catalog.parse_ids(self.path, self._files.schema.field(ID.name).type, map(str, given))
        return self._narrower(Ids(tuple(values)), counted(len(values), "id"))

    def where(self, expression: str) -> Catalog:
        """Return the rows that an expression is true for, in the language of ``where`` in run.toml.

        Parameters
        ----------
        expression : str
            Comparisons (also chained, and ``in [...]``) of columns, numbers and text, joined by ``and``, ``or``, ``not``, with
            ``+ - * / **``. What is missing makes no comparison true.

        Raises
        ------
        UsageError
            It is no expression, or names a column that the catalog lacks (the message names a similar one).

        Examples
        --------
        >>> import galbatch
        >>> len(galbatch.open_catalog("catalog").where("net_re_arcsec_q500 < 2 and z_best > 0.1"))
        1
        """
        condition = Where(expression)
        catalog.require_columns(self.path, self._files.schema.names, condition.columns)
        return self._narrower(condition, expression)

    def good(self, model: str | None = None) -> Catalog:
        """Return the rows whose values can be used without a second look: the default cut.

        A row is left out if a flag of class *quality* is set in ``flags`` or in the flags of a model, or if no model was run
        on it (NOT_SELECTED in all of them). So is one that the object list says is not primary or a duplicate, and one that lies on the wrong
        side of a mask with ``good``. Flags of class *information*, as MOSAICKED, RESAMPLED or NEIGHBOR, leave nothing
        out. The classes are those that the catalog states for its flags.

        Parameters
        ----------
        model : str or None
            Look at the flags of this model only, and ask for its values; None: all models. Models whose ``where`` left an
            object out do not count against it.

        Raises
        ------
        UsageError
            The catalog has no such model.

        Examples
        --------
        The first of three objects has bad pixels at its center, the second was extrapolated, the third was not selected:

        >>> import galbatch
        >>> len(galbatch.open_catalog("catalog").good())
        0
        """
        schema, models = self._files.schema, self.models
        if model is not None and model not in models:
            raise UsageError(
                f"{self.path}: no model {model}{nearest_hint(model, models)}; there are {', '.join(models) or 'none'}"
            )
        asked = models if model is None else (model,)
        names = [PIXEL_FLAGS.name, *(MODEL_FLAGS.name(one) for one in asked)]
        bits = tuple((name, bits_against(schema.field(name))) for name in names)
        good = Good(bits, excluded_by(schema))
        return self._narrower(good, "good" if model is None else f"good in {model}")

    def _narrower(self, condition: RowCondition, text: str) -> Catalog:
        return replace(self, _rows=self._rows.narrower(condition), _narrowed_by=(*self._narrowed_by, text))

    @property
    def _files(self) -> CatalogFiles:
        return self._rows.files

    # --- reading -------------------------------------------------------------------------------------------

    def to_arrow(self, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """Read the rows as an Arrow table, with unit, description, UCD and bits of flags as field metadata.

        Parameters
        ----------
        columns : sequence of str or None
            Names of the columns, in the order of the result; None: all.
        where : str or None
            Only rows that this expression is true for, see `where`.

        Raises
        ------
        CatalogError
            A column does not exist; the message names a similar one.
        DamagedError
            A leaf is not as it was written.
        UsageError
            An id that was asked for is not in the catalog, or `where` is no expression.
        """
        narrowed = self if where is None else self.where(where)
        return narrowed._rows.read(None if columns is None else _names(columns))

    def table(self, columns: Sequence[str] | None = None, where: str | None = None) -> QTable:
        """Read the rows as an astropy QTable, with units, descriptions, UCDs (``meta["ucd"]``) and masks.

        Columns with a unit are Quantities; those in which a value is missing are masked.

        Parameters
        ----------
        columns : sequence of str or None
            Names of the columns, in the order of the result; None: all.
        where : str or None
            Only rows that this expression is true for, see `where`.

        Raises
        ------
        CatalogError, DamagedError, UsageError
            As `to_arrow`.

        Examples
        --------
        >>> import galbatch
        >>> table = galbatch.open_catalog("catalog").table(["object_id", "net_re_arcsec_q500"], where="flags == 0")
        >>> table["net_re_arcsec_q500"].unit, int(table["net_re_arcsec_q500"].mask.sum())
        (Unit("arcsec"), 1)
        """
        return as_qtable(self.to_arrow(columns, where))

    def to_pandas(self, columns: Sequence[str] | None = None, where: str | None = None) -> pd.DataFrame:
        """Read the rows as a pandas DataFrame: missing floats are NaN; integers with missing values are of pandas' nullable types.

        Parameters
        ----------
        columns : sequence of str or None
            Names of the columns, in the order of the result; None: all.
        where : str or None
            Only rows that this expression is true for, see `where`.

        Raises
        ------
        CatalogError, DamagedError, UsageError
            As `to_arrow`.

        Examples
        --------
        >>> import galbatch
        >>> galbatch.open_catalog("catalog").to_pandas(["object_id", "z_best"], where="z_best > 0.3")
                   object_id  z_best
        0  43000000000000017     0.5
        """
        return as_frame(self.to_arrow(columns, where))

    def interval(self, quantity: str, probability: float = 0.68, model: str | None = None) -> QTable:
        """Read the equal-tailed interval of a quantity, from its quantiles in the catalog.

        Parameters
        ----------
        quantity : str
            Such as ``re_arcsec``, or with its model ``gampen_re_arcsec``.
        probability : float
            Probability of the interval. The default run has 0.68 and 0.95; 0.68 stands for 0.6827 as well.
        model : str or None
            Name of the model if several have the quantity.

        Returns
        -------
        astropy.table.QTable
            Columns ``object_id``, ``lower``, ``median`` and ``upper``, in the quantity's unit, masked where there is no posterior;
            without ``median`` if the catalog has no such quantile.

        Raises
        ------
        UsageError
            There is no such quantity (the message names a similar one), several models have it, or the catalog has no such
            interval.

        Examples
        --------
        >>> import galbatch
        >>> galbatch.open_catalog("catalog").ids(-5).interval("re_arcsec", 0.68)
        <QTable length=1>
        object_id  lower   median  upper
                   arcsec  arcsec  arcsec
          int64   float32 float32 float32
        --------- ------- ------- -------
               -5     2.5     3.0     3.5
        """
        names = interval_columns(self._files.schema.names, quantity, probability, model)
        found = {ID.name: ID.name, names.lower: "lower", names.median: "median", names.upper: "upper"}
        table = self.table([name for name in found if name is not None])
        for old, new in found.items():
            if old is not None and old != new:
                table.rename_column(old, new)
        return table

    def object(self, object_id: int | str) -> CatalogObject:
        """Read one object with all its columns; its cutout and draws are read when they are asked for.

        Raises
        ------
        UsageError
            The catalog has no such id.

        Examples
        --------
        >>> import galbatch
        >>> one = galbatch.open_catalog("catalog").object(43000000000000017)
        >>> [flag.name for flag in one.flags["flags"]], one["z_best"]
        (['BAD_CENTER', 'MOSAICKED'], 0.5)
        """
        row = catalog.read_objects(self.path, [str(object_id)])
        return CatalogObject(self.path, row, self._store)

    def similar(
        self, object_id: int | str, n: int = 20, *, model: str | None = None, metric: Metric = "euclidean"
    ) -> QTable:
        """Return id, position and distance of the rows nearest to an object in a network's embedding, without the object itself.

        Parameters
        ----------
        object_id : int or str
            It need not be one of the rows that this catalog is narrowed to.
        n : int
            Number of rows.
        model : str or None
            Name of the model if several have an embedding.
        metric : {"euclidean", "cosine"}
            Distance of the vectors, or 1 less the cosine of the angle between them.

        Raises
        ------
        UsageError
            No model has an embedding, the object has none, or it is not in the catalog.
        """
        return as_qtable(similar_rows(self._rows, str(object_id), n, model=model, metric=metric))

    def to_lsdb(self, columns: Sequence[str] | None = None) -> Any:
        """Return the rows as an LSDB catalog, which reads them in parallel; needs ``pip install "galbatch[lsdb]"``.

        Parameters
        ----------
        columns : sequence of str or None
            Names of the columns; None: all. LSDB adds those of the position.

        Returns
        -------
        lsdb.catalog.Catalog
            Narrowed as this catalog is; rows come in LSDB's order, and ``separation_arcsec`` is not among the columns.

        Raises
        ------
        UsageError
            LSDB is not installed, or the catalog is not finished.
        """
        from galbatch.api.catalogs.in_lsdb import open_in_lsdb

        names = None if columns is None else [name for name in _names(columns) if name != SEPARATION.name]
        catalog.require_columns(self.path, self._files.schema.names, names or [])
        if not self._files.properties:
            raise UsageError(f"{self.path}: {self._files.state}; LSDB opens finished catalogs only")
        return open_in_lsdb(self.path, self._rows.conditions, names)

    def __len__(self) -> int:
        if self._rows.conditions:
            return int(self.to_arrow([ID.name]).num_rows)
        n_rows = self._files.n_rows
        return self.to_arrow([ID.name]).num_rows if n_rows is None else n_rows

    def __bool__(self) -> bool:
        # Without this, `if catalog:` would read rows to count them.
        return True

    # --- how it is shown -----------------------------------------------------------------------------------

    def __repr__(self) -> str:
        models = self.models
        named = f"{'model' if len(models) == 1 else 'models'} {', '.join(models)}" if models else "no model"
        counted_objects = f"{self._n_objects} objects" if self._files.properties else self._n_objects
        return f"<Catalog {self.path}: {', '.join([counted_objects, named, *self._narrowed_by])}>"

    def _repr_html_(self) -> str:
        rows = [
            ("path", self.path),
            ("objects", self._n_objects),
            ("models", ", ".join(self.models) or "none"),
            ("quantities", ", ".join(self.quantities) or "none"),
            ("columns", str(len(self.columns))),
            *([("narrowed to", "; ".join(self._narrowed_by))] if self._narrowed_by else []),
        ]
        return html_card("galbatch catalog", rows, notes=[self._files.state] if self._files.state else [])

    @property
    def _n_objects(self) -> str:
        """The number of objects, as far as it is known without reading rows."""
        n_rows = self._files.n_rows
        if n_rows is None:
            return "not finished"
        return f"narrowed from {n_rows}" if self._narrowed_by else str(n_rows)


def _names(columns: Sequence[str]) -> list[str]:
    # A single name is a sequence of letters.
    return [columns] if isinstance(columns, str) else list(columns)
