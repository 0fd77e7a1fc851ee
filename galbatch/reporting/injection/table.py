"""The table of injected galaxies: bias, scatter, coverage, completeness and flags by magnitude, size, crowding and tract."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from galbatch.core.columns import MODEL_FLAGS, PIXEL_FLAGS, TILE_ID
from galbatch.core.flags import ModelFlag, PixelFlag, count_flags, quality_bits
from galbatch.core.statistics import normalized_mad
from galbatch.reporting.contents import Quantity
from galbatch.reporting.injection.placing import NEAREST, TRUE

__all__ = ["EvidenceRow", "evidence_rows"]

EDGES: Mapping[str, tuple[float, ...]] = {
    "magnitude": (0, 16, 18, 19, 20, 21, 22, 23, 24, 25, 99),
    "size": (0, 0.3, 0.6, 1.2, 2.5, 99),
    "crowding": (0, 3, 6, 12, np.inf),
}
"""Edges of the bins: true magnitude (AB), true half-light radius (arcsec), distance to the nearest object of the list (arcsec)."""

BINNED = {"magnitude": f"{TRUE}mag", "size": f"{TRUE}re_arcsec", "crowding": NEAREST}
"""The column that each kind of bin is of."""

MOST_TRACTS = 20
"""Tracts that have rows of their own, those with the most galaxies; a survey has hundreds."""

LEAST_GALAXIES = 5
"""Galaxies with values that a bias and a scatter are told of."""

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class EvidenceRow:
    """The numbers of the injected galaxies in one bin, for one parameter of one network.

    Attributes
    ----------
    model, parameter, unit : as in the catalog's columns
    binned_by, bin : kind of bin, "" for all galaxies, and human-readable limits
    n : number of galaxies injected
    completeness : share of them with a value and no quality flag
    n_usable : their number, of which the next four are
    bias : median of posterior median less truth, in `unit`; None of fewer than five
    scatter : 1.48 times the median absolute deviation of that difference
    coverage68, coverage95 : share whose truth lies within the equal-tailed interval; None if the catalog has no such quantiles
    flags : share of the galaxies with each flag, of the pixels and of the network, that any has
    """

    model: str
    parameter: str
    unit: str
    binned_by: str
    bin: str
    n: int
    completeness: float
    n_usable: int
    bias: float | None
    scatter: float | None
    coverage68: float | None
    coverage95: float | None
    flags: Mapping[str, float]

    @property
    def frequent_flags(self) -> str:
        """The three flags that most of the galaxies have, with their shares, as text; "" if none has any."""
        frequent = sorted(self.flags.items(), key=lambda one: (-one[1], one[0]))[:3]
        return ", ".join(f"{name} {100 * share:.0f} %" for name, share in frequent)

    def as_dict(self) -> dict[str, Any]:
        """Return the row as JSON's types."""
        return asdict(self)


def evidence_rows(
    quantity: Quantity, truth: Floats, columns: Mapping[str, npt.NDArray[Any]]
) -> Iterator[EvidenceRow]:
    """Yield a row for all galaxies, then one for each bin that has any.

    Parameters
    ----------
    quantity : posterior of one parameter, (object, ..)
    truth : (object,) float64, in the quantity's unit
    columns : columns (object,) of the catalog: flags, ``tile_id``, and those that bins are of
    """
    pixels, of_model = columns[PIXEL_FLAGS.name], columns[MODEL_FLAGS.name(quantity.model)]
    usable = np.isfinite(quantity.median) & (pixels & quality_bits(PixelFlag) == 0)
    usable &= of_model & quality_bits(ModelFlag) == 0
    for kind, label, chosen in _bins(columns):
        residual = (quantity.median - truth)[chosen & usable]
        tells = len(residual) >= LEAST_GALAXIES
        yield EvidenceRow(
            quantity.model,
            quantity.parameter,
            quantity.unit,
            kind,
            label,
            int(chosen.sum()),
            float(usable[chosen].mean()),
            len(residual),
            float(np.median(residual)) if tells else None,
            normalized_mad(residual) if tells else None,
            _coverage(quantity, truth, chosen & usable, 0.6827),
            _coverage(quantity, truth, chosen & usable, 0.9545),
            {**_shares(PixelFlag, pixels[chosen]), **_shares(ModelFlag, of_model[chosen])},
        )


def _bins(columns: Mapping[str, npt.NDArray[Any]]) -> Iterator[tuple[str, str, Mask]]:
    """Yield kind, label and members (object,) of all galaxies together and of each bin that has any."""
    yield "", "all", np.ones(len(columns[TILE_ID.name]), np.bool_)
    for kind, edges in EDGES.items():
        values = columns[BINNED[kind]]
        for low, high in pairwise(edges):
            # Infinite is the distance where the list has no object.
            if (chosen := (values >= low) & ((values < high) | (high == np.inf))).any():
                yield kind, f"{low:g} and more" if high in (99, np.inf) else f"{low:g} to {high:g}", chosen
    tracts = np.array([str(tile).partition("/")[0] for tile in columns[TILE_ID.name]])
    names, counts = np.unique(tracts, return_counts=True)
    for name in sorted(names[np.argsort(-counts, kind="stable")][:MOST_TRACTS]):
        yield "tract", name or "none", tracts == name


def _coverage(quantity: Quantity, truth: Floats, chosen: Mask, share: float) -> float | None:
    """Return the share of the chosen galaxies whose truth lies in the equal-tailed interval; ends belong to it."""
    ends = quantity.interval(share)
    if ends is None or chosen.sum() < LEAST_GALAXIES:
        return None
    low, high = ends
    return float(((low <= truth) & (truth <= high))[chosen].mean())


def _shares(flags: type[PixelFlag | ModelFlag], values: npt.NDArray[np.int32]) -> dict[str, float]:
    """Return the share of the values with each flag that any of them has, by its name."""
    counts = zip(flags, count_flags(values, flags), strict=True)
    return {str(flag.name): n / len(values) for flag, n in counts if n}
