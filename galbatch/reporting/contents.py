"""A catalog as the report sees it: models, their parameters, quantiles, flags."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galbatch import catalog
from galbatch.core.columns import (
    DEC,
    ID,
    MODEL_FLAGS,
    PASSES,
    PIXEL_FLAGS,
    RA,
    parse_columns,
    quantile_columns,
)
from galbatch.core.flags import PixelFlag

__all__ = ["Contents", "Quantity", "read_contents"]

Floats = npt.NDArray[np.float64]

TITLES = {
    "bt": "bulge-to-total ratio",
    "re_arcsec": "half-light radius",
    "flux_njy": "flux",
    "mag": "magnitude",
    "color_gr_mag": "color g − r",
    "mag_g": "magnitude g",
    "mag_r": "magnitude r",
}

SHORT_TITLES = {
    "bt": "B/T",
    "re_arcsec": "radius",
    "color_gr_mag": "g − r",
    "mag_g": "mag g",
    "mag_r": "mag r",
}

# Pixels that do not show the object as it is; completed from neighbors or resampled is not among them.
SPOILING_FLAGS = (
    PixelFlag.OUTSIDE_FOOTPRINT
    | PixelFlag.PARTIAL_COVERAGE
    | PixelFlag.MISSING_BAND
    | PixelFlag.BAD_CENTER
    | PixelFlag.SATURATED
    | PixelFlag.BRIGHT_OBJECT
)


@dataclass(frozen=True, slots=True)
class Quantity:
    """One parameter of one model.

    Attributes
    ----------
    model, parameter, unit : as in the catalog's columns
    levels : the quantiles' levels, rising
    quantiles : (object, level) float64; NaN where there is no posterior
    """

    model: str
    parameter: str
    unit: str
    levels: tuple[float, ...]
    quantiles: Floats

    @property
    def title(self) -> str:
        """The quantity's name in plain words."""
        return TITLES.get(self.parameter, self.parameter.replace("_", " "))

    @property
    def short_title(self) -> str:
        """A shorter name for narrow places."""
        return SHORT_TITLES.get(self.parameter, self.title)

    @property
    def label(self) -> str:
        """The title with the unit, for an axis."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def median(self) -> Floats:
        """(object,) float64; NaN where there is no posterior."""
        return self.quantile(0.5)

    def quantile(self, level: float) -> Floats:
        """Return the quantile (object,) at the level of the catalog nearest to `level`."""
        return self.quantiles[:, np.abs(np.array(self.levels) - level).argmin()]

    def interval(self, share: float) -> tuple[Floats, Floats] | None:
        """Return the ends (object,) of the equal-tailed interval that holds `share`; None if the catalog lacks it."""
        low, high = (1 - share) / 2, (1 + share) / 2
        if all(np.abs(np.array(self.levels) - level).min() < 0.005 for level in (low, high)):
            return self.quantile(low), self.quantile(high)
        return None


@dataclass(frozen=True, slots=True)
class Contents:
    """The part of a catalog that the report shows; arrays (object,)."""

    path: str
    properties: Mapping[str, str]
    object_id: list[object]
    ra_deg: Floats
    dec_deg: Floats
    flags: npt.NDArray[np.int32]
    model_flags: Mapping[str, npt.NDArray[np.int32]]
    passes: Mapping[str, npt.NDArray[np.int32]]
    quantities: tuple[Quantity, ...]

    def __len__(self) -> int:
        return len(self.object_id)

    @property
    def clean(self) -> npt.NDArray[np.bool_]:
        """(object,) whether the pixels show the object as it is."""
        return (self.flags & int(SPOILING_FLAGS)) == 0

    def of_model(self, model: str) -> list[Quantity]:
        """Return the model's quantities."""
        return [quantity for quantity in self.quantities if quantity.model == model]


def read_contents(catalog_path: str) -> Contents:
    """Read a catalog.

    Raises
    ------
    CatalogError
        There is no catalog at `catalog_path`.
    """
    table = catalog.read_catalog(catalog_path)
    keys = parse_columns(table.column_names)
    models = [model for model, key in keys.values() if key == MODEL_FLAGS]
    return Contents(
        path=catalog_path,
        properties=catalog.read_properties(catalog_path),
        object_id=table[ID.name].to_pylist(),
        ra_deg=_floats(table, RA.name),
        dec_deg=_floats(table, DEC.name),
        flags=table[PIXEL_FLAGS.name].to_numpy(),
        model_flags={model: table[MODEL_FLAGS.name(model)].to_numpy() for model in models},
        passes={model: table[PASSES.name(model)].to_numpy() for model in models},
        quantities=tuple(_quantities(table)),
    )


def _quantities(table: pa.Table) -> Iterator[Quantity]:
    """Iterate over the quantities, which are whatever has quantiles, in the catalog's order."""
    for (model, quantity), columns in quantile_columns(table.column_names).items():
        quantiles = np.stack([_floats(table, name) for name in columns.values()], axis=1)
        metadata = table.schema.field(next(iter(columns.values()))).metadata or {}
        yield Quantity(model, quantity, metadata.get(b"unit", b"").decode(), tuple(columns), quantiles)


def _floats(table: pa.Table, name: str) -> Floats:
    return np.asarray(table[name].to_numpy(), dtype=np.float64)
