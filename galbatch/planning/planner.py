"""The planner: it makes the plan of a run from its config, objects, tiles and networks.

Objects are read from their source; nothing else here does I/O.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import combinations

import numpy as np
import numpy.typing as npt

from galbatch.config import RunConfig
from galbatch.core.columns import GRID_STATISTICS
from galbatch.core.fingerprint import Fingerprint, digest
from galbatch.core.pixels import Partition
from galbatch.core.texts import counted
from galbatch.core.types import Tile
from galbatch.errors import ConfigError
from galbatch.ingest import INGEST_VERSION, Footprint, tile_identity
from galbatch.models import INFER_VERSION
from galbatch.objects import ObjectSource, SelectedObjects
from galbatch.photometry import PHOTOMETRY_VERSION
from galbatch.planning.division import Limits, divide_ranked
from galbatch.planning.plan import ModelPlan, PartitionPlan, Plan
from galbatch.planning.projection import GridPlan, Projector, grid_text

__all__ = ["ENGINE_OF", "FLAG_THRESHOLDS", "GRIDS", "make_plan", "with_engines"]

GRIDS = "grids"
"""The part of the fingerprint of cutouts with the grids of the store, and the bands of each."""

FLAG_THRESHOLDS = "flag thresholds"
"""The part of the fingerprint of cutouts with the thresholds of the flags that pixels decide."""

ENGINE_OF = "engine of "
"""Prefix of the parts of a leaf's fingerprint that hold the engine of a network; the network's name follows."""


def make_plan(
    config: RunConfig, source: ObjectSource, tiles: Sequence[Tile], models: Sequence[ModelPlan]
) -> Plan:
    """Return the plan of a run.

    Parameters
    ----------
    config : RunConfig
    source : ObjectSource
        The object list.
    tiles : sequence of Tile
        All tiles of the surveys, in any band.
    models : sequence of ModelPlan
        The networks, in the order of ``[[models]]``.

    Returns
    -------
    Plan

    Raises
    ------
    ConfigError
        No network selects any object.
    """
    planner = _Planner(config, source, tiles, models)
    _require_disjoint_cases(models, planner.n_shared)
    partitions = [planner.plan(partition) for partition in planner.divide()]
    oversize = tuple(part.partition for part in partitions if planner.is_oversize(part))
    return Plan(
        planner.objects,
        planner.tiles,
        planner.models,
        planner.grids,
        tuple(partitions),
        oversize,
        tuple(planner.notes()),
        photometry=config.photometry if planner.measures else None,
        flags=config.flags,
    )


def _grids(models: Sequence[ModelPlan], config: RunConfig) -> list[GridPlan]:
    """Return the distinct grids, each with the bands that ``[cutouts]`` states, then those of its networks in the order of first use."""
    stated = {one.grid: one.bands or config.bands for one in config.cutouts.stated_grids}
    # Cutouts that several networks can share are cut and stored once.
    result = []
    inputs = [(number, *taken) for number, model in enumerate(models) for taken in model.inputs]
    for grid in sorted({*stated, *(of for _, of, _ in inputs)}):
        sharing = tuple(dict.fromkeys(number for number, of, _ in inputs if of == grid))
        taken = [band for _, of, bands in inputs if of == grid for band in bands]
        bands = tuple(dict.fromkeys([*stated.get(grid, ()), *taken]))
        result.append(GridPlan(grid, bands, sharing, grid in stated))
    return result


def _require_disjoint_cases(models: Sequence[ModelPlan], n_shared: npt.NDArray[np.int64]) -> None:
    """Refuse cases of one model that select the same objects; `n_shared` (network, network) counts them."""
    problems = []
    for (i, one), (j, other) in combinations(enumerate(models), 2):
        if one.model == other.model and n_shared[i, j]:
            problems.append(
                f"run.toml: [[models]] {one.model}: {counted(int(n_shared[i, j]), 'object')} in both cases {one.case} ({one.where}) and "
                f"{other.case} ({other.where}); cases fill one set of columns: make their where exclude each other"
            )
    if problems:
        raise ConfigError("\n".join(problems))


class _Planner:
    """Everything that the plans of all partitions have in common, computed once."""

    def __init__(
        self,
        config: RunConfig,
        source: ObjectSource,
        tiles: Sequence[Tile],
        models: Sequence[ModelPlan],
    ) -> None:
        self.config = config
        self.objects = SelectedObjects(source, [model.where for model in models], config.flags)
        grids = _grids(models, config)
        # Tiles in other bands would be opened, and their change would refuse outputs that do not depend on them.
        used = {band for grid in grids for band in grid.bands}
        self.tiles = tuple(tile for tile in tiles if tile.band in used)
        surveys = [[tile for tile in self.tiles if tile.band in survey.run_bands] for survey in config.survey]
        self._footprint = Footprint(self.tiles)
        self._projector = Projector(self.objects, surveys, grids, planes=config.cutouts.planes)
        projector = self._projector
        self.models = tuple(
            dataclasses.replace(
                model,
                n_selected=int(selected),
                n_covered=int(selected if model.grid is None else covered),
                max_missing_share=config.flags.max_missing_share,
                settings=digest({**_posterior_parts(self.config), **_model_parts(model)}),
            )
            for model, selected, covered in zip(
                models, projector.n_selected, projector.n_covered, strict=True
            )
        )
        # All objects as one partition: the cutouts of each grid.
        whole = projector.project(0, len(self.objects))
        self.grids = tuple(
            dataclasses.replace(
                grid,
                n_cutouts=n,
                n_covered=int(covered),
                settings=tuple(self._band_settings[band] for band in grid.bands),
            )
            for grid, n, covered in zip(grids, whole.n_cutouts, projector.n_covered_on, strict=True)
        )
        if not any(whole.n_cutouts) and not projector.n_selected.any():
            wheres = "; ".join(f"[[models]] {model.name}: where = {model.where!r}" for model in self.models)
            raise ConfigError(f"run.toml: no network is for any of the {len(self.objects)} objects: {wheres}")
        # A tile this close to an object may cover a corner of its largest cutout.
        self._radius_deg = max((grid.grid.half_diagonal_deg for grid in grids), default=0.0)
        self._limits = Limits(config.plan.max_objects_per_partition, config.plan.max_bytes_per_partition)
        self._common_ingest, self._common_infer = self._ingest_parts(), self._infer_parts()

    @property
    def n_shared(self) -> npt.NDArray[np.int64]:
        """Number of objects that two networks both select, (network, network)."""
        return self._projector.n_shared

    def divide(self) -> list[Partition]:
        def bytes_of(start: int, stop: int) -> int:
            return self._projector.project(start, stop).total_bytes

        return divide_ranked(self.objects.rank, self._limits, bytes_of)

    def is_oversize(self, part: PartitionPlan) -> bool:
        return (
            part.partition.n_objects > self._limits.max_objects
            or part.projection.total_bytes > self._limits.max_bytes
        )

    def plan(self, partition: Partition) -> PartitionPlan:
        """Return the plan of one partition, whose fingerprints cover everything that its cutouts and its leaf depend on."""
        objects = self.objects.take(partition.start, partition.stop)
        table = objects.table
        near = tuple(self._footprint.near(table, radius_deg=self._radius_deg))
        columns = (table.object_id, table.ra_deg, table.dec_deg, objects.flags)
        needed = [digest(grid.needed(objects.selected)) for grid in self.grids]
        # Cutouts carry the PSF widths of the object list.
        psf = [[band, digest(width)] for band, width in sorted(table.psf_fwhm_arcsec.items())]
        # What is cut from a tile depends on the identity of its files, and on what a table of tiles may say of it.
        cut_from = [tile_identity(self.tiles[index]) for index in near]
        ingest = {
            **self._common_ingest,
            "division": f"{partition.name} of {partition.n_objects} objects",
            "objects": digest([*map(digest, columns), *needed, *psf]),
            # Sorted, as the order of tiles follows from paths, which are no part of a fingerprint.
            "tiles": digest(sorted(cut_from, key=str)),
        }
        measured = {**ingest, **self._photometry_parts} if self._photometry_parts else None
        leaf = {
            **ingest,
            **self._photometry_parts,
            **self._photometry_flags,
            **self._common_infer,
            "kept columns": digest(table.kept),
            "columns fed": digest([[n, digest(v)] for n, v in sorted(table.inputs.items())]),
            "selected objects": digest([digest(selected) for selected in objects.selected]),
        }
        projection = self._projector.project(partition.start, partition.stop)
        return PartitionPlan(
            partition,
            near,
            projection,
            Fingerprint(ingest),
            Fingerprint(leaf),
            None if measured is None else Fingerprint(measured),
        )

    def notes(self) -> Iterator[str]:
        """Yield human-readable lines for the user about objects, selections and training data."""
        if n_outside := self._projector.n_outside:
            yield (
                f"outside every tile: {n_outside} of {len(self.objects)} objects; they stay in the catalog without "
                "values, with the flag OUTSIDE_FOOTPRINT"
            )
        for model in self.models:
            if not model.n_selected:
                yield f"[[models]] {model.name}: where = {model.where!r} selects no object"
            for what in ("release", "background"):
                trained = getattr(model, what)
                bands_of: dict[str, list[str]] = {}
                for tile in self.tiles:
                    found = getattr(tile, what)
                    # What is unknown on either side is not compared.
                    if tile.band in model.bands and found and trained and _kind(found) != _kind(trained):
                        bands_of.setdefault(found, []).append(tile.band)
                for found, bands in sorted(bands_of.items()):
                    in_order = ", ".join(band for band in model.bands if band in bands)
                    yield (
                        f"[[models]] {model.name} was trained on {what} {trained!r}; the tiles in {in_order} are of "
                        f"{found!r}"
                    )

    def _ingest_parts(self) -> dict[str, str]:
        """Return the parts of the fingerprints of cutouts that are the same for all partitions."""
        # Paths of tiles are left out, so that a survey may be moved; whether fluxes are dereddened changes no pixel.
        surveys = [survey.model_dump(exclude={"tiles", "dereddened"}) for survey in self.config.survey]
        flags = self.config.flags
        return {
            "INGEST_VERSION": str(INGEST_VERSION),
            "survey": json.dumps(surveys, sort_keys=True),
            GRIDS: ", ".join(grid_text(g.grid, g.bands) for g in self.grids),
            "planes": " ".join(self.config.cutouts.planes),
            # The default adds nothing, so that it keeps the fingerprints of before there was a choice.
            **(
                {}
                if self.config.cutouts.resampling == "low_pass"
                else {"resampling": self.config.cutouts.resampling}
            ),
            FLAG_THRESHOLDS: json.dumps(
                flags.model_dump(exclude={*flags.of_list, *flags.of_models, *flags.of_photometry}),
                sort_keys=True,
            ),
            "flags of the list": json.dumps(flags.model_dump(include={*flags.of_list}), sort_keys=True),
        }

    def _infer_parts(self) -> dict[str, str]:
        """Return the parts of the fingerprints of leaves, beyond those of cutouts, that are the same for all partitions."""
        infer = {**_posterior_parts(self.config), "models": " ".join(model.name for model in self.models)}
        if self.config.extinction is not None:
            infer["extinction"] = json.dumps(self.config.extinction.a_b, sort_keys=True)
        for model in self.models:
            infer |= _named_parts(model)
        return infer

    @property
    def measures(self) -> bool:
        """Whether there is photometry: it is of cutouts, which a run on columns alone does not have."""
        return self.config.photometry.enabled and bool(self.grids)

    @cached_property
    def _photometry_parts(self) -> dict[str, str]:
        """Return the parts of the fingerprints of photometry beyond those of cutouts; none where there is no photometry."""
        settings = self.config.photometry
        if not self.measures:
            return {}
        return {
            "PHOTOMETRY_VERSION": str(PHOTOMETRY_VERSION),
            "photometry": json.dumps(settings.model_dump(exclude={"enabled"}), sort_keys=True),
        }

    @cached_property
    def _photometry_flags(self) -> dict[str, str]:
        """Return the part of the fingerprints of leaves with the thresholds of the flags that photometry decides."""
        flags = self.config.flags
        thresholds = json.dumps(flags.model_dump(include={*flags.of_photometry}), sort_keys=True)
        return {"flags of photometry": thresholds} if self.measures else {}

    @cached_property
    def _band_settings(self) -> dict[str, str]:
        """Return a digest of the settings that the pixels of a band depend on, by band; those of other bands are left out."""
        of_band = {}
        for survey in self.config.survey:
            common = survey.model_dump(exclude={"tiles", "bands", "dereddened"})
            for band, name in zip(survey.bands, survey.run_bands, strict=True):
                own = {
                    key: value.get(band)
                    if isinstance(value, dict) and set(value) <= set(survey.bands)
                    else value
                    for key, value in common.items()
                }
                of_band[name] = digest([INGEST_VERSION, band, own])
        return of_band


def _posterior_parts(config: RunConfig) -> dict[str, str]:
    """Return the parts of the fingerprints of leaves that are the same for all networks."""
    # With a fixed number of passes these two change no value.
    unused = set() if config.posterior.passes == "adaptive" else {"min_passes", "max_passes"}
    # The engine that was chosen for each network counts (below), not the setting, which may be "auto". Keeping pass
    # outputs changes no value.
    posterior = config.posterior.model_dump(exclude={"engine", "precision", "keep_pass_outputs"} | unused)
    flags = config.flags
    return {
        "INFER_VERSION": str(INFER_VERSION),
        "posterior": json.dumps(posterior, sort_keys=True),
        "flags of networks": json.dumps(flags.model_dump(include={*flags.of_models}), sort_keys=True),
    }


def with_engines(plan: Plan, config: RunConfig, engines: Sequence[str]) -> Plan:
    """Return a plan that was made without engines, with those of its networks, in the order of run.toml.

    Parameters
    ----------
    plan : Plan
    config : RunConfig
        The run that the plan was made for.
    engines : sequence of str
        Names of the engines.
    """
    common, models = _posterior_parts(config), []
    changed: dict[str, str] = {}
    for model, engine in zip(plan.models, engines, strict=True):
        chosen = dataclasses.replace(model, engine=engine)
        models.append(dataclasses.replace(chosen, settings=digest({**common, **_model_parts(chosen)})))
        changed |= _named_parts(chosen)
    partitions = tuple(
        dataclasses.replace(part, leaf=Fingerprint({**part.leaf.parts, **changed}))
        for part in plan.partitions
    )
    return dataclasses.replace(plan, models=tuple(models), partitions=partitions)


def _named_parts(model: ModelPlan) -> dict[str, str]:
    """Return the parts of the fingerprint of a leaf that belong to one network, by name."""
    parts = {f"{what} {model.name}": value for what, value in _model_parts(model).items()}
    # The network's own values do not follow from it, so a new catalog takes them from one without it.
    return parts | ({f"second opinion of {model.name}": model.opinion} if model.opinion else {})


def _model_parts(model: ModelPlan) -> dict[str, str]:
    """Return the parts of the fingerprint of a leaf that belong to one network, without the network's name."""
    parts = {
        "bundle": ", ".join(model.sha256),
        ENGINE_OF.rstrip(): model.engine,
        "bands of": "+".join(model.bands),
        "auxiliary inputs of": "+".join(model.auxiliary_inputs),
        "calibration of": ", ".join("applied" if applied else "not applied" for applied in model.inflated),
    }
    # Those that are shipped beside a bundle are not covered by its hash.
    if model.stopping:
        parts["stopping of"] = ", ".join(model.stopping)
    if model.more_grids:
        parts["grids of"] = " ".join(grid.label for grid, _ in model.inputs)
    # Only where it is asked for, so that other catalogs keep their fingerprints.
    if model.embedding_dtype is not None:
        parts["embedding of"] = model.embedding_dtype
    if model.densities:
        parts["densities of"] = json.dumps([grid.model_dump() for grid in model.densities], sort_keys=True)
        parts["density columns of"] = " ".join(statistic.word for statistic in GRID_STATISTICS)
    return parts


def _kind(text: str) -> str:
    """Return the words before a colon in lower case, so that "global sky: meshes of 8000 px" equals "Global sky"."""
    return text.partition(":")[0].strip().casefold()
