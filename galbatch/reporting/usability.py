"""The share of a catalog that can be used as it is, and why the rest cannot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from galbatch.core.columns import MODEL_FLAGS, PIXEL_FLAGS
from galbatch.core.flags import CatalogFlag, FlagClass, ModelFlag, PixelFlag, count_flags, quality_bits
from galbatch.reporting.contents import Contents

__all__ = ["Reason", "Usability", "usability_of"]

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason why objects are not usable: the flag, its column, its text, and how many objects have it."""

    flag: str
    column: str
    text: str
    n: int


@dataclass(frozen=True, slots=True)
class Usability:
    """The usable objects of a catalog.

    An object is usable where at least one network gives it a value and neither the network nor the pixels have a quality flag.

    Attributes
    ----------
    n_objects, n_usable : counts
    of_model : number of usable objects by network
    reasons : why the others are not, the most frequent first; an object may have several
    n_unselected : of the others, those that no network was asked for
    """

    n_objects: int
    n_usable: int
    of_model: dict[str, int]
    reasons: tuple[Reason, ...]
    n_unselected: int

    @property
    def share(self) -> float:
        """The usable share of the objects; 0 of an empty catalog."""
        return self.n_usable / self.n_objects if self.n_objects else 0.0


def usability_of(contents: Contents) -> Usability:
    """Return how many objects of a catalog are usable, and why the others are not."""
    n = len(contents)
    spoiled = (contents.flags & quality_bits(PixelFlag)) != 0  # (object,)
    usable, unselected = np.zeros(n, np.bool_), np.ones(n, np.bool_)
    of_model = {}
    for model, flags in contents.model_flags.items():
        has_values = np.zeros(n, np.bool_)
        for quantity in contents.of_model(model):
            has_values |= np.isfinite(quantity.median)
        fine = has_values & ~spoiled & ((flags & quality_bits(ModelFlag)) == 0)
        of_model[model] = int(fine.sum())
        usable |= fine
        unselected &= (flags & int(ModelFlag.NOT_SELECTED)) != 0
    reasons = sorted(_reasons(contents, ~usable), key=lambda one: (-one.n, one.column, one.flag))
    return Usability(n, int(usable.sum()), of_model, tuple(reasons), int((unselected & ~usable).sum()))


def _reasons(contents: Contents, rest: Mask) -> Iterator[Reason]:
    """Yield the quality flags of the objects in `rest`, (object,), which at least one of them has."""
    kinds: dict[str, tuple[npt.NDArray[np.int32], type[CatalogFlag]]] = {
        PIXEL_FLAGS.name: (contents.flags, PixelFlag),
        **{MODEL_FLAGS.name(model): (flags, ModelFlag) for model, flags in contents.model_flags.items()},
    }
    for column, (values, kind) in kinds.items():
        for flag, n in zip(kind, count_flags(values[rest], kind), strict=True):
            if n and flag.flag_class is FlagClass.QUALITY:
                yield Reason(str(flag.name), column, flag.text, n)
