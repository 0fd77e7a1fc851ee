"""How a bundle's estimates relate to the photometry of the same pixels, measured on held-out objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from galbatch import models, photometry
from galbatch.config import PhotometryConfig, PosteriorConfig
from galbatch.core.types import BLOCK_OBJECTS, CutoutBlock

__all__ = ["measure_disagreement"]

MAX_OBJECTS = 2000
"""At most as many held-out objects are run: 20 of them are above the limit of one in a hundred."""

PASSES = 16
"""Passes of each object, which leave a quarter of a posterior's std between dropout masks: less than what photometry is off by."""

NETWORK = "network"


def measure_disagreement(
    bundle: models.Bundle,
    held_out: models.HeldOut,
    *,
    seed: int = 1,
    data: str = "",
    device: str = "cpu",
    max_objects: int = MAX_OBJECTS,
    notify: Callable[[str], None] = lambda line: None,
) -> models.DisagreementInfo | None:
    """Return the second opinion of a bundle: photometry and network are run on objects that were not used in training.

    Photometry is measured with the default settings, in the network's bands.

    Parameters
    ----------
    bundle : Bundle
        With the calibration that runs apply.
    held_out : HeldOut
        Labels are not read.
    seed : int
        Of the choice of objects and of the dropout masks.
    data : str
        Description of the objects.
    device : {"cpu", "cuda"}
        Where the network runs.
    max_objects : int
        At most about as many objects are used, the first by a hash of seed and id.
    notify : callable
        Takes a human-readable line before anything is run.

    Returns
    -------
    DisagreementInfo or None
        None for a network on several grids or without pixels, one without a parameter that photometry tells of, and with less than 200
        objects that both know.
    """
    metadata = bundle.metadata
    if len(metadata.input.images) != 1 or not models.disagreement_parameters(metadata.parameters):
        return None
    share = min(1.0, max_objects / max(1, len(held_out)))
    some = held_out if share == 1.0 else held_out.split(seed=seed, share=share)[0]
    if len(some) < models.MIN_DISAGREEMENT_OBJECTS:
        return None
    notify(f"comparing the network with the photometry of {len(some)} objects")
    engine = models.choose_engine(models.Ensemble((bundle,)), kind="auto", precision="auto", device=device)
    execution = models.Execution(engine, device)
    parts = [
        _results(bundle, block, auxiliary, seed=seed, execution=execution)
        for block, auxiliary in _blocks(metadata, some)
    ]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return models.fit_disagreement(
        metadata.parameters,
        columns,
        columns,
        model=NETWORK,
        bands=metadata.input.bands,
        photometry_version=photometry.PHOTOMETRY_VERSION,
        data=data,
    )


def _blocks(
    metadata: models.BundleMetadata, objects: models.HeldOut
) -> Iterator[tuple[CutoutBlock, npt.NDArray[np.float32] | None]]:
    """Yield the objects as blocks of cutouts, with their auxiliary inputs."""
    rows = np.arange(len(objects)) if objects.rows is None else objects.rows
    grid = metadata.input.images[0].grid
    for start in range(0, len(objects), BLOCK_OBJECTS):
        some = slice(start, start + BLOCK_OBJECTS)
        images = np.asarray(objects.images[rows[some]], np.float32)
        block = CutoutBlock.of_images(images, metadata.input.bands, grid, object_id=objects.ids[some])
        yield block, None if objects.auxiliary is None else objects.auxiliary[some]


def _results(
    bundle: models.Bundle,
    block: CutoutBlock,
    auxiliary: npt.NDArray[np.float32] | None,
    *,
    seed: int,
    execution: models.Execution,
) -> dict[str, npt.NDArray[np.generic]]:
    """Return the columns of photometry and network, (object,) by name."""
    inputs = models.BlockInputs(block, np.ones(len(block), np.bool_), auxiliary=auxiliary)
    posterior = PosteriorConfig(passes=PASSES, seed=seed)
    found = models.infer_block(bundle, inputs, name=NETWORK, posterior=posterior, execution=execution)
    return {**photometry.measure_photometry(block, PhotometryConfig()), **found}
