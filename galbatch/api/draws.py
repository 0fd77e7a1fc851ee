"""Joint draws from the posteriors of a catalog's objects, made from the pass outputs that were kept with the catalog."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.special import logsumexp
from scipy.stats import rankdata

from galbatch import catalog, execution, models
from galbatch.api.cutouts import safe_name
from galbatch.catalog import pass_outputs
from galbatch.core.columns import ID, MODEL_FLAGS, Column, model_of_network
from galbatch.core.flags import ModelFlag
from galbatch.core.pixels import HealpixPixel
from galbatch.core.texts import alike_but_for_case
from galbatch.errors import CatalogError, UsageError

if TYPE_CHECKING:
    # The kept outputs of a network in a leaf, how they become posteriors, and those of one object, (pass, output) for each bundle.
    _Network = tuple[
        pass_outputs.PassOutputs, tuple[models.OutputInfo, ...], tuple[npt.NDArray[np.float32], ...]
    ]

__all__ = ["Drawn", "NoDraws", "Request", "as_table", "correlation", "draw", "plot_paths", "summary_tables"]

Floats = npt.NDArray[np.float64]

DRAW = "draw"


@dataclass(frozen=True)
class Request:
    """Parameters of a request for draws.

    Attributes
    ----------
    n_draws : int
        Number of draws for each object and model, 1 or more.
    model : str or None
        Name of a model in the catalog; None for all models.
    seed : int or None
        Seed of the draws; None for the seed of the run.
    """

    n_draws: int = 10_000
    model: str | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Drawn:
    """Joint draws from the posterior of one model for one object.

    Attributes
    ----------
    object_id : int or str
    model : str
        The model's name in run.toml.
    samples : mapping of str to (draw,) float64
        Values of each quantity, in its unit. Keys are names such as ``bt``, without the model's name. Element i of all
        arrays belongs to the same draw. NaN for the magnitude of a flux that is not positive.
    columns : mapping of str to Column
        Definition of each quantity's column in a table of draws, by the quantity's name.
    derived : mapping of str to str
        For each magnitude the name of the flux from which it is computed.
    n_passes : int
        Number of passes from whose mixture the draws are taken.
    log_prior : (draw,) float64 or None
        Logarithm of the density, at each draw, of the training labels, under which the posterior is: that of the parameters
        together, in their units, without magnitudes. None if a bundle does not state it.
    """

    object_id: int | str
    model: str
    samples: Mapping[str, Floats]
    columns: Mapping[str, Column]
    derived: Mapping[str, str]
    n_passes: int
    log_prior: Floats | None = None

    @property
    def n_draws(self) -> int:
        """The number of draws."""
        return len(next(iter(self.samples.values())))


@dataclass(frozen=True)
class NoDraws:
    """An object for which a model has no posterior, and a human-readable reason."""

    object_id: int | str
    model: str
    reason: str


def draw(catalog_path: str, object_ids: Sequence[str], request: Request) -> list[Drawn | NoDraws]:
    """Return joint draws from the posteriors of objects.

    Parameters
    ----------
    catalog_path : str
        A catalog that was made with ``[posterior] keep_pass_outputs = true``.
    object_ids : sequence of str
        Ids as text, even if the catalog's ids are integers. Repeated ids count once.
    request : Request

    Returns
    -------
    list of Drawn or NoDraws
        One entry per object and model: objects in the order of `object_ids`, and the models of each object in the order
        of their names.

    Raises
    ------
    CatalogError
        There is no catalog, or its pass outputs were not kept.
    FingerprintError
        Pass outputs are missing, unfinished, damaged, or from another run.
    UsageError
        An id or the model is not in the catalog, or fewer than one draw is requested.
    """
    if request.n_draws < 1:
        raise UsageError(f"-n {request.n_draws}: expected 1 draw or more")
    found = catalog.find_objects(catalog_path, object_ids)
    # Each leaf is opened once, however many of its objects are drawn.
    leaves = {one.pixel: _Leaf.read(catalog_path, one.pixel, request.model) for one in found}
    return [result for one in found for result in leaves[one.pixel].draw(one, request)]


@dataclass(frozen=True)
class _Leaf:
    """The pass outputs of one leaf: for each model, and how the outputs of its bundles become posteriors."""

    models: tuple[tuple[pass_outputs.PassOutputs, tuple[models.OutputInfo, ...]], ...]

    @classmethod
    def read(cls, catalog_path: str, pixel: HealpixPixel, model: str | None) -> _Leaf:
        footer = catalog.read_footer(catalog_path, pixel) or {}
        # The entry is written with sorted keys: names of models, each with the digests of its bundles.
        networks = list(json.loads(footer.get(catalog.BUNDLES_KEY, "{}")))
        names = dict.fromkeys(map(model_of_network, networks))
        if model is not None and model not in names:
            raise UsageError(f"--model {model}: {catalog_path} has {', '.join(names) or 'none'}")
        if not pass_outputs.were_kept(footer):
            raise CatalogError(
                f"{catalog_path}: made without [posterior] keep_pass_outputs = true, so the outputs of the passes, which joint "
                "draws are of, are gone. Passes are reproducible: add that line, choose a new [catalog] path, and run "
                "galbatch run again; cutouts are used again, and the new catalog holds the same posteriors"
            )
        fingerprint = execution.footer_fingerprint(footer)
        wanted = [name for name in networks if model in (None, model_of_network(name))]
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
        for kept, infos, outputs in self._networks_of(found):
            model = model_of_network(kept.origin.model)
            flags = ModelFlag(found.values[MODEL_FLAGS.name(model)])
            if reason := _reason(flags, infos, outputs):
                yield NoDraws(found.object_id, model, reason)
                continue
            # With the seed of the run, each call for this object gives the same draws.
            seed = kept.origin.seed if request.seed is None else request.seed
            values = models.joint_draws(
                infos, outputs, object_id=found.object_id, seed=seed, n_draws=request.n_draws
            )
            parameters = infos[0].metadata.parameters
            # All bundles of a model have the same parameters.
            derived = {p.magnitude: p.name for p in parameters if p.magnitude is not None}
            columns = models.draw_columns(infos[0].metadata, name=model)
            prior = _log_prior(infos, values)
            yield Drawn(found.object_id, model, values, columns, derived, len(outputs[0]), prior)

    def _networks_of(self, found: catalog.FoundObject) -> Iterator[_Network]:
        """Yield a network of each model with the object's outputs: of a model with cases that which was run on it, or any if none was."""
        of_model: dict[str, _Network] = {}
        for kept, infos in self.models:
            name, outputs = model_of_network(kept.origin.model), kept.outputs(found.object_id)
            if name not in of_model or len(outputs[0]):
                of_model[name] = kept, infos, outputs
        yield from of_model.values()


def _log_prior(infos: Sequence[models.OutputInfo], values: Mapping[str, Floats]) -> Floats | None:
    """Return the logarithm of the prior's density at draws; of several bundles that of the mean of their densities."""
    found = [(models.prior_of(info.metadata, info.sha256), info.metadata.parameters) for info in infos]
    if any(prior is None for prior, _ in found):
        return None
    logs = [
        models.log_prior(prior, parameters, values) for prior, parameters in found if prior is not None
    ]  # (bundle, draw)
    return np.asarray(logsumexp(logs, axis=0) - np.log(len(logs)))


def _reason(
    flags: ModelFlag, infos: Sequence[models.OutputInfo], outputs: Sequence[npt.NDArray[np.float32]]
) -> str:
    """Return the reason why an object has no posterior to draw from; "" if it has one."""
    named = ", ".join(str(flag.name) for flag in flags)
    if not len(outputs[0]):
        return f"no passes were run: {named}"
    if ModelFlag.MODEL_FAILED in flags:
        return f"the network gave no finite numbers: {named}"
    if not models.has_posterior(infos):
        return f"a network without dropout or widths gives a value, but no posterior: {named}"
    return ""


def as_table(drawn: Sequence[Drawn]) -> pa.Table:
    """Return draws as one table with a row for each object and draw.

    Parameters
    ----------
    drawn : sequence of Drawn
        Not empty; all with the same number of draws.

    Returns
    -------
    pyarrow.Table
        Columns ``object_id``, ``draw`` (int64, from 0), and ``<model>_<quantity>`` (float64, with unit, description and UCD
        in the field metadata), and ``<model>_log_prior`` of models whose bundles state their prior. Null if the model has no posterior for the object, or where a draw has no magnitude.
        Draws of different models in one row are independent of each other.
    """
    columns = {column.name: column for one in drawn for column in one.columns.values()}
    priors = [models.prior_column(one.model) for one in drawn if one.log_prior is not None]
    columns |= {column.name: column for column in priors}
    parts = []
    for object_id in dict.fromkeys(one.object_id for one in drawn):
        own = [one for one in drawn if one.object_id == object_id]
        n_draws = own[0].n_draws
        values: dict[str, Floats] = {}
        for one in own:
            values |= {one.columns[name].name: samples for name, samples in one.samples.items()}
            if one.log_prior is not None:
                values[models.prior_column(one.model).name] = one.log_prior
        arrays = {ID.name: pa.array([object_id] * n_draws), DRAW: pa.array(np.arange(n_draws))}
        # Every table has all columns, or those of different objects could not be concatenated.
        for name, column in columns.items():
            arrays[name] = pa.array(values.get(name, column.empty(n_draws)), from_pandas=True)
        parts.append(pa.table(arrays))
    table = pa.concat_tables(parts)
    own_fields = [table.schema.field(ID.name).with_metadata(catalog.column_field(ID).metadata)]
    own_fields.append(pa.field(DRAW, pa.int64(), metadata={"description": "number of the draw, from 0"}))
    return table.cast(pa.schema([*own_fields, *map(catalog.column_field, columns.values())]))


def summary_tables(drawn: Drawn) -> tuple[models.ResultTable, models.ResultTable]:
    """Return two human-readable tables: median, 68 % interval, mean and std of each quantity; and rank correlations."""
    counts = f"{_counted(drawn.n_draws, 'draw')} of {_counted(drawn.n_passes, 'pass', 'passes')}"
    rows = []
    for name, values in drawn.samples.items():
        numbers = [
            *np.quantile(values, [0.5, 0.15865, 0.84135]).tolist(),
            float(values.mean()),
            float(values.std()),
        ]
        # The format .5g switches to an exponent from 1e5 on.
        shown = [f"{number:.5g}" if abs(number) < 1e5 else f"{number:.0f}" for number in numbers]
        rows.append((drawn.columns[name].name, drawn.columns[name].unit, *shown))
    heads = ("column", "unit", "median", "16 %", "84 %", "mean", "std")
    summary = models.ResultTable(f"object {drawn.object_id}, {drawn.model}, {counts}", heads, tuple(rows))
    names, found = correlation(drawn)  # found: (parameter, parameter)
    # The matrix is symmetric: only the part below the diagonal is shown. The first row would be empty.
    lower = tuple(
        (name, *(f"{found[i, j]:+.2f}" if np.isfinite(found[i, j]) else None for j in range(i)))
        for i, name in enumerate(names)
    )[1:]
    padded = tuple((*row, *[None] * (len(names) - len(row))) for row in lower)
    return summary, models.ResultTable("rank correlations", ("", *names[:-1]), padded)


def _counted(number: int, noun: str, nouns: str = "draws") -> str:
    return f"{number:,} {noun if number == 1 else nouns}"


def correlation(drawn: Drawn) -> tuple[list[str], Floats]:
    """Return the names of the parameters and the Spearman rank correlations of their draws.

    Ranks are the same before and after the monotonic transforms of parameters. Magnitudes are left out, because they
    carry the same information as their fluxes.

    Returns
    -------
    names : list of str
    correlations : (parameter, parameter) float64
        NaN where a parameter does not vary.
    """
    names = [name for name in drawn.samples if name not in drawn.derived]
    ranks = np.stack([rankdata(drawn.samples[name]) for name in names])  # (parameter, draw)
    deviations = ranks - ranks.mean(axis=1, keepdims=True)
    covariance = (
        deviations @ deviations.T
    )  # (parameter, parameter), not divided by the number of draws, which cancels
    std = np.sqrt(np.diagonal(covariance))
    with np.errstate(invalid="ignore"):
        return names, covariance / np.outer(std, std)


def plot_paths(path: str, drawn: Sequence[Drawn]) -> list[str]:
    """Return the path of the plot for each entry: `path` itself, or with id and model before the suffix if there are several."""
    if len(drawn) == 1:
        return [path]
    stem, _, suffix = path.rpartition(".")
    names = [f"{safe_name(one.object_id)}_{one.model}" for one in drawn]
    # Two ids that differ only in replaced characters would get the same name, and disks of macOS and Windows take names that differ
    # only in case for the same: these get a number as well.
    twice = alike_but_for_case(names)
    return [
        f"{stem}_{name}{f'_{number}' if name in twice else ''}.{suffix}" for number, name in enumerate(names)
    ]
