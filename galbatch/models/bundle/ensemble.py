"""Several bundles of one model as one network: their posteriors are pooled, with equal weights.

A single bundle is an ensemble of one. The first bundle leads: the others are brought into its standardized space,
and labels, ranges seen in training, crop and top features are its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from galbatch.core.types import Grid
from galbatch.errors import BundleError
from galbatch.models.bundle.files import load_bundle
from galbatch.models.bundle.network import Bundle
from galbatch.models.heads import OutputInfo, has_posterior, head_of, pooled_passes
from galbatch.models.metadata import BundleMetadata
from galbatch.models.posterior import Passes

__all__ = ["Ensemble", "load_ensemble"]


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Networks that estimate the same parameters from the same inputs.

    Attributes
    ----------
    bundles : one or more, the first leads
    calibrated : whether posteriors are inflated by the bundles' inflation factors; None: as each bundle says

    Raises
    ------
    BundleError
        The bundles differ in what they take or say, one is named twice, or `calibrated` is true and a bundle holds
        no inflation factors.
    """

    bundles: tuple[Bundle, ...]
    calibrated: bool | None = None

    def __post_init__(self) -> None:
        first = self.bundles[0]
        for other in self.bundles[1:]:
            _refuse_difference(first.metadata, other.metadata)
        if len(set(self.sha256)) < len(self.bundles):
            raise BundleError(f"{first.metadata.name}: a bundle is named twice; its passes would count twice")
        for bundle in self.bundles:
            calibration = bundle.metadata.calibration
            if self.calibrated and (calibration is None or calibration.inflation_factors is None):
                raise BundleError(
                    f"{bundle.metadata.name}: calibrated = true, but the bundle holds no inflation factors; run galbatch "
                    "models calibrate, or take the line out"
                )

    @property
    def metadata(self) -> BundleMetadata:
        """The metadata of the first bundle."""
        return self.bundles[0].metadata

    @property
    def sha256(self) -> tuple[str, ...]:
        """The bundles' identities."""
        return tuple(bundle.sha256 for bundle in self.bundles)

    @property
    def grid(self) -> Grid:
        """The cutouts it takes."""
        return self.bundles[0].grid

    @property
    def bands(self) -> tuple[str, ...]:
        """Its bands, in the order of the image axis."""
        return self.bundles[0].bands

    @property
    def n_members(self) -> int:
        """Networks in all bundles."""
        return sum(bundle.metadata.members for bundle in self.bundles)

    @property
    def has_dropout(self) -> bool:
        """Whether passes of any network differ."""
        return any(bundle.metadata.dropout_rate > 0 for bundle in self.bundles)

    @property
    def is_point(self) -> bool:
        """Whether passes are single values."""
        return head_of(self.metadata.head).is_point

    @property
    def has_posterior(self) -> bool:
        """Whether there is a posterior: not for one network with a point head and without dropout."""
        return has_posterior(self.output_infos)

    @property
    def inflation_factors(self) -> tuple[tuple[float, ...] | None, ...]:
        """For each bundle the factors (parameter,) that its posteriors are inflated by; None: not at all."""
        found = []
        for bundle in self.bundles:
            calibration = bundle.metadata.calibration
            apply = self.calibrated
            if calibration is not None and apply is None:
                apply = calibration.apply
            found.append(calibration.inflation_factors if calibration is not None and apply else None)
        return tuple(found)

    @property
    def output_infos(self) -> tuple[OutputInfo, ...]:
        """How the outputs of each bundle are read."""
        return tuple(
            OutputInfo(bundle.metadata, bundle.sha256, factors)
            for bundle, factors in zip(self.bundles, self.inflation_factors, strict=True)
        )

    def passes(self, outputs: Sequence[npt.NDArray[np.floating]]) -> Passes:
        """Return the pooled posterior, in the first bundle's standardized space.

        Parameters
        ----------
        outputs : of each bundle (object, pass, member x output), finite; as many passes of each
        """
        return pooled_passes(self.output_infos, outputs)


def load_ensemble(
    paths: Sequence[str], *, sha256: Sequence[str] | None = None, calibrated: bool | None = None
) -> Ensemble:
    """Load bundles as one network.

    Parameters
    ----------
    paths : of the bundles
    sha256 : the identities they must have; None: any
    calibrated : see `Ensemble`

    Raises
    ------
    BundleError
        As `load_bundle` and `Ensemble`.
    """
    expected: Sequence[str | None] = sha256 or [None] * len(paths)
    bundles = tuple(load_bundle(path, sha256=one) for path, one in zip(paths, expected, strict=True))
    return Ensemble(bundles, calibrated)


SAME: dict[str, Callable[[BundleMetadata], Any]] = {
    "cutouts": lambda m: f"{m.input.size_px} px of {m.input.pixel_scale_arcsec:g} arcsec",
    "bands": lambda m: ", ".join(m.input.bands),
    "auxiliary inputs": lambda m: (
        ", ".join(f"{one.name} {one.unit}".strip() for one in m.input.auxiliary_inputs) or "none"
    ),
    "single values or distributions": lambda m: (
        "single values" if head_of(m.head).is_point else "distributions"
    ),
    "parameters": lambda m: ", ".join(p.name for p in m.parameters),
}


def _refuse_difference(first: BundleMetadata, other: BundleMetadata) -> None:
    """Raise if two bundles of one model differ in what must be the same."""
    found = [(what, of(first), of(other)) for what, of in SAME.items() if of(first) != of(other)]
    if [p.name for p in first.parameters] == [p.name for p in other.parameters]:
        found += [
            (f"{key} of {here.name}", getattr(here, key), getattr(there, key))
            for here, there in zip(first.parameters, other.parameters, strict=True)
            for key in ("unit", "transform", "limits")
            if getattr(here, key) != getattr(there, key)
        ]
    if found:
        names = f"{first.name} {first.version} and {other.name} {other.version}"
        differences = "; ".join(f"{what}: {here} against {there}" for what, here, there in found)
        raise BundleError(
            f"the bundles {names} cannot be pooled, they are not of one model; they differ in {differences}"
        )
