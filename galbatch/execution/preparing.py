"""Prepare a run: read its inputs (object list, tile headers, bundles), choose engines, and plan."""

from __future__ import annotations

import pyarrow as pa

from galbatch import catalog, cluster, ingest, models
from galbatch.config import ModelConfig, RunConfig
from galbatch.core.columns import PIXEL_FLAGS, Column
from galbatch.errors import BundleError, ConfigError
from galbatch.execution import leaf
from galbatch.execution.outputs import tile_index_of
from galbatch.objects import kept_names, open_objects
from galbatch.planning import ENGINE_OF, ModelPlan, Plan, make_plan

__all__ = ["prepare"]


def prepare(config: RunConfig, workers: cluster.Workers | None = None) -> Plan:
    """Read the inputs (object list, tile headers, bundles) and plan.

    Parameters
    ----------
    workers : where the headers of many tiles are read; None: here

    Raises
    ------
    UsageError
        An input is missing or wrong; the message says which and what to do.
    """
    networks = [_load(config, model) for model in config.models]
    # Kept columns that are named as results are would be refused by the leaves, after all has been cut: refuse them now.
    kept = pa.schema([(name, pa.null()) for name in kept_names(config.objects)])
    columns: list[Column] = [PIXEL_FLAGS]
    for model, network in zip(config.models, networks, strict=True):
        columns += models.result_columns(network.metadata, name=model.name, posterior=config.posterior)
    catalog.leaf_schema(columns, id_type=pa.int64(), kept=kept)
    recorded = _recorded_engines(config.catalog.path)
    plans = [
        ModelPlan.of(model, _paths(model), network, engine=_engine(config, network, recorded.get(model.name)))
        for model, network in zip(config.models, networks, strict=True)
    ]
    fed = dict.fromkeys(name for plan in plans for name in plan.auxiliary_inputs)
    objects = open_objects(config.objects, inputs=tuple(fed))
    tiles = ingest.read_surveys(
        config.survey,
        index=tile_index_of(config.cutouts.store),
        map_files=None if workers is None else workers.map,
    )
    return make_plan(config, objects, tiles, plans)


def _load(config: RunConfig, model: ModelConfig) -> models.Ensemble:
    """Load the bundles of a ``[[models]]``, if they fit each other and the bands and columns that the run has for them."""
    where = f"run.toml: [[models]] {model.name}:"
    try:
        network = models.load_ensemble(_paths(model), calibrated=model.calibrated)
    except BundleError as error:
        raise BundleError(f"{where} {error}") from None
    bands = model.bands or tuple(network.bands)
    if len(bands) != len(network.bands):
        raise ConfigError(
            f"{where} bands names {len(bands)} bands, the bundle takes {len(network.bands)} ({', '.join(network.bands)})"
        )
    missing = [band for band in bands if band not in config.bands]
    if missing:
        raise ConfigError(
            f"{where} needs band {', '.join(missing)}; [survey] bands has {', '.join(config.bands)}: add it there, or name "
            "the bands to feed with [[models]] bands"
        )
    taken = [column.name for column in network.metadata.input.auxiliary_inputs]
    if len(model.auxiliary_inputs or taken) != len(taken):
        raise ConfigError(
            f"{where} auxiliary_inputs names {len(model.auxiliary_inputs)} columns, the bundle takes {len(taken)} "
            f"({', '.join(taken) or 'none'})"
        )
    return network


def _paths(model: ModelConfig) -> tuple[str, ...]:
    return tuple(models.bundle_path(spec) for spec in model.bundle)


def _engine(config: RunConfig, network: models.Ensemble, recorded: str | None) -> str:
    """Return the engine of a network: the one that began the run, where that is as asked for, else the best on the device."""
    wanted = config.posterior
    if recorded is not None:
        began = models.Engine.named(recorded)
        if wanted.engine in ("auto", began.kind) and wanted.precision in ("auto", began.precision):
            return began.name
    device = cluster.kind_of(config.cluster).device
    return models.choose_engine(network, kind=wanted.engine, precision=wanted.precision, device=device).name


def _recorded_engines(catalog_path: str) -> dict[str, str]:
    """Return the engines, by network, in the fingerprint of a leaf that exists; empty without leaves."""
    leaves = catalog.list_leaves(catalog_path)
    if not leaves:
        return {}
    footer = catalog.read_footer(catalog_path, min(leaves))
    parts = (leaf.footer_fingerprint(footer) or {}).get("parts", {})
    return {key.removeprefix(ENGINE_OF): name for key, name in parts.items() if key.startswith(ENGINE_OF)}
