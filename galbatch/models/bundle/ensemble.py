"""Ensembles: several bundles that estimate the same parameters, whose posteriors are pooled with equal weights.

A single bundle is an ensemble of one. The first bundle decides what cannot be pooled: the outputs of the others are mapped
into its standardized space, and the labels, the ranges seen in training, the crop and the top features are its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from galbatch.config import DensityGrid
from galbatch.core.types import Grid
from galbatch.errors import BundleError
from galbatch.models.bundle.files import load_bundle
from galbatch.models.bundle.network import Bundle
from galbatch.models.bundle.prior import UNKNOWN_PRIOR, prior_of
from galbatch.models.bundle.stopping import stopping_of
from galbatch.models.heads import OutputInfo, has_posterior, head_of, pooled_passes
from galbatch.models.metadata import BundleMetadata, StoppingInfo
from galbatch.models.posterior import Passes

__all__ = ["Embedding", "EmbeddingType", "Ensemble", "load_ensemble"]

EmbeddingType = Literal["float16", "float32"]


@dataclass(frozen=True)
class Embedding:
    """The last features of a network as a column of vectors: their number, and the type that they are stored in."""

    length: int
    dtype: EmbeddingType = "float32"


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Networks that estimate the same parameters from the same inputs.

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
        bundle holds no inflation factors, an embedding is asked for and the first bundle's script gives no features, or a
        density of what is no parameter or has no posterior.
    """

    bundles: tuple[Bundle, ...]
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
        if self.embedding_dtype is not None and not self.bundles[0].n_features:
            raise BundleError(
                f"{first.name}: embedding = true, but the bundle's script has no method last_features; take the line out, or give "
                "the network such a method and convert or save it again"
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
        """The column of the first bundle's last features; None if there is none."""
        if self.embedding_dtype is None:
            return None
        return Embedding(self.bundles[0].n_features, self.embedding_dtype)

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
        return tuple(stopping_of(bundle) for bundle in self.bundles)

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

    def passes(self, outputs: Sequence[npt.NDArray[np.floating]]) -> Passes:
        """Return the pooled posterior, in the first bundle's standardized space.

        Parameters
        ----------
        outputs : one array (object, pass, member x output) per bundle, finite, all with the same number of passes
        """
        return pooled_passes(self.output_infos, outputs)


def load_ensemble(
    paths: Sequence[str],
    *,
    sha256: Sequence[str] | None = None,
    calibrated: bool | None = None,
    embedding_dtype: EmbeddingType | None = None,
    densities: tuple[DensityGrid, ...] = (),
) -> Ensemble:
    """Load bundles as one ensemble.

    Parameters
    ----------
    paths : paths of the bundles
    sha256 : hashes that the files must have, one per path; None: any
    calibrated, embedding_dtype, densities : as in `Ensemble`

    Raises
    ------
    BundleError
        A file cannot be loaded (see `load_bundle`), or the bundles cannot be pooled (see `Ensemble`).
    """
    expected: Sequence[str | None] = sha256 or [None] * len(paths)
    bundles = tuple(load_bundle(path, sha256=one) for path, one in zip(paths, expected, strict=True))
    return Ensemble(bundles, calibrated, embedding_dtype, densities)


def pooling_facts(metadata: BundleMetadata) -> dict[str, Any]:
    """Return the facts in which bundles must agree to be pooled, by the names that messages give them.

    Location and scale are not among them: standardized spaces may differ, and are mapped into each other.
    """
    image = metadata.input
    auxiliary = ", ".join(f"{one.name} {one.unit}".strip() for one in image.auxiliary_inputs)
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
