"""Where the images of a training or calibration come from: a store with a table of labels, or the simulation."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from galbatch import models, simulation
from galbatch.errors import UsageError
from galbatch.learning.labeled import LabeledImages, open_labeled

__all__ = ["DataSource", "open_source", "simulate_labeled"]

# A process takes seconds to start and draws tens of galaxies a second: below this number one process is faster.
WORTH_PROCESSES = 2000


@dataclass(frozen=True)
class DataSource:
    """Where images with known values come from: a store and a table of labels, or the simulation.

    Attributes
    ----------
    store, labels : the cutouts, and the table with the true parameters; None: simulate
    id_column : of the labels
    objects, population : of the simulation; None: the recipe's
    """

    store: str | None = None
    labels: str | None = None
    id_column: str = "object_id"
    objects: int | None = None
    population: str | None = None

    def check(self) -> None:
        """Refuse a store without labels, and labels without a store.

        Raises
        ------
        UsageError
            One of them is missing.
        """
        if (self.store is None) != (self.labels is None):
            raise UsageError(
                "--store and --labels go together: cutouts, and a table with their true parameters"
            )

    def adapt_recipe(self, recipe: models.Recipe) -> models.Recipe:
        """Return the recipe with the number of galaxies and the population of this source, where it names them."""
        changes: dict[str, Any] = {}
        if self.objects is not None:
            changes["n_objects"] = self.objects
        if self.population is not None:
            training_data = models.TRAINING_DATA.get(self.population, "")
            changes["population"] = self.population
            changes["settings"] = dataclasses.replace(recipe.settings, training_data=training_data)
        return dataclasses.replace(recipe, **changes)


@contextlib.contextmanager
def open_source(
    source: DataSource,
    recipe: models.Recipe,
    settings: models.TrainingSettings,
    *,
    output: Path,
    notify: Callable[[str], None],
) -> Iterator[LabeledImages]:
    """Open the images of a source while the context lasts, and say through `notify` what they are.

    Parameters
    ----------
    source : a store with labels, or the simulation
    recipe : how galaxies are simulated; not looked at where there is a store
    settings : which grid, bands, parameters and auxiliary inputs
    output : the bundle to write; cutouts that are too many for the memory are copied to a file next to it
    notify : gets lines of text
    """
    if source.store is None or source.labels is None:
        yield simulate_labeled(recipe, settings, notify=notify)
        return
    with open_labeled(
        source.store,
        source.labels,
        settings=settings,
        id_column=source.id_column,
        scratch=output.with_name(f"{output.name}.pixels"),
    ) as data:
        for note in data.notes:
            notify(note)
        yield data


def simulate_labeled(
    recipe: models.Recipe, settings: models.TrainingSettings, *, notify: Callable[[str], None] | None = None
) -> LabeledImages:
    """Draw galaxies with the bands and parameters of the settings.

    Parameters
    ----------
    recipe : number, population and seed of the galaxies
    settings : bands, grid and parameters
    notify : gets a line of text before the first is drawn

    Raises
    ------
    UsageError
        The simulation does not have what the settings ask for.
    """
    if notify is not None:
        notify(f"simulating {recipe.n_objects} galaxies of population {recipe.population}")
    _require_simulated(settings)
    drawn = simulation.training_set(
        recipe.n_objects,
        bands=settings.bands,
        size_px=settings.size_px or recipe.size_px,
        population=recipe.population,
        seed=recipe.seed,
        processes=len(os.sched_getaffinity(0)) if recipe.n_objects >= WORTH_PROCESSES else None,
    )
    labels = [drawn.truth.column(parameter.name).to_numpy() for parameter in settings.parameters]
    return LabeledImages(
        drawn.images,
        np.stack(labels, axis=1).astype(np.float64),
        models.Extras(psf_fwhm_arcsec=drawn.psf_fwhm_arcsec),
        {"simulated": recipe.n_objects, "population": recipe.population, "simulation_seed": recipe.seed},
        strata={"size_arcsec": np.asarray(drawn.truth["re_arcsec"].to_numpy(), dtype=np.float64)},
    )


def _require_simulated(settings: models.TrainingSettings) -> None:
    """Refuse what the simulation does not have, before galaxies are drawn for an hour."""
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
