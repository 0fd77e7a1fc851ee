"""Columns that maps of the sky give: an object source whose kept columns also say E(B-V) and masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galbatch.config import ExtinctionConfig, MaskConfig
from galbatch.core.columns import EXCLUDE_KEY, excluded_values
from galbatch.core.types import ObjectTable
from galbatch.errors import ConfigError
from galbatch.objects.rows import ListCounts
from galbatch.objects.skymaps.extinction import DustMap, open_dust_map
from galbatch.objects.skymaps.masks import Mask, open_mask
from galbatch.objects.sources import ObjectSource

__all__ = ["EBV", "SkyMaps", "with_sky_maps"]

EBV = "ebv"
"""The column of E(B-V)."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SkyMaps:
    """The maps of a run, opened.

    Attributes
    ----------
    dust : E(B-V) at positions; None without ``[extinction]``
    dust_text : human-readable description of the map and how it is interpolated
    masks : which positions lie inside, by the mask's name
    configs : the sections of the masks
    """

    dust: DustMap | None = None
    dust_text: str = ""
    masks: Mapping[str, Mask] = field(default_factory=dict)
    configs: tuple[MaskConfig, ...] = ()

    @classmethod
    def open(cls, extinction: ExtinctionConfig | None, masks: Sequence[MaskConfig]) -> SkyMaps:
        """Open the maps that run.toml names; raises as `open_dust_map` and `open_mask` do."""
        text = ""
        if extinction is not None:
            files = ", ".join(path.rstrip("/").rpartition("/")[2] for path in extinction.map)
            text = f"E(B-V) of the map {files}, {extinction.interpolation}; null: outside the map"
        return cls(
            None if extinction is None else open_dust_map(extinction),
            text,
            {mask.name: open_mask(mask) for mask in masks},
            tuple(masks),
        )

    def columns(self, ra_deg: Floats, dec_deg: Floats) -> list[tuple[pa.Field, pa.Array]]:
        """Return the columns (position,) with their fields: ``ebv`` float32, null outside the map, and a bool for each mask."""
        found = []
        if self.dust is not None:
            values = pa.array(self.dust(ra_deg, dec_deg).astype(np.float32), from_pandas=True)
            found.append((_field(EBV, pa.float32(), self.dust_text, "mag", "phys.absorption"), values))
        for config in self.configs:
            inside = pa.array(self.masks[config.name](ra_deg, dec_deg))
            text = f"whether the position lies in the mask {config.path.rstrip('/').rpartition('/')[2]}"
            described = _field(config.name, pa.bool_(), text, "", "meta.code")
            if config.good is not None:
                excluded = "false" if config.good == "inside" else "true"
                described = described.with_metadata({**described.metadata, EXCLUDE_KEY: excluded})
            found.append((described, inside))
        return found

    def is_good(self, ra_deg: Floats, dec_deg: Floats) -> npt.NDArray[np.bool_]:
        """Return which positions lie where every mask with `good` wants them, (position,) bool."""
        good = np.ones(len(ra_deg), np.bool_)
        for config in self.configs:
            if config.good is not None:
                good &= self.masks[config.name](ra_deg, dec_deg) == (config.good == "inside")
        return good


def _field(name: str, kind: pa.DataType, text: str, unit: str, ucd: str) -> pa.Field:
    metadata = {"description": text, "unit": unit, "ucd": ucd}
    return pa.field(name, kind, metadata={key: value for key, value in metadata.items() if value})


@dataclass(frozen=True)
class _Mapped:
    """An object source with the columns of maps behind its kept columns, and notes of what the default cut leaves out."""

    source: ObjectSource
    maps: SkyMaps
    feeds_ebv: bool

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        return self.source.ranges

    @property
    def counts(self) -> tuple[int, ...]:
        return self.source.counts

    @property
    def listed(self) -> ListCounts:
        return self.source.listed

    @property
    def rejected(self) -> pa.Table:
        return self.source.rejected

    def read(self, chunk: int) -> ObjectTable:
        objects = self.source.read(chunk)
        kept = _with_excluded(objects.kept)
        inputs = dict(objects.inputs)
        for described, values in self.maps.columns(objects.ra_deg, objects.dec_deg):
            if described.name in kept.column_names:
                raise ConfigError(
                    f"run.toml: [objects] keep has a column {described.name}, and so does a map of the sky; rename it in the object list, or the mask"
                )
            kept = kept.append_column(described, values)
            if described.name == EBV and self.feeds_ebv:
                inputs[EBV] = values.to_numpy(zero_copy_only=False)
        return replace(objects, kept=kept, inputs=inputs)


def _with_excluded(kept: pa.Table) -> pa.Table:
    """Return kept columns, of which those that say that a row is no object of its own say so in their metadata."""
    excluded = excluded_values(kept.column_names)
    fields = [
        one.with_metadata({**(one.metadata or {}), EXCLUDE_KEY: excluded[one.name]})
        if one.name in excluded
        else one
        for one in kept.schema
    ]
    return kept.cast(pa.schema(fields)) if excluded else kept


def with_sky_maps(source: ObjectSource, maps: SkyMaps, *, feeds_ebv: bool = False) -> ObjectSource:
    """Return an object source with the columns of maps behind its kept columns.

    Parameters
    ----------
    source : the object list
    maps : the maps of the run
    feeds_ebv : whether E(B-V) is an auxiliary input of a network as well
    """
    return _Mapped(source, maps, feeds_ebv)
