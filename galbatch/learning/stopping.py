"""The stopping calibration of a bundle, from the cutouts of a store without labels, or from simulated galaxies."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from galbatch import ingest, models, storage
from galbatch.core.pixels import HealpixPixel
from galbatch.core.types import Grid
from galbatch.errors import UsageError
from galbatch.learning.held_out import describe_objects, held_out_objects, refuse_training_seed
from galbatch.learning.labeled import LabeledImages, find_grid
from galbatch.learning.progress import calibration_progress, line_printer
from galbatch.learning.sources import DataSource, input_settings, simulate_labeled

__all__ = [
    "StoppingCalibratedBundle",
    "StoppingTask",
    "calibrate_stopping_only",
    "measure_stopping",
    "prepare_stopping",
]

# Some stored objects have no pixels at their center, and are left out.
SPARE_SHARE = 1.5


@dataclass(frozen=True)
class StoppingTask:
    """A stopping calibration whose arguments were checked, as far as that needs no data.

    Attributes
    ----------
    bundle : bundle to calibrate
    output : path of the bundle to write
    source : where the held-out objects come from
    settings : numbers of objects and passes, and the seed
    """

    bundle: models.Bundle
    output: Path
    source: DataSource
    settings: models.StoppingSettings


@dataclass(frozen=True)
class StoppingCalibratedBundle:
    """A bundle with a stopping calibration that was written.

    Attributes
    ----------
    metadata : metadata of the bundle
    sha256 : sha256 of the file
    card : path of its model card
    """

    metadata: models.BundleMetadata
    sha256: str
    card: Path


def prepare_stopping(
    bundles: Sequence[str], output: Path, *, source: DataSource, settings: models.StoppingSettings
) -> StoppingTask:
    """Return a stopping calibration whose arguments were checked; nothing is started.

    Parameters
    ----------
    bundles : sequence of str
        The path of one bundle, or demo:gampen, demo:sfnet.
    output : Path
        The bundle to write.
    source : DataSource
        Where the held-out objects come from: a store, or a population to simulate. Labels are not read.
    settings : StoppingSettings

    Returns
    -------
    StoppingTask

    Raises
    ------
    UsageError
        Arguments contradict each other, the network needs no stopping calibration, or the output cannot be written.
    """
    if output.suffix != ".pt":
        raise UsageError(f"-o {output}: a bundle's name ends in .pt")
    if len(bundles) != 1:
        raise UsageError(f"--stopping-only: is of one bundle, found {len(bundles)}")
    if (source.store is None) == (source.population is None):
        raise UsageError(
            "models calibrate --stopping-only: state where held-out objects come from: --simulate paper or survey, or --store"
        )
    if source.labels:
        raise UsageError("--labels: a stopping calibration reads none; take it out")
    bundle = models.load_bundle(models.bundle_path(bundles[0]))
    if not models.stops_by_quantiles(bundle.metadata):
        raise UsageError(
            f"{bundles[0]}: its passes are equal or single values, for which a stopping calibration means nothing"
        )
    if bundle.metadata.input.auxiliary_inputs:
        raise UsageError(
            f"{bundles[0]}: takes auxiliary inputs, which a store does not hold; give --labels with a table that has them and "
            "leave out --stopping-only"
        )
    input_settings(bundle.metadata)  # refuses what cannot be read, before anything starts
    refuse_training_seed(bundle, source, (), settings.seed)
    storage.check_writable(str(output.resolve().parent))
    return StoppingTask(bundle, output, source, settings)


def calibrate_stopping_only(
    task: StoppingTask, *, console: Console | None = None
) -> StoppingCalibratedBundle:
    """Measure passes of held-out objects, and write the bundle with a stopping calibration, and its card.

    Parameters
    ----------
    task : StoppingTask
        The result of `prepare_stopping`.
    console : Console or None
        Shows the progress. None shows nothing.

    Returns
    -------
    StoppingCalibratedBundle

    Raises
    ------
    UsageError
        There are too few held-out objects, or the store does not fit the bundle.
    """
    console = console or Console(quiet=True)
    notify = line_printer(console)
    bundle, settings = task.bundle, task.settings
    n_objects = task.source.objects or settings.n_objects
    if task.source.store is None:
        recipe = models.Recipe(
            input_settings(bundle.metadata),
            n_objects=n_objects,
            population=task.source.population or "",
            seed=settings.seed,
        )
        data = simulate_labeled(recipe, recipe.settings, notify=notify)
        held_out, notes = held_out_objects(data, ())
    else:
        data, held_out, notes = _stored(task.source.store, bundle, n_objects)
    for note in notes:
        notify(note)
    settings = dataclasses.replace(
        settings, n_objects=n_objects, data=describe_objects(data, is_part=bool(notes))
    )
    with calibration_progress(console, min(n_objects, len(held_out))) as progress:
        info = models.calibrate_stopping(bundle, held_out, settings, progress=progress)
    metadata = dataclasses.replace(bundle.metadata, stopping=info)
    sha256 = models.save_bundle(str(task.output), bundle.script, metadata)
    card = task.output.with_suffix(".md")
    card.write_text(models.card_text(metadata, sha256), encoding="utf-8")
    return StoppingCalibratedBundle(metadata, sha256, card)


def measure_stopping(
    bundle: models.Bundle,
    held_out: models.HeldOut,
    settings: models.StoppingSettings,
    *,
    console: Console,
) -> models.StoppingInfo | None:
    """Return the stopping calibration of a bundle; None, with a line that says so, where there are too few held-out objects.

    It is None without a line for a network that needs none: one whose passes are equal, or single values.
    """
    if not models.stops_by_quantiles(bundle.metadata):
        return None
    if len(held_out) < models.MIN_STOPPING_OBJECTS:
        line_printer(console)(
            f"no stopping calibration: {len(held_out)} held-out objects, {models.MIN_STOPPING_OBJECTS} are needed; galbatch "
            "models calibrate --stopping-only makes it from any cutout store"
        )
        return None
    with calibration_progress(console, min(len(held_out), settings.n_objects)) as progress:
        return models.calibrate_stopping(bundle, held_out, settings, progress=progress)


def _stored(
    store: str, bundle: models.Bundle, n_objects: int
) -> tuple[LabeledImages, models.HeldOut, list[str]]:
    """Return some of the store's objects that the bundle was not trained on, in even steps along the sky."""
    metadata = bundle.metadata
    grid, pixels = find_grid(store, input_settings(metadata))
    ids = {pixel: ingest.read_object_ids(store, pixel, grid) for pixel in pixels}
    where = [(pixel, row) for pixel, of_pixel in ids.items() for row in range(len(of_pixel))]
    size = metadata.input.size_px
    # Without pixels yet: by their ids alone those are found that a training set aside.
    everything = LabeledImages(
        np.broadcast_to(np.float32(0), (len(where), len(metadata.input.bands), size, size)),
        np.full((len(where), len(metadata.parameters)), np.nan),
        models.Extras(object_id=np.concatenate(list(ids.values()))),
        {"store": Path(store).name},
    )
    held_out, notes = held_out_objects(everything, (bundle,))
    rows = np.arange(len(where)) if held_out.rows is None else held_out.rows
    wanted = np.unique(
        np.linspace(0, len(rows) - 1, min(len(rows), int(SPARE_SHARE * n_objects))).astype(int)
    )
    images = list(_images(store, grid, [where[i] for i in rows[wanted]], metadata.input.bands))
    usable = np.array([image for image in images if models.has_center(image[None])[0]], dtype=np.float32)
    return (
        everything,
        models.HeldOut(
            usable.reshape(-1, *everything.images.shape[1:]),
            np.full((len(usable), len(metadata.parameters)), np.nan),
        ),
        notes,
    )


def _images(
    store: str, grid: Grid, where: Sequence[tuple[HealpixPixel, int]], bands: tuple[str, ...]
) -> Iterator[np.ndarray]:
    """Yield the image (band, y, x) float32 of each object, given by its HEALPix pixel and its row there, in rising order."""
    for pixel in dict.fromkeys(pixel for pixel, _ in where):
        rows = [row for of, row in where if of == pixel]
        first = 0
        for block in ingest.read_blocks(store, pixel, grid):
            some = block.select_bands(bands)
            yield from (some.image[row - first] for row in rows if first <= row < first + len(block))
            first += len(block)
