"""Injecting: galaxies of known truth are added to the cutouts of a run's own coadds, and run as any object."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from galbatch import catalog, cluster, dashboard, execution, simulation, storage
from galbatch.config import ObjectsConfig, RunConfig
from galbatch.core.columns import ID, MODEL_FLAGS, PIXEL_FLAGS, TILE_ID
from galbatch.errors import GalbatchError, UsageError
from galbatch.objects import write_parquet
from galbatch.planning import Plan
from galbatch.reporting.contents import quantities_of
from galbatch.reporting.injection.evidence import Evidence, write_evidence
from galbatch.reporting.injection.placing import (
    NEAREST,
    TRUE,
    bands_of,
    placed_galaxies,
    random_places,
    stated_places,
    true_values,
)
from galbatch.reporting.injection.table import evidence_rows

__all__ = ["InjectionSettings", "inject"]

CATALOG, STORE = "catalog", "cutouts.zarr"
"""Names of the outputs in the folder of an injection."""


@dataclass(frozen=True)
class InjectionSettings:
    """The settings of an injection: the galaxies and their places.

    Attributes
    ----------
    n_galaxies : number of galaxies at random places
    population : the simulation's population that they are drawn from
    seed : seed of places and galaxies
    places : table with ra_deg and dec_deg of the places; None: random ones
    bands : how bright galaxies are in bands of the survey that the simulation does not have
    electrons_per_njy : electrons counted for one nJy, by band, from which photon noise follows; they go before the tiles' GAIN
    """

    n_galaxies: int = 500
    population: str = "survey"
    seed: int = 1
    places: str | None = None
    bands: Mapping[str, simulation.BandLight] = field(default_factory=dict)
    electrons_per_njy: Mapping[str, float] = field(default_factory=dict)


def inject(
    config: RunConfig,
    settings: InjectionSettings,
    *,
    folder: str | os.PathLike[str],
    sink: dashboard.ProgressSink | None = None,
) -> Evidence:
    """Inject galaxies into the cutouts of a run's own coadds, run its networks on them, and write the evidence beside its catalog.

    The light is added to the pixels that are cut for a galaxy, with the PSF's width at its place, before anything is measured in them;
    noise, neighbors, masks and gaps are the survey's own, and photon noise of the galaxies is added where a gain is known. Tiles and the run's outputs are only read, but for the line in the properties of its
    catalog.

    Parameters
    ----------
    config : RunConfig
        The run. Conditions of its networks (`where`) are left out: galaxies have no columns but their truth.
    settings : InjectionSettings
    folder : str or path
        Folder of the injection: its object list, truth, cutouts and catalog. An interrupted injection goes on there.
    sink : ProgressSink or None
        Shows the progress.

    Raises
    ------
    UsageError
        A band is none of the simulation's and nothing is stated of it, the PSF's width is not known, a network takes columns of the
        list, or the folder is that of the run's own catalog.
    GalbatchError
        A partition failed.
    """
    simulation.require_population(settings.population)
    path = os.fspath(folder)
    _require_other_folder(config, path)
    bands = bands_of(config.networks, settings.bands)
    _require_fed(settings.electrons_per_njy, bands)
    places = (
        random_places(config, settings.n_galaxies, seed=settings.seed)
        if settings.places is None
        else stated_places(settings.places)
    )
    listing, truth = placed_galaxies(
        config, places, bands=bands, population=settings.population, seed=settings.seed
    )
    storage.make_folder(path)
    write_parquet(storage.join(path, "galaxies.parquet"), listing)
    write_parquet(storage.join(path, "truth.parquet"), truth)
    changed = _injected_config(config, path)
    light = simulation.InjectedLight(truth, settings.electrons_per_njy)
    plan = replace(execution.prepare(changed), light=light)
    _require_psf(plan, bands)
    with cluster.connect(changed.cluster) as client:
        result = execution.execute(changed, plan, client, sink=sink)
    if not result.complete:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(result.failed.items())[:3])
        raise GalbatchError(f"{len(result.failed)} partitions failed: {reasons}")
    evidence = _evidence(plan, changed.catalog.path, truth, settings)
    write_evidence(config.catalog.path, evidence)
    rows = [{**row.as_dict(), "flags": str(dict(row.flags))} for row in evidence.rows]
    write_parquet(storage.join(path, "evidence.parquet"), pa.Table.from_pylist(rows))
    return evidence


def _require_other_folder(config: RunConfig, folder: str) -> None:
    """Refuse a folder in which cutouts or catalog of the injection would be those of the run."""
    own = {storage.absolute(config.catalog.path): CATALOG, storage.absolute(config.cutouts.store): STORE}
    for path, name in own.items():
        if path.rstrip("/") == storage.absolute(storage.join(folder, name)):
            raise UsageError(f"-o {folder}: holds the run's own {name}; name another folder")


def _injected_config(config: RunConfig, folder: str) -> RunConfig:
    """Return the config of the run of the injected galaxies: other objects and outputs, each network a model without conditions."""
    networks = tuple(
        network.model_copy(update={"name": network.name.replace(".", "_"), "where": None})
        for network in config.networks
    )
    keep = (NEAREST, f"{TRUE}mag", f"{TRUE}re_arcsec")
    changed = config.model_copy(
        update={
            "objects": ObjectsConfig(path=storage.join(folder, "galaxies.parquet"), keep=keep),
            "models": networks,
            # Each galaxy is alone in its cutout: the others of the list are not there.
            "flags": config.flags.model_copy(update={"neighbor_radius_arcsec": 0.0}),
            "cutouts": config.cutouts.model_copy(update={"store": storage.join(folder, STORE), "base": None}),
            "catalog": config.catalog.model_copy(
                update={"path": storage.join(folder, CATALOG), "base": None}
            ),
        }
    )
    if fed := execution.feeding_of_run(changed).inputs:
        raise UsageError(
            f"networks take {', '.join(fed)} of the object list, which injected galaxies do not have"
        )
    return changed


def _require_fed(stated: Iterable[str], bands: Iterable[str]) -> None:
    """Refuse electrons that are stated of bands which no network is fed."""
    if others := [band for band in stated if band not in bands]:
        raise UsageError(
            f"--electrons-per-njy {others[0]}: networks are fed {', '.join(bands)}; leave it out"
        )


def _require_psf(plan: Plan, bands: Iterable[str]) -> None:
    """Refuse bands of which no tile says how wide its PSF is: galaxies could not be drawn as the survey sees them."""
    unknown = [
        band
        for band in bands
        if not any(
            tile.psf is not None or np.isfinite(tile.psf_fwhm_arcsec)
            for tile in plan.tiles
            if tile.band == band
        )
    ]
    if unknown:
        raise UsageError(
            f"the PSF's width in {', '.join(unknown)} is not known: state it by [survey] psf_fwhm_arcsec"
        )


def _evidence(plan: Plan, path: str, truth: pa.Table, settings: InjectionSettings) -> Evidence:
    """Return the table of the galaxies in the catalog at `path`."""
    table = catalog.read_catalog(path)
    order = np.argsort(table.column(ID.name).to_numpy())
    table, truth = table.take(pa.array(order)), truth.sort_by(ID.name)
    names = [PIXEL_FLAGS.name, TILE_ID.name, NEAREST, f"{TRUE}mag", f"{TRUE}re_arcsec"]
    names += [MODEL_FLAGS.name(model.name) for model in plan.models]
    columns = {name: table.column(name).to_numpy(zero_copy_only=False) for name in names}
    band_of: dict[str, str] = {model.name: model.bands[0] for model in plan.models}
    rows = []
    for quantity in quantities_of(table):
        if (values := true_values(truth, quantity.parameter, band_of[quantity.model])) is not None:
            rows += list(evidence_rows(quantity, values, columns))
    fed = dict.fromkeys(band for model in plan.models for band in model.bands)
    without = [band for band in fed if band not in settings.electrons_per_njy and not _have_gain(plan, band)]
    return Evidence(len(truth), settings.population, tuple(rows), tuple(without))


def _have_gain(plan: Plan, band: str) -> bool:
    """Return whether all tiles of a band state how many electrons a nJy is."""
    return all(np.isfinite(tile.electrons_per_njy) for tile in plan.tiles if tile.band == band)
