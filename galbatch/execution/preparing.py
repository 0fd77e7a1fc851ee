"""Preparation of a run: its inputs (object list, tile headers, bundles) are read, engines chosen and partitions planned."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from galbatch import catalog, cluster, ingest, models
from galbatch.config import ExtinctionConfig, RegionConfig, RunConfig
from galbatch.core.columns import PIXEL_FLAGS, Column, photometry_columns, provenance_columns
from galbatch.core.types import Tile
from galbatch.errors import BundleError, ConfigError
from galbatch.execution import bundles, growth
from galbatch.execution.networks import model_columns
from galbatch.execution.outputs import is_untouched, tile_index_of
from galbatch.objects import (
    EBV,
    Feeding,
    InputColumns,
    Region,
    SkyMaps,
    box_around,
    kept_names,
    open_objects,
    region_of,
    with_sky_maps,
)
from galbatch.planning import ModelPlan, Plan, make_plan

__all__ = ["feeding_of_run", "prepare", "region_of_run", "tiles_of_run"]

MOST_TRACTS = 20
"""Tracts that a message lists; a survey has hundreds."""


def prepare(config: RunConfig, workers: cluster.Workers | None = None, *, loads: bool = True) -> Plan:
    """Return the plan of a run, made from its inputs: object list, tile headers and bundles.

    Parameters
    ----------
    config : RunConfig
    workers : Workers or None
        Workers that read the headers if there are many tiles. None reads them in this process.
    loads : bool
        Whether the networks are loaded and checked, and their engines chosen. Otherwise only what the bundles say is read, without
        torch, and the plan may have no engines yet (`Plan.has_engines`); `bundles.EngineChoice` completes it.

    Returns
    -------
    Plan

    Raises
    ------
    UsageError
        An input is missing or wrong; the message says which one and what to do.
    """
    base = growth.base_of(config)
    # Bundles first: they are few, and a wrong one is reported before headers are read for hours.
    networks, engines = bundles.networks_of_run(config, loads=loads)
    plans = [
        ModelPlan.of(
            model,
            bundles.paths_of(model.bundle),
            network,
            engine=engine,
            stopping=models.stopping_digests(network, config.posterior),
        )
        for model, network, engine in zip(config.networks, networks, engines, strict=True)
    ]
    a_b = config.extinction.a_b if config.extinction is not None else {}
    of_models = model_columns(plans, networks, quantiles=config.posterior.quantiles, a_b=a_b)
    _require_own_names(config, of_models)
    fed = bundles.fed_columns(config.networks, [network.metadata.input for network in networks])
    # A wrong list is reported before headers are read for hours, except where a region of tracts needs the tiles first.
    read_tiles = functools.cache(lambda: _read_tiles(config, workers))
    region = _region(config.objects.region, read_tiles)
    maps = SkyMaps.open(config.extinction, config.masks)
    of_list = _without_maps(fed, config.extinction)
    objects = with_sky_maps(
        open_objects(config.objects, inputs=of_list, region=region),
        maps,
        feeds_ebv=EBV in {*fed} - {*of_list},
    )
    # What is most often wrong has been looked at: the workers start while headers are read. Where there are outputs, they
    # start only when it is known that these are not of another run, which is refused.
    if workers is not None and is_untouched(config):
        workers.begin()
    takes_pixels = config.cutouts.stated_grids or any(plan.grid is not None for plan in plans)
    plan = make_plan(config, objects, read_tiles() if takes_pixels else [], plans)
    plan = replace(plan, base=base, a_b=a_b)
    return replace(plan, notes=(*plan.notes, *growth.base_notes(plan)))


def _require_own_names(config: RunConfig, of_models: Sequence[Column]) -> None:
    """Refuse kept columns with the name of a result, which would otherwise be refused when the first leaf is written, after hours of cutting."""
    kept = pa.schema([(name, pa.null()) for name in kept_names(config.objects)])
    columns: list[Column] = [PIXEL_FLAGS, *(provenance_columns(config.bands) if config.bands else ())]
    if config.photometry.enabled:
        columns += photometry_columns(config.bands)
    catalog.leaf_schema([*columns, *of_models], id_type=pa.int64(), kept=kept)


def region_of_run(config: RunConfig) -> Region | None:
    """Return the region that ``[objects] region`` names; None if it names none.

    Raises
    ------
    UsageError
        No MOC can be read, or no tile is of one of the tracts.
    """
    return _region(config.objects.region, lambda: _read_tiles(config, None))


def feeding_of_run(config: RunConfig) -> Feeding:
    """Return what a run takes from its object list beside ``[objects]``; no network is loaded.

    Raises
    ------
    BundleError
        A bundle does not exist, or is none.
    ConfigError
        A bundle does not take as many auxiliary inputs as are named.
    """
    inputs: list[models.InputInfo] = []
    for model in config.networks:
        path = bundles.paths_of(model.bundle)[0]
        try:
            metadata, _ = models.read_bundle_metadata(path)
        except BundleError as error:
            raise BundleError(f"run.toml: [[models]] {model.name}: {error}") from None
        inputs.append(metadata.input)
    wheres = {model.name: model.where for model in config.networks}
    fed = bundles.fed_columns(config.networks, inputs)
    return Feeding(_without_maps(fed, config.extinction), wheres, config.flags)


def _without_maps(fed: InputColumns, extinction: ExtinctionConfig | None) -> dict[str, int | None]:
    """Return the auxiliary inputs without the one that a map gives, not the object list."""
    return {name: length for name, length in fed.items() if extinction is None or name != EBV}


def _region(stated: RegionConfig | None, read_tiles: Callable[[], Sequence[Tile]]) -> Region | None:
    if stated is None or stated.tracts is None:
        return region_of(stated)
    return _region_of_tracts(read_tiles(), stated.tracts)


def _region_of_tracts(tiles: Sequence[Tile], tracts: Sequence[str]) -> Region:
    """Return the part of the sky on tiles whose id is one of `tracts`, or begins with one and a slash."""
    by_tract: dict[str, list[Tile]] = {tract: [] for tract in tracts}
    for tile in tiles:
        for name in {tile.tile_id, tile.tile_id.partition("/")[0]} & by_tract.keys():
            by_tract[name].append(tile)
    if missing := [tract for tract, found in by_tract.items() if not found]:
        there = sorted({tile.tile_id.partition("/")[0] for tile in tiles})
        more = f" and {len(there) - MOST_TRACTS} more" if len(there) > MOST_TRACTS else ""
        raise ConfigError(
            f"run.toml: [objects] region: tracts: no tile is of {', '.join(missing)}; there are tiles of "
            f"{', '.join(there[:MOST_TRACTS])}{more}"
        )
    found = [tile for of_tract in by_tract.values() for tile in of_tract]
    footprint = ingest.Footprint(found)
    ra, dec = np.array([tile.corners_deg for tile in found], np.float64).reshape(-1, 2).T
    # The sides of a tile bend beyond its corners by less than its diagonal.
    diagonal_deg = max(math.hypot(*tile.shape_px) * tile.pixel_scale_arcsec / 3600.0 for tile in found)
    return Region(
        lambda ra, dec: footprint.covering(ra, dec) >= 0, box_around(ra, dec, margin_deg=diagonal_deg)
    )


def tiles_of_run(config: RunConfig) -> list[Tile]:
    """Return all tiles of a run's surveys, in any band, read in this process or from the store's index."""
    return _read_tiles(config, None)


def _read_tiles(config: RunConfig, workers: cluster.Workers | None) -> list[Tile]:
    return ingest.read_surveys(
        config.survey,
        index=tile_index_of(config.cutouts.store),
        map_files=None if workers is None else workers.map,
    )
