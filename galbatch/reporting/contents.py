"""The columns of a catalog that the report uses: positions, flags, passes and the quantiles of each model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galbatch import catalog
from galbatch.api import central_levels
from galbatch.core.columns import (
    CASE,
    DEC,
    ID,
    MODEL_FLAGS,
    PASSES,
    PIXEL_FLAGS,
    RA,
    ColumnKey,
    Statistic,
    parse_columns,
    quantile_columns,
)
from galbatch.core.flags import PixelFlag
from galbatch.core.ucds import is_redshift

__all__ = ["SPOILING_FLAGS", "Contents", "Features", "Quantity", "quantities_of", "read_contents"]

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

# Flags of pixels that do not show the object as it is. MOSAICKED and RESAMPLED are not among them: they are harmless.
SPOILING_FLAGS = (
    PixelFlag.OUTSIDE_FOOTPRINT
    | PixelFlag.PARTIAL_COVERAGE
    | PixelFlag.MISSING_BAND
    | PixelFlag.BAD_CENTER
    | PixelFlag.SATURATED
    | PixelFlag.BRIGHT_OBJECT
)


SHOWN_STATISTICS = (
    Statistic.QUANTILE,
    Statistic.PASSES,
    Statistic.FLAGS,
    Statistic.CASE,
    Statistic.FEATURE,
    Statistic.ACTIVATION,
)
"""The statistics that the report reads. A catalog may have many more columns, of which a million rows would take gigabytes."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """The quantiles of one parameter of one model.

    Attributes
    ----------
    model, parameter, unit : str
        As in the catalog's columns.
    levels : tuple of float
        Levels of the quantiles, ascending.
    quantiles : (object, level) float64
        NaN where there is no posterior.
    ucd : str
        UCD of the columns; "" if they state none.
    """

    model: str
    parameter: str
    unit: str
    levels: tuple[float, ...]
    quantiles: Floats
    ucd: str = ""

    @property
    def is_redshift(self) -> bool:
        """Whether the quantity is a redshift, by its UCD."""
        return is_redshift(self.ucd, self.unit)

    @property
    def title(self) -> str:
        """The human-readable name of the quantity, such as "half-light radius"."""
        return TITLES.get(self.parameter, self.parameter.replace("_", " "))

    @property
    def short_title(self) -> str:
        """A shorter name, for cards and panels."""
        return SHORT_TITLES.get(self.parameter, self.title)

    @property
    def label(self) -> str:
        """The title with the unit, as label of an axis."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def median_column(self) -> str:
        """The name of the column of the quantile nearest to the median."""
        level = min(self.levels, key=lambda one: abs(one - 0.5))
        return ColumnKey(Statistic.QUANTILE, self.parameter, level=level).name(self.model)

    @property
    def median(self) -> Floats:
        """The posterior median, (object,) float64; NaN where there is no posterior."""
        return self.quantile(0.5)

    def quantile(self, level: float) -> Floats:
        """Return the quantile (object,) at the catalog's level nearest to `level`."""
        return self.quantiles[:, np.abs(np.array(self.levels) - level).argmin()]

    def interval(self, share: float) -> tuple[Floats, Floats] | None:
        """Return both ends (object,) of the equal-tailed interval of probability `share`; None if the catalog has no such quantiles."""
        ends = central_levels(self.levels, share)
        return None if ends is None else (self.quantile(ends[0]), self.quantile(ends[1]))


@dataclass(frozen=True, slots=True)
class Features:
    """The features of a sparse network that fired without dropout.

    Attributes
    ----------
    index : (object, rank) int64
        Number of the feature; -1 where none fired, or the object has no values.
    activation : (object, rank) float64
        Its activation; NaN there.
    """

    index: npt.NDArray[np.int64]
    activation: Floats


@dataclass(frozen=True, slots=True)
class Contents:
    """The part of a catalog that the report shows.

    Attributes
    ----------
    path : str
        Path of the catalog.
    properties : mapping of str
        Properties of the catalog.
    object_id : list of int or str
    ra_deg, dec_deg : (object,) float64, deg
    flags : (object,) int32 of PixelFlag bits
    model_flags : mapping of model to (object,) int32 of ModelFlag bits
    passes : mapping of model to (object,) int32
        Number of passes of each network; 0 if the model was not run.
    quantities : tuple of Quantity
        In the order of the catalog's columns.
    features : mapping of model to Features
        Of sparse networks alone.
    cases : mapping of model to (object,) str
        The case whose network gave the values, "" where none did; models of one network are not there.
    """

    path: str
    properties: Mapping[str, str]
    object_id: list[object]
    ra_deg: Floats
    dec_deg: Floats
    flags: npt.NDArray[np.int32]
    model_flags: Mapping[str, npt.NDArray[np.int32]]
    passes: Mapping[str, npt.NDArray[np.int32]]
    quantities: tuple[Quantity, ...]
    features: Mapping[str, Features] = field(default_factory=dict)
    cases: Mapping[str, npt.NDArray[np.object_]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.object_id)

    @property
    def clean(self) -> npt.NDArray[np.bool_]:
        """Mask (object,), bool: True where no flag says that the pixels do not show the object as it is."""
        return (self.flags & int(SPOILING_FLAGS)) == 0

    def of_model(self, model: str) -> list[Quantity]:
        """Return the quantities of one model."""
        return [quantity for quantity in self.quantities if quantity.model == model]


def read_contents(catalog_path: str) -> Contents:
    """Read the columns and properties of a catalog that the report shows.

    Raises
    ------
    CatalogError
        There is no catalog at `catalog_path`.
    """
    names = catalog.read_schema(catalog_path).names
    keys = parse_columns(names)
    own = {ID.name, RA.name, DEC.name, PIXEL_FLAGS.name}
    own |= {name for name, (_, key) in keys.items() if key.statistic in SHOWN_STATISTICS}
    # In the catalog's order, by which the columns of models are told apart.
    table = catalog.read_catalog(catalog_path, columns=[name for name in names if name in own])
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
        quantities=quantities_of(table),
        features=_features_of(table, keys),
        cases={
            model: table[CASE.name(model)].to_numpy(zero_copy_only=False)
            for model, key in keys.values()
            if key == CASE
        },
    )


def _features_of(table: pa.Table, keys: Mapping[str, tuple[str, ColumnKey]]) -> dict[str, Features]:
    """Return the features of each model that has columns of them, ranks in their order."""
    ranks: dict[str, list[int]] = {}
    for model, key in keys.values():
        if key.statistic is Statistic.FEATURE and key.rank is not None:
            ranks.setdefault(model, []).append(key.rank)

    def column(model: str, statistic: Statistic, rank: int) -> Floats:
        return _floats(table, ColumnKey(statistic, rank=rank).name(model))

    return {
        model: Features(
            index=np.stack([column(model, Statistic.FEATURE, rank) for rank in sorted(own)], axis=1).astype(
                np.int64
            ),
            activation=np.stack([column(model, Statistic.ACTIVATION, rank) for rank in sorted(own)], axis=1),
        )
        for model, own in ranks.items()
    }


def quantities_of(table: pa.Table) -> tuple[Quantity, ...]:
    """Return the quantities of a table of a catalog's rows that has their quantiles, in the order of its columns."""
    quantities = []
    for (model, parameter), columns in quantile_columns(table.column_names).items():
        quantiles = np.stack([_floats(table, name) for name in columns.values()], axis=1)  # (object, level)
        # All quantiles of a parameter have the same unit, so the first one gives it.
        metadata = table.schema.field(next(iter(columns.values()))).metadata or {}
        unit, ucd = (metadata.get(key, b"").decode() for key in (b"unit", b"ucd"))
        quantities.append(Quantity(model, parameter, unit, tuple(columns), quantiles, ucd))
    return tuple(quantities)


def _floats(table: pa.Table, name: str) -> Floats:
    return np.asarray(table[name].to_numpy(), dtype=np.float64)
