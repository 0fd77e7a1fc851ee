"""One object of a catalog: its values, flags, cutout and joint draws."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import astropy.units as u
import pyarrow as pa
from astropy.coordinates import SkyCoord
from astropy.nddata import NDDataArray
from astropy.table import QTable

from galbatch import catalog
from galbatch.api.catalogs.intervals import interval_columns
from galbatch.api.catalogs.tables import as_qtable
from galbatch.api.cutouts import Cutout, find_cutouts, store_of
from galbatch.api.lookup import FlagText, ObjectValues, flag_texts, object_values, sexagesimal
from galbatch.api.nddata import as_ccddata
from galbatch.api.pictures import picture_png
from galbatch.core.columns import flag_columns
from galbatch.core.texts import counted, html_card, html_table
from galbatch.errors import UsageError

__all__ = ["CatalogObject"]


class ObjectFlags(dict[str, tuple[FlagText, ...]]):
    """The flags of an object, by the column of flags; a notebook shows them as a card."""

    def _repr_html_(self) -> str:
        return html_card("flags", [row for name, flags in self.items() for row in _flag_rows(name, flags)])


@dataclass(frozen=True, repr=False, eq=False)
class CatalogObject:
    """An object of a catalog, as `Catalog.object` returns it. ``one["z_best"]`` is a value, with its unit if it has one.

    Attributes
    ----------
    catalog_path : str
    row : pyarrow.Table
        Its row, with all columns.
    store : str or None
        The cutout store; None: that which the catalog's properties state.
    """

    catalog_path: str
    row: pa.Table
    store: str | None = None

    @cached_property
    def values(self) -> ObjectValues:
        """Position, flags, kept columns, and each model's medians and intervals as text, as ``galbatch show`` prints them."""
        return object_values(self.row)

    @property
    def id(self) -> int | str:
        """The object's id."""
        return self.values.object_id

    @property
    def position(self) -> SkyCoord:
        """Position in the object list, ICRS."""
        return SkyCoord(self.values.ra_deg, self.values.dec_deg, unit="deg", frame="icrs")

    @property
    def flags(self) -> ObjectFlags:
        """The flags that are set, with their class and text, by the column of flags: ``flags`` and ``<model>_flags``.

        Examples
        --------
        >>> import galbatch
        >>> one = galbatch.open_catalog("catalog").object(-5)
        >>> {column: [flag.name for flag in flags] for column, flags in one.flags.items()}
        {'flags': [], 'net_flags': ['EXTRAPOLATED']}
        """
        schema = self.row.schema
        return ObjectFlags(
            (name, flag_texts(schema.field(name), self.row.column(name)[0].as_py()))
            for name in flag_columns(schema.names)
        )

    def __getitem__(self, column: str) -> Any:
        catalog.require_columns(self.catalog_path, self.row.column_names, [column])
        value = as_qtable(self.row.select([column]))[column][0]
        return value if isinstance(value, u.Quantity) or not hasattr(value, "item") else value.item()

    def interval(self, quantity: str, probability: float = 0.68, model: str | None = None) -> tuple[Any, Any]:
        """Return the lower and upper end of the equal-tailed interval of a quantity, with its unit.

        Parameters and errors are those of `Catalog.interval`.

        Examples
        --------
        >>> import galbatch
        >>> lower, upper = galbatch.open_catalog("catalog").object(-5).interval("re_arcsec", 0.95)
        >>> print(lower, upper)
        2.0 arcsec 4.0 arcsec
        """
        names = interval_columns(self.row.column_names, quantity, probability, model)
        return self[names.lower], self[names.upper]

    def cutout(self, band: str | None = None) -> NDDataArray:
        """Return the object's cutout from the cutout store, in nJy.

        Parameters
        ----------
        band : str or None
            One band, as CCDData (y, x); None: all bands, as NDDataArray (band, y, x); ``list(meta)`` names them.

        Returns
        -------
        astropy.nddata.NDDataArray
            With WCS; ``mask`` is true where a pixel cannot be used (no data, bad, saturated, interpolated, cosmic ray), ``flags`` has all bits
            of `galbatch.core.flags.MaskBit`; ``uncertainty`` is the variance. What the store does not have is None.

        Raises
        ------
        UsageError
            There is no store, it has no cutout of the object (the message says why), or no such band.

        Examples
        --------
        >>> import galbatch
        >>> image = galbatch.open_catalog("catalog").object(43000000000000017).cutout("g")
        >>> image.shape, image.unit, image.wcs.world_axis_physical_types, int(image.mask.sum())
        ((24, 24), Unit("nJy"), ['pos.eq.ra', 'pos.eq.dec'], 1)
        """
        return as_ccddata(self._cutout, band)

    @cached_property
    def _cutout(self) -> Cutout:
        store = self.store or store_of(self.catalog_path)
        return find_cutouts(self.catalog_path, store, [str(self.id)])[0]

    def draws(self, n_draws: int = 10_000, *, model: str | None = None, seed: int | None = None) -> QTable:
        """Return joint draws from the object's posteriors, from the outputs of the passes that the run kept.

        Parameters
        ----------
        n_draws : int
            Number of draws.
        model : str or None
            One model; None: all. Those without a posterior for this object are left out.
        seed : int or None
            None: the run's seed; the same seed gives the same draws.

        Returns
        -------
        astropy.table.QTable
            ``object_id``, ``draw``, and a column ``<model>_<quantity>`` in the quantity's unit. Draws of different models in one row
            are independent.

        Raises
        ------
        CatalogError
            The run kept no pass outputs; the message says how to get them.
        UsageError
            No model has a posterior for the object (the message says why), or the model is not in the catalog.
        """
        # Loaded here, as draws need scipy.stats and a table does not.
        from galbatch.api import draws as drawing

        results = drawing.draw(
            self.catalog_path, [str(self.id)], drawing.Request(n_draws, model=model, seed=seed)
        )
        drawn = [one for one in results if isinstance(one, drawing.Drawn)]
        if not drawn:
            reasons = [f"{one.model}: {one.reason}" for one in results if isinstance(one, drawing.NoDraws)]
            raise UsageError(f"object {self.id}: nothing to draw: {'; '.join(reasons)}")
        return as_qtable(drawing.as_table(drawn))

    # --- how it is shown -----------------------------------------------------------------------------------

    def __repr__(self) -> str:
        raised = [flag.name for flags in self.flags.values() for flag in flags]
        return (
            f"<CatalogObject {self.id} of {self.catalog_path}: {sexagesimal(self.values.ra_deg, self.values.dec_deg)}, "
            f"{', '.join(raised) or 'no flag'}>"
        )

    def _repr_html_(self) -> str:
        values = self.values
        rows = [
            ("position", sexagesimal(values.ra_deg, values.dec_deg)),
            *(
                (name, f"{value:g} {unit}".strip() if isinstance(value, float) else f"{value} {unit}".strip())
                for name, value, unit in values.kept
            ),
            *_flag_rows("flags", values.flags),
        ]
        blocks = []
        for model in values.models:
            error = (
                "" if model.mc_error is None else f", Monte Carlo error {model.mc_error:.2g} posterior std"
            )
            rows.append((model.model, f"{counted(model.n_passes, 'pass', 'passes')}{error}"))
            rows += _flag_rows(f"flags of {model.model}", model.flags)
            if model.quantities.rows:
                heads = (model.model, *model.quantities.columns[1:])
                blocks.append(html_table(heads, model.quantities.rows))
        return html_card(f"object {self.id}", rows, blocks=[*blocks, *self._picture()])

    def _picture(self) -> list[str]:
        """Return the cutout as an HTML picture, in a list; empty if there is none."""
        try:
            png = picture_png(self._cutout)
        except UsageError:
            return []
        return [f'<img alt="cutout" src="data:image/png;base64,{base64.b64encode(png).decode()}">']


def _flag_rows(label: str, flags: tuple[FlagText, ...]) -> list[tuple[str, str]]:
    return [(label, "; ".join(f"{flag.name} ({flag.flag_class}): {flag.text}" for flag in flags) or "none")]
