"""Sources of objects with known values: tables of labels with a cutout store or with columns alone, or the simulation."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from galbatch import models, simulation
from galbatch.errors import UsageError
from galbatch.learning.further_columns import FurtherColumns
from galbatch.learning.labeled import LabeledImages, open_columns, open_labeled
from galbatch.learning.labels import LabelSources

__all__ = ["DataSource", "grid_settings", "input_settings", "open_source", "simulate_labeled"]

# A process takes seconds to start and draws tens of galaxies a second: for fewer galaxies one process is faster.
WORTH_PROCESSES = 2000


NO_COLUMNS = FurtherColumns()


@dataclass(frozen=True)
class DataSource:
    """A source of objects with known values: tables of labels, with a store for networks that take pixels, or the simulation.

    Attributes
    ----------
    store : path of the cutout store; None: simulate, or columns alone
    labels : paths of tables of true values
    id_column : name of the tables' column of ids
    objects : number of galaxies to simulate; None: the recipe's
    population : name of the population to simulate; None: the recipe's
    further : further columns of the table of labels, for the results of a calibration
    spoiled : whether part of the simulated images are spoiled, as real ones are and no label tells
    """

    store: str | None = None
    labels: tuple[str, ...] = ()
    id_column: str = "object_id"
    objects: int | None = None
    population: str | None = None
    further: FurtherColumns = NO_COLUMNS
    weights: tuple[float, ...] = ()
    columns: str | None = None
    spoiled: bool = False

    @property
    def is_simulated(self) -> bool:
        """Whether the objects are simulated."""
        return self.store is None and not self.labels

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that have the objects' further columns: the first of the labels, and that of the auxiliary inputs."""
        return (*self.labels[:1], *(() if self.columns is None else (self.columns,)))

    @property
    def label_sources(self) -> LabelSources:
        """The tables of labels, with their weights and the table of auxiliary inputs."""
        return LabelSources(self.labels, self.id_column, self.weights, self.columns)

    def check(self, *, takes_pixels: bool) -> None:
        """Raise an error if store and labels do not fit each other, or the network.

        Raises
        ------
        UsageError
            One of them is missing, or a store is given for a network that takes no pixels.
        """
        if not takes_pixels and self.store is not None:
            raise UsageError(
                "--store: a network that takes columns alone reads no cutouts; take it out: --labels and --columns have its input"
            )
        if takes_pixels and (self.store is None) != (not self.labels):
            raise UsageError(
                "--store and --labels go together: cutouts, and a table with their true parameters"
            )
        if not takes_pixels and not self.labels:
            raise UsageError(
                "--labels: missing; an mlp is trained on a table with ids, true values and columns"
            )
        if self.columns is not None and not self.labels:
            raise UsageError("--columns: the auxiliary inputs of objects with labels; give --labels, too")
        if self.weights and not self.labels:
            raise UsageError("--weights: are of tables of labels; give --labels, too")
        self.label_sources.check()

    def adapt_recipe(self, recipe: models.Recipe) -> models.Recipe:
        """Return the recipe with the number of galaxies and the population of this source, if these are given."""
        changes: dict[str, Any] = {"spoiled": self.spoiled}
        if self.objects is not None:
            changes["n_objects"] = self.objects
        if self.population is not None:
            # The bundle's metadata describe the galaxies: a known population has a text of its own.
            training_data = models.TRAINING_DATA.get(self.population, "")
            changes["population"] = self.population
            changes["settings"] = dataclasses.replace(recipe.settings, training_data=training_data)
        return dataclasses.replace(recipe, **changes)


def input_settings(metadata: models.BundleMetadata) -> models.TrainingSettings:
    """Return settings that say which data fit a bundle: its input and its parameters.

    Raises
    ------
    UsageError
        It takes cutouts on several grids, of which a store or the simulation would be read for the first alone.
    """
    if metadata.input.more_grids:
        raise UsageError(
            f"{metadata.name}: takes cutouts on several grids, which calibrations of stopping alone and comparisons cannot read yet"
        )
    return grid_settings(metadata)[0]


def grid_settings(metadata: models.BundleMetadata) -> list[models.TrainingSettings]:
    """Return for each grid of a bundle the settings that say which data fit it; one for columns alone."""
    settings = models.TrainingSettings(
        name=metadata.name,
        # Any architecture will do: data are chosen by the input and the parameters of the network alone.
        architecture="gampen" if metadata.input.takes_pixels else "mlp",
        bands=metadata.input.bands,
        parameters=metadata.parameters,
        size_px=metadata.input.size_px,
        pixel_scale_arcsec=metadata.input.pixel_scale_arcsec,
        auxiliary_inputs=metadata.input.auxiliary_inputs,
    )
    further = [
        dataclasses.replace(
            settings, bands=one.bands, size_px=one.size_px, pixel_scale_arcsec=one.pixel_scale_arcsec
        )
        for one in metadata.input.more_grids
    ]
    return [settings, *further]


def open_source(
    source: DataSource,
    recipe: models.Recipe | None,
    settings: models.TrainingSettings,
    *,
    notify: Callable[[str], None],
) -> LabeledImages:
    """Return the images of a source.

    Parameters
    ----------
    source : DataSource
    recipe : Recipe or None
        Number, population and seed of simulated galaxies; not used if the source has labels.
    settings : TrainingSettings
        Its grid, bands, parameters and auxiliary inputs say what is read or simulated.
    notify : callable
        Takes human-readable lines about the images.

    Returns
    -------
    LabeledImages
    """
    if source.is_simulated and recipe is not None:
        return simulate_labeled(recipe, settings, notify=notify)
    if source.store is None:
        data = open_columns(source.label_sources, settings=settings)
    else:
        data = open_labeled(source.store, source.label_sources, settings=settings)
    for note in data.notes:
        notify(note)
    return data


def simulate_labeled(
    recipe: models.Recipe, settings: models.TrainingSettings, *, notify: Callable[[str], None] | None = None
) -> LabeledImages:
    """Return simulated galaxies with the bands and parameters of the settings.

    Parameters
    ----------
    recipe : Recipe
        Number, population and seed of the galaxies.
    settings : TrainingSettings
        Bands, grid and parameters.
    notify : callable or None
        Takes a human-readable line before the galaxies are simulated.

    Returns
    -------
    LabeledImages

    Raises
    ------
    UsageError
        The simulation lacks a band, parameter, auxiliary input or pixel scale of the settings.
    """
    if notify is not None:
        spoiled = ", part of them spoiled" if recipe.spoiled else ""
        notify(f"simulating {recipe.n_objects} galaxies of population {recipe.population}{spoiled}")
    _require_simulated(settings)
    drawn = simulation.training_set(
        recipe.n_objects,
        bands=settings.bands,
        size_px=settings.size_px or recipe.size_px,
        population=recipe.population,
        seed=recipe.seed,
        spoiled=recipe.spoiled,
        # The cores that this process may use, which in a container or batch job are fewer than the machine's.
        processes=len(os.sched_getaffinity(0)) if recipe.n_objects >= WORTH_PROCESSES else None,
    )
    labels = [drawn.truth.column(parameter.name).to_numpy() for parameter in settings.parameters]
    origin = {"simulated": recipe.n_objects, "population": recipe.population, "simulation_seed": recipe.seed}
    if recipe.spoiled:
        origin["augmented"] = True
    return LabeledImages(
        drawn.images,
        np.stack(labels, axis=1).astype(np.float64),  # (object, parameter)
        models.Extras(psf_fwhm_arcsec=drawn.psf_fwhm_arcsec),
        origin,
        strata={"size_arcsec": np.asarray(drawn.truth["re_arcsec"].to_numpy(), dtype=np.float64)},
    )


def _require_simulated(settings: models.TrainingSettings) -> None:
    """Raise an error if the simulation lacks something that the settings ask for, before galaxies are simulated for an hour."""
    # One galaxy is drawn for the names of its true values.
    known = simulation.draw_population(1, bands=settings.bands, seed=1).column_names
    unknown = [p.name for p in settings.parameters if p.name not in known]
    if unknown:
        raise UsageError(
            f"parameters: {', '.join(unknown)}: not in the simulation, which has {', '.join(known)}"
        )
    if settings.auxiliary_inputs:
        names = ", ".join(column.name for column in settings.auxiliary_inputs)
        raise UsageError(
            f"auxiliary_inputs: {names}: the simulation has none; give --store and --labels, or leave them out"
        )
    if settings.pixel_scale_arcsec != simulation.PIXEL_SCALE_ARCSEC:
        raise UsageError(
            f"pixel_scale_arcsec: is {settings.pixel_scale_arcsec:g}, and simulated stamps have "
            f"{simulation.PIXEL_SCALE_ARCSEC:g}; for other pixels run galbatch simulate in the survey's layout and give --store and --labels"
        )
