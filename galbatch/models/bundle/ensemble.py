"""Ensembles: several loaded bundles that estimate the same parameters, whose posteriors are pooled with equal weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from galbatch.config import DensityGrid
from galbatch.errors import BundleError
from galbatch.models.bundle.files import load_bundle
from galbatch.models.bundle.info import Embedding, EmbeddingType, EnsembleInfo
from galbatch.models.bundle.network import Bundle
from galbatch.models.heads import pooled_passes
from galbatch.models.posterior import Passes

__all__ = ["Ensemble", "load_ensemble"]


@dataclass(frozen=True, eq=False)
class Ensemble(EnsembleInfo):
    """Networks that estimate the same parameters from the same inputs, loaded.

    Attributes
    ----------
    bundles : one or more bundles; the first decides what cannot be pooled

    Raises
    ------
    BundleError
        As in `EnsembleInfo`, or an embedding is asked for and the first bundle's script gives no features.
    """

    bundles: tuple[Bundle, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.embedding_dtype is not None and not self.bundles[0].n_features:
            raise BundleError(
                f"{self.metadata.name}: embedding = true, but the bundle's script has no method last_features; take the line out, or "
                "give the network such a method and convert or save it again"
            )

    @property
    def embedding(self) -> Embedding | None:
        """The column of the first bundle's last features; None if there is none."""
        if self.embedding_dtype is None:
            return None
        return Embedding(self.bundles[0].n_features, self.embedding_dtype)

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
