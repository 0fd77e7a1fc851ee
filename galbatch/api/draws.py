"""Joint draws from the posteriors of objects of a catalog, from the pass outputs that were kept with it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.stats import rankdata

from galbatch import catalog, execution, models
from galbatch.catalog import pass_outputs
from galbatch.core.columns import ID, MODEL_FLAGS, quantity_column
from galbatch.core.flags import ModelFlag
from galbatch.core.pixels import HealpixPixel
from galbatch.errors import CatalogError, UsageError

__all__ = ["Drawn", "NoDraws", "Request", "as_table", "correlation", "draw", "plot_paths", "summary_tables"]

Floats = npt.NDArray[np.float64]

UNSAFE = re.compile(r"[^\w.+-]")  # in the name of a file


@dataclass(frozen=True)
class Request:
    """A request for draws.

    Attributes
    ----------
    model : of the catalog; None: all of them
    n_draws : of each object and model, 1 or more
    seed : of the draws; None: that of the run
    """

    n_draws: int = 10_000
    model: str | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Drawn:
    """Joint draws of one object and model.

    Attributes
    ----------
    samples : (draw,) float64 of each quantity, by its name in the catalog's columns without the model's
    units : of each quantity, "" for none
    derived : of each magnitude the flux that it follows from
    n_passes : that the draws are of
    """

    object_id: int | str
    model: str
    samples: Mapping[str, Floats]
    units: Mapping[str, str]
    derived: Mapping[str, str]
    n_passes: int

    @property
    def n_draws(self) -> int:
        """The number of draws."""
        return len(next(iter(self.samples.values())))


@dataclass(frozen=True)
class NoDraws:
    """An object of which a model has no posterior, and why."""

    object_id: int | str
    model: str
    reason: str


def draw(catalog_path: str, object_ids: Sequence[str], request: Request) -> list[Drawn | NoDraws]:
    """Draw from the posteriors of objects, in the order in which they are named, for each the models by name.

    Raises
    ------
    CatalogError
        There is no catalog, or it was made without keeping pass outputs.
    FingerprintError
        Pass outputs are missing, unfinished, damaged or of another run.
    UsageError
        An id or the model is not in the catalog, or fewer than one draw is asked for.
    """
    if request.n_draws < 1:
        raise UsageError(f"-n {request.n_draws}: expected 1 draw or more")
    found = catalog.find_objects(catalog_path, object_ids)
    leaves = {one.pixel: _Leaf.read(catalog_path, one.pixel, request.model) for one in found}
    return [result for one in found for result in leaves[one.pixel].draw(one, request)]


@dataclass(frozen=True)
class _Leaf:
    """The pass outputs of a leaf, by model, and how the outputs of each of its bundles are read."""

    models: tuple[tuple[pass_outputs.PassOutputs, tuple[models.OutputInfo, ...]], ...]

    @classmethod
    def read(cls, catalog_path: str, pixel: HealpixPixel, model: str | None) -> _Leaf:
        footer = catalog.read_footer(catalog_path, pixel) or {}
        names = list(json.loads(footer.get(catalog.BUNDLES_KEY, "{}")))
        if model is not None and model not in names:
            raise UsageError(f"--model {model}: {catalog_path} has {', '.join(names) or 'none'}")
        if not pass_outputs.were_kept(footer):
            raise CatalogError(
                f"{catalog_path}: made without [posterior] keep_pass_outputs = true, so the outputs of the passes, which joint "
                "draws are of, are gone. Passes are reproducible: add that line, choose a new [catalog] path, and run "
                "galbatch run again; cutouts are used again, and the new catalog holds the same posteriors"
            )
        fingerprint = execution.footer_fingerprint(footer)
        wanted = names if model is None else [model]
        opened = [
            pass_outputs.open_pass_outputs(catalog_path, pixel, name, fingerprint=fingerprint)
            for name in wanted
        ]
        return cls(
            tuple(
                (kept, tuple(models.OutputInfo.from_json(one, kept.path) for one in kept.origin.bundles))
                for kept in opened
            )
        )

    def draw(self, found: catalog.FoundObject, request: Request) -> Iterator[Drawn | NoDraws]:
        for kept, infos in self.models:
            outputs, model = kept.outputs(found.object_id), kept.origin.model
            flags = ModelFlag(found.values[MODEL_FLAGS.name(model)])
            if reason := _reason(flags, infos, outputs):
                yield NoDraws(found.object_id, model, reason)
                continue
            seed = kept.origin.seed if request.seed is None else request.seed
            values = models.joint_draws(
                infos, outputs, object_id=found.object_id, seed=seed, n_draws=request.n_draws
            )
            parameters = infos[0].metadata.parameters
            derived = {p.magnitude: p.name for p in parameters if p.magnitude is not None}
            units = {p.name: p.unit for p in parameters} | dict.fromkeys(derived, "mag")
            yield Drawn(found.object_id, model, values, units, derived, len(outputs[0]))


def _reason(
    flags: ModelFlag, infos: Sequence[models.OutputInfo], outputs: Sequence[npt.NDArray[np.float32]]
) -> str:
    """Say why there is nothing to draw from; "" if there is something."""
    named = ", ".join(str(flag.name) for flag in flags)
    if not len(outputs[0]):
        return f"no passes were run: {named}"
    if ModelFlag.MODEL_FAILED in flags:
        return f"the network gave no finite numbers: {named}"
    if not models.has_posterior(infos):
        return f"a network without dropout or widths gives a value, but no posterior: {named}"
    return ""


def as_table(drawn: Sequence[Drawn]) -> pa.Table:
    """Return all draws as a table: object_id, draw, and a column for each model and quantity, called as in the catalog.

    An object's draws of different models stand side by side, and are independent. NaN: the model has no posterior of
    the object.
    """
    columns: dict[str, str] = {}
    for one in drawn:
        columns |= {quantity_column(one.model, name): one.units[name] for name in one.samples}
    parts = []
    for object_id in dict.fromkeys(one.object_id for one in drawn):
        own = [one for one in drawn if one.object_id == object_id]
        n_draws = own[0].n_draws
        arrays: dict[str, Any] = {
            ID.name: pa.array([object_id] * n_draws),
            "draw": np.arange(n_draws),
            **{name: np.full(n_draws, np.nan) for name in columns},
        }
        for one in own:
            arrays |= {quantity_column(one.model, name): values for name, values in one.samples.items()}
        parts.append(pa.table(arrays))
    table = pa.concat_tables(parts)
    fields = [
        field.with_metadata({"unit": columns[field.name]}) if columns.get(field.name) else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))


def summary_tables(drawn: Drawn) -> tuple[models.ResultTable, models.ResultTable]:
    """Return two human-readable tables: each quantity's median, 68 % interval, mean and std; and the rank correlations."""
    of_draws = f"{_counted(drawn.n_draws, 'draw')} of {_counted(drawn.n_passes, 'pass', 'passes')}"
    rows = []
    for name, values in drawn.samples.items():
        numbers = [
            *np.quantile(values, [0.5, 0.15865, 0.84135]).tolist(),
            float(values.mean()),
            float(values.std()),
        ]
        # From 1e5 on five digits would be an exponent.
        shown = [f"{number:.5g}" if abs(number) < 1e5 else f"{number:.0f}" for number in numbers]
        rows.append((quantity_column(drawn.model, name), drawn.units[name], *shown))
    heads = ("column", "unit", "median", "16 %", "84 %", "mean", "std")
    summary = models.ResultTable(f"object {drawn.object_id}, {drawn.model}, {of_draws}", heads, tuple(rows))
    names, found = correlation(drawn)
    lower = tuple(
        (name, *(f"{found[i, j]:+.2f}" if np.isfinite(found[i, j]) else None for j in range(i)))
        for i, name in enumerate(names)
    )[1:]
    padded = tuple((*row, *[None] * (len(names) - len(row))) for row in lower)
    return summary, models.ResultTable("rank correlations", ("", *names[:-1]), padded)


def _counted(number: int, noun: str, nouns: str = "draws") -> str:
    return f"{number:,} {noun if number == 1 else nouns}"


def correlation(drawn: Drawn) -> tuple[list[str], Floats]:
    """Return the parameters' names, and the rank correlations (parameter, parameter) of the draws; NaN where one does not vary.

    Ranks do not change with the transforms of parameters. Magnitudes, which say what their fluxes say, are left out.
    """
    names = [name for name in drawn.samples if name not in drawn.derived]
    ranks = np.stack([rankdata(drawn.samples[name]) for name in names])
    deviations = ranks - ranks.mean(axis=1, keepdims=True)
    covariance = deviations @ deviations.T
    std = np.sqrt(np.diagonal(covariance))
    with np.errstate(invalid="ignore"):
        return names, covariance / np.outer(std, std)


def plot_paths(path: str, drawn: Sequence[Drawn]) -> list[str]:
    """Return the path of each plot: `path`, or with id and model before the suffix if there are several."""
    if len(drawn) == 1:
        return [path]
    stem, _, suffix = path.rpartition(".")
    # Text ids may hold slashes and the like.
    names = [f"{UNSAFE.sub('_', str(one.object_id))}_{one.model}" for one in drawn]
    twice = {name for name in names if names.count(name) > 1}
    return [
        f"{stem}_{name}{f'_{number}' if name in twice else ''}.{suffix}" for number, name in enumerate(names)
    ]
