"""Descriptions of bundles, from their metadata and hashes, which are read without torch, which takes two seconds to import.

Several bundles that estimate the same parameters are an ensemble, whose posteriors are pooled with equal weights; a single bundle is
an ensemble of one. The first bundle decides what cannot be pooled: the outputs of the others are mapped into its standardized space,
and the labels, the ranges seen in training, the crop and the top features are its own.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from galbatch import storage
from galbatch.config import DensityGrid
from galbatch.core.fingerprint import digest
from galbatch.core.types import Grid
from galbatch.errors import BundleError, MissingBundleError
from galbatch.models.bundle.archive import read_metadata_text
from galbatch.models.bundle.opinion import shipped_disagreement, with_shipped_disagreement
from galbatch.models.bundle.paths import bundle_path, demo_bundles
from galbatch.models.bundle.prior import UNKNOWN_PRIOR, prior_of
from galbatch.models.bundle.stopping import stopping_of
from galbatch.models.heads import OutputInfo, has_posterior, head_of, read_metadata
from galbatch.models.metadata import BundleMetadata, StoppingInfo

__all__ = [
    "BundleInfo",
    "Embedding",
    "EmbeddingType",
    "EnsembleInfo",
    "file_on_this_machine",
    "read_bundle_metadata",
    "read_ensemble_info",
]


EmbeddingType = Literal["float16", "float32"]


@dataclass(frozen=True)
class Embedding:
    """The last features of a network as a column of vectors: their number, and the type that they are stored in."""

    length: int
    dtype: EmbeddingType = "float32"


@dataclass(frozen=True, eq=False)
class BundleInfo:
    """A bundle as its file describes it; its network is not loaded.

    Attributes
    ----------
    metadata : metadata from the file
    sha256 : hash of the file, in hexadecimal digits: the model's identity
    """

    metadata: BundleMetadata
    sha256: str

    @property
    def grid(self) -> Grid | None:
        """The size and pixel scale of the cutouts that the network takes; None if it takes no pixels."""
        return self.metadata.input.grid

    @property
    def bands(self) -> tuple[str, ...]:
        """The names of the bands, in the order of the images' axis band, those of the first grid first."""
        return self.metadata.input.all_bands


@dataclass(frozen=True, eq=False)
class EnsembleInfo:
    """Networks that estimate the same parameters from the same inputs, as their bundles describe them; nothing of them is loaded.

    Attributes
    ----------
    bundles : one or more bundles; the first decides what cannot be pooled
    calibrated : whether posteriors are inflated by the bundles' inflation factors; None: each bundle's own default
    embedding_dtype : type in which the last features of the first bundle become a column; None: they do not
    densities : grids on which densities of parameters become columns

    Raises
    ------
    BundleError
        The bundles differ in inputs, parameters or kind of output, one is given twice, `calibrated` is true and a
        bundle holds no inflation factors, or a density of what is no parameter or has no posterior.
    """

    bundles: tuple[BundleInfo, ...]
    calibrated: bool | None = None
    embedding_dtype: EmbeddingType | None = None
    densities: tuple[DensityGrid, ...] = ()

    def __post_init__(self) -> None:
        first, *others = [bundle.metadata for bundle in self.bundles]
        for other in others:
            ours, theirs = pooling_facts(first), pooling_facts(other)
            found = [name for name in ours if name in theirs and ours[name] != theirs[name]]
            if found:
                raise BundleError(
                    f"the bundles {first.name} {first.version} and {other.name} {other.version} cannot be pooled, they are not of "
                    f"one model; they differ in {'; '.join(f'{name}: {ours[name]} against {theirs[name]}' for name in found)}"
                )
        # By hash, as two paths may hold the same file.
        if len(set(self.sha256)) < len(self.bundles):
            raise BundleError(f"{first.name}: a bundle is named twice; its passes would count twice")
        for bundle in self.bundles:
            calibration = bundle.metadata.calibration
            if self.calibrated and (calibration is None or calibration.inflation_factors is None):
                raise BundleError(
                    f"{bundle.metadata.name}: calibrated = true, but the bundle holds no inflation factors; run galbatch "
                    "models calibrate, or take the line out"
                )
        self._check_densities()

    def _check_densities(self) -> None:
        """Raise a BundleError on a density that the bundles cannot give."""
        names = [parameter.name for parameter in self.metadata.parameters]
        wanted = [grid.parameter for grid in self.densities]
        for name in wanted:
            if name not in names:
                raise BundleError(
                    f"densities: {name} is no parameter of {self.metadata.name}; it has {', '.join(names)}"
                )
            if wanted.count(name) > 1:
                raise BundleError(f"densities: {name} occurs twice; state one grid for each parameter")
        if wanted and not self.has_posterior:
            raise BundleError(
                f"densities: {self.metadata.name} gives single values without a posterior; take the section out"
            )

    @property
    def metadata(self) -> BundleMetadata:
        """The metadata of the first bundle."""
        return self.bundles[0].metadata

    @property
    def sha256(self) -> tuple[str, ...]:
        """The sha256 of each bundle's file."""
        return tuple(bundle.sha256 for bundle in self.bundles)

    @property
    def grid(self) -> Grid | None:
        """The size and pixel scale of the cutouts that the networks take; None if they take no pixels."""
        return self.bundles[0].grid

    @property
    def grids(self) -> tuple[Grid, ...]:
        """The grids of all the cutouts that the networks take; none if they take no pixels."""
        return tuple(one.grid for one in self.metadata.input.images)

    @property
    def bands(self) -> tuple[str, ...]:
        """The names of the bands, in the order of the images' axis band."""
        return self.bundles[0].bands

    @property
    def embedding(self) -> Embedding | None:
        """The column of the first bundle's last features, with the length that the metadata tell, else 0; None if there is none."""
        if self.embedding_dtype is None:
            return None
        return Embedding(len(self.metadata.domain.features_mean or ()), self.embedding_dtype)

    @property
    def n_members(self) -> int:
        """The number of networks in all bundles together, each counted as often as its shares of the posterior."""
        return sum(bundle.metadata.n_shares for bundle in self.bundles)

    @property
    def has_dropout(self) -> bool:
        """Whether any of the networks has dropout, so that its passes differ."""
        return any(bundle.metadata.passes_differ for bundle in self.bundles)

    @property
    def is_point(self) -> bool:
        """Whether each pass gives single values, not distributions."""
        return head_of(self.metadata.head).is_point

    @property
    def is_vector(self) -> bool:
        """Whether the networks give a vector of numbers, without a posterior."""
        return head_of(self.metadata.head).is_vector

    @property
    def has_posterior(self) -> bool:
        """Whether there is a posterior; a single network with a point head and without dropout has none."""
        return has_posterior(self.output_infos)

    @property
    def inflation_factors(self) -> tuple[tuple[float, ...] | None, ...]:
        """The factors, one per parameter, that each bundle's posteriors are inflated by; None for a bundle that is not corrected."""
        found = []
        for bundle in self.bundles:
            calibration = bundle.metadata.calibration
            apply = self.calibrated
            if calibration is not None and apply is None:
                apply = calibration.apply
            found.append(calibration.inflation_factors if calibration is not None and apply else None)
        return tuple(found)

    @property
    def stopping(self) -> tuple[StoppingInfo | None, ...]:
        """The stopping calibration of each bundle; None for a bundle that has none."""
        return tuple(stopping_of(bundle.metadata, bundle.sha256) for bundle in self.bundles)

    @property
    def opinion(self) -> str:
        """The digest of the second opinion that is shipped beside the first bundle; "" if its file holds it, or there is none."""
        shipped = shipped_disagreement(self.bundles[0].sha256)
        return "" if shipped is None else digest(dataclasses.asdict(shipped))

    @property
    def priors(self) -> tuple[str, ...]:
        """For each bundle, a human-readable text on whose prior its posteriors are under."""
        found = [prior_of(bundle.metadata, bundle.sha256) for bundle in self.bundles]
        return tuple(UNKNOWN_PRIOR if prior is None else prior.text() for prior in found)

    @property
    def output_infos(self) -> tuple[OutputInfo, ...]:
        """The description of each bundle's outputs, by which they are read as distributions."""
        return tuple(
            OutputInfo(bundle.metadata, bundle.sha256, factors)
            for bundle, factors in zip(self.bundles, self.inflation_factors, strict=True)
        )


def read_ensemble_info(
    paths: Sequence[str],
    *,
    calibrated: bool | None = None,
    embedding_dtype: EmbeddingType | None = None,
    densities: tuple[DensityGrid, ...] = (),
) -> EnsembleInfo:
    """Return what bundles say of the networks of an ensemble, read without torch and without running anything of them.

    Parameters
    ----------
    paths : paths of the bundles
    calibrated, embedding_dtype, densities : as in `EnsembleInfo`

    Raises
    ------
    BundleError
        A file cannot be read (see `read_bundle_metadata`), or the bundles cannot be pooled (see `EnsembleInfo`).
    """
    bundles = tuple(BundleInfo(*read_bundle_metadata(path)) for path in paths)
    return EnsembleInfo(bundles, calibrated, embedding_dtype, densities)


def read_bundle_metadata(path: str) -> tuple[BundleMetadata, str]:
    """Return what a bundle says of itself, and its sha256, without running anything of it.

    A shipped bundle's second opinion is in a file beside it, and is part of the metadata that are returned.

    Whether its script behaves as it says is not looked at; `load_bundle` does.

    Parameters
    ----------
    path : local or ``s3://``

    Raises
    ------
    BundleError
        There is no such file, it is no bundle or damaged, or its metadata contradict themselves.
    """
    with Path(file_on_this_machine(str(path), None)).open("rb") as opened:
        metadata = read_metadata(read_metadata_text(opened, str(path)), str(path))
        # Of the same open file, which may be replaced meanwhile.
        opened.seek(0)
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    return with_shipped_disagreement(metadata, sha256), sha256


def file_on_this_machine(path: str, sha256: str | None) -> str:
    """Return the path of the bundle's file, or of its copy on this machine."""
    try:
        path = bundle_path(path)
        # A remote file is copied and checked against its hash on the way; a local one is hashed once, by the caller.
        file = str(storage.local_copy(path, sha256=None if storage.has_local_path(path) else sha256))
        storage.open_file(file).close()
    except (FileNotFoundError, IsADirectoryError):
        raise MissingBundleError(
            f"{path}: there is no such bundle; those shipped are {', '.join(demo_bundles())}"
        ) from None
    return file


def pooling_facts(metadata: BundleMetadata) -> dict[str, Any]:
    """Return the facts in which bundles must agree to be pooled, by the names that messages give them.

    Location and scale are not among them: standardized spaces may differ, and are mapped into each other.
    """
    image = metadata.input
    auxiliary = ", ".join(f"{one.label} {one.unit}".strip() for one in image.auxiliary_inputs)
    return {
        "cutouts": ", ".join(f"{one.size_px} px of {one.pixel_scale_arcsec:g} arcsec" for one in image.images)
        or "none",
        "bands": "; ".join(", ".join(one.bands) for one in image.images) or "none",
        "auxiliary inputs": auxiliary or "none",
        "single values or distributions": "single values"
        if head_of(metadata.head).is_point
        else "distributions",
        "parameters": ", ".join(parameter.name for parameter in metadata.parameters),
    } | {
        f"{key} of {parameter.name}": getattr(parameter, key)
        for parameter in metadata.parameters
        for key in ("unit", "transform", "limits")
    }
