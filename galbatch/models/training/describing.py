"""The metadata of a trained network: the domain of its inputs, and a record of the training."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from galbatch.models.bundle import Bundle
from galbatch.models.inference.domain import ObjectNumbers, describe_domain
from galbatch.models.metadata import BundleMetadata, DomainInfo, InputInfo, ParameterInfo, PriorInfo
from galbatch.models.training.data import (
    Extras,
    Split,
    cleaned_rows,
)
from galbatch.models.training.loop import TrainingLoop, TrainingTensors
from galbatch.models.training.settings import TrainingSettings, setting_texts

__all__ = ["domain_of", "metadata_of", "record_of"]

# A subsample of this many objects, or bytes of images, gives a covariance of hundreds of features to a percent.
DOMAIN_OBJECTS = 20_000
DOMAIN_BYTES = 2**30


def domain_of(
    network: nn.Module,
    data: TrainingTensors,
    split: Split,
    *,
    psf_ranges: tuple[tuple[float, float], ...] | None,
    extras: Extras,
) -> DomainInfo:
    """Return the domain of a network: statistics of its training set, with limits found on the validation set.

    Large sets are subsampled. `psf_ranges` are the smallest and largest PSF width of each band in arcsec, where the settings
    give them; without them those of the objects count.
    """
    image_bytes = 4 * int(np.prod(data.images.shape[1:]))
    # Half of the subsample is for each set. It has at least 256 images, however large these are.
    at_most = min(DOMAIN_OBJECTS, max(256, DOMAIN_BYTES // max(1, image_bytes))) // 2
    rows = np.union1d(_subsample(split.training, at_most), _subsample(split.validation, at_most))
    known = None if extras.psf_fwhm_arcsec is None else extras.psf_fwhm_arcsec[rows]
    return describe_domain(
        network,
        cleaned_rows(data.images, rows, 1.0),
        unit_njy=1.0 / data.scale,
        psf_fwhm_arcsec=psf_ranges or known,
        held_out=np.flatnonzero(np.isin(rows, split.validation)),
        known=ObjectNumbers(
            sky_sigma_njy=None if extras.sky_sigma_njy is None else extras.sky_sigma_njy[rows],
            auxiliary=None if extras.auxiliary is None else np.asarray(extras.auxiliary, np.float32)[rows],
        ),
    )


def _subsample(rows: npt.NDArray[np.int64], at_most: int) -> npt.NDArray[np.int64]:
    """Return at most `at_most` of the rows, evenly spaced."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(at_most, len(rows))).astype(np.int64))]


def metadata_of(
    size_px: int,
    parameters: tuple[ParameterInfo, ...],
    settings: TrainingSettings,
    domain: DomainInfo,
    record: dict[str, Any],
    *,
    prior: PriorInfo | None = None,
) -> BundleMetadata:
    """Return the metadata of a trained network; `record` is what `record_of` returned, `prior` the density of its labels."""
    return BundleMetadata(
        name=settings.name,
        version=settings.version,
        architecture=settings.architecture,
        input=_input_of(size_px, settings),
        head=settings.head_info,
        parameters=parameters,
        dropout_rate=settings.dropout_rate or 0.0,
        domain=domain,
        n_top_features=settings.n_top_features or 0,
        prior=prior,
        training_data=settings.training_data,
        training=record,
        licence=settings.licence,
        citation=settings.citation,
    )


def _input_of(size_px: int, settings: TrainingSettings) -> InputInfo:
    if not settings.bands:
        return InputInfo(auxiliary_inputs=settings.auxiliary_inputs)
    return InputInfo(
        bands=settings.bands,
        size_px=size_px,
        pixel_scale_arcsec=settings.pixel_scale_arcsec,
        unit="ADU",  # A name for readers: the zero point defines the unit.
        zero_point_mag=settings.zero_point_mag,
        background=settings.background,
        release=settings.release,
        dereddened=settings.dereddened,
        auxiliary_inputs=settings.auxiliary_inputs,
    )


def record_of(
    settings: TrainingSettings, split: Split, loop: TrainingLoop, *, parent: Bundle | None
) -> dict[str, Any]:
    """Return the record of a training for the metadata: its settings, the sizes of the sets, and its results."""
    best = loop.best_epoch
    return {
        **setting_texts(settings),
        "n_objects": len(split.training) + len(split.validation),
        "n_training": len(split.training),
        "n_validation": len(split.validation),
        "n_test": len(split.test),
        "epochs_done": len(loop.history),
        "best_epoch": best.epoch,
        "validation_loss": best.validation_loss,
        "wall_time_s": round(loop.history[-1].elapsed_s, 1),
        "device": str(loop.device.type),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__.split("+")[0],
        **({} if parent is None else {"parent": parent.metadata.name, "parent_sha256": parent.sha256}),
    }
