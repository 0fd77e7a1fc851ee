"""Mutual information of a label with images, with numbers and with both, and its split, in nats.

The mean log score of a network is at most minus the entropy of the label given the source, so entropy plus mean log score is a
lower bound of the information, which is reached by a network that gives the true posterior (Barber & Agakov 2003).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from galbatch.core.information.entropy import class_log_frequencies, log_label_density
from galbatch.core.statistics import bootstrap_errors

__all__ = ["QUANTITIES", "InformationOfBin", "LogScores", "information_in_bins"]

Floats = npt.NDArray[np.float64]

QUANTITIES = {
    "entropy": "entropy of the label in the bin; of a continuous one in its unit, so that it can be negative",
    "image": "I(y; image)",
    "numbers": "I(y; numbers)",
    "both": "I(y; image, numbers)",
    "image_given_numbers": "I(y; image | numbers), what the image adds: unique to it plus synergy",
    "numbers_given_image": "I(y; numbers | image), what the numbers add: unique to them plus synergy",
    "redundancy_mmi": "redundancy as the smaller of the two informations (MMI)",
    "unique_image_mmi": "I(y; image) - redundancy (MMI)",
    "unique_numbers_mmi": "I(y; numbers) - redundancy (MMI)",
    "synergy_mmi": "I(y; image | numbers) - what is unique to the image (MMI)",
    "redundancy_ccs": "redundancy as the common change in surprisal (CCS)",
    "unique_image_ccs": "I(y; image) - redundancy (CCS)",
    "unique_numbers_ccs": "I(y; numbers) - redundancy (CCS)",
    "synergy_ccs": "I(y; image | numbers) - what is unique to the image (CCS)",
}
"""Names and meanings of what is estimated, in the order of `InformationOfBin.values`.

MMI (Barrett 2015, PRE 91, 052802) takes equal amounts of different information for redundant. CCS (Ince 2017, Entropy 19, 318)
compares object by object and does not, but its parts can be negative, and noise of the single scores and of the label's density
biases it, mostly upwards.
"""


@dataclass(frozen=True, eq=False)
class LogScores:
    """The log scores of three networks on the same held-out objects.

    Attributes
    ----------
    image, numbers, both : (object,) float64, natural logarithm of the density, or probability, of the true label
    labels : (object,) float64, true labels, or (object, class), 1 for the true class and 0 for the others
    bin_values : values (object,) by which objects are binned, such as a magnitude
    """

    image: Floats
    numbers: Floats
    both: Floats
    labels: Floats
    bin_values: Mapping[str, Floats] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: npt.NDArray[np.bool_]) -> LogScores:
        """Return the objects in the mask `rows`."""
        binned = {name: values[rows] for name, values in self.bin_values.items()}
        return LogScores(self.image[rows], self.numbers[rows], self.both[rows], self.labels[rows], binned)

    def log_marginal(self) -> Floats:
        """Return the logarithm of the label's density or frequency among these objects, (object,)."""
        return class_log_frequencies(self.labels) if self.labels.ndim == 2 else log_label_density(self.labels)


@dataclass(frozen=True, eq=False)
class InformationOfBin:
    """The information in a bin, in nats.

    Attributes
    ----------
    name : quantity by which objects are binned; "": all objects
    low, high : edges of the bin
    n : number of objects
    values, errors : (quantity,) float64, in the order of `QUANTITIES`, and bootstrap errors
    """

    name: str
    low: float
    high: float
    n: int
    values: Floats
    errors: Floats

    def named(self) -> dict[str, tuple[float, float]]:
        """Return value and error of each quantity, by its name."""
        return dict(
            zip(QUANTITIES, zip(self.values.tolist(), self.errors.tolist(), strict=True), strict=True)
        )


def information_in_bins(
    scores: LogScores, edges: Mapping[str, Floats], *, n_bootstrap: int = 200, seed: int = 0
) -> Iterator[InformationOfBin]:
    """Yield the information of all objects, then of each bin, where the entropy is that of the bin's labels.

    Parameters
    ----------
    scores : LogScores
    edges : rising edges (edge,) of the bins of each quantity; a bin has its lower edge, the last one both
    n_bootstrap, seed : number of bootstrap samples of the objects, and their seed

    Raises
    ------
    UsageError
        A bin has too few objects, or its labels have no density.
    """
    yield _of_bin(scores, ("", np.nan, np.nan), n_bootstrap, seed)
    for name, ends in edges.items():
        values = scores.bin_values[name]
        for low, high in itertools.pairwise(ends.tolist()):
            inside = (values >= low) & ((values < high) | ((values == high) & (high == ends[-1])))
            yield _of_bin(scores.take(inside), (name, low, high), n_bootstrap, seed)


def _of_bin(
    scores: LogScores, place: tuple[str, float, float], n_bootstrap: int, seed: int
) -> InformationOfBin:
    # The terms of the objects are bootstrapped: neighbors in a bootstrap sample would be the objects themselves.
    marginal = scores.log_marginal()
    arrays = (marginal, scores.image - marginal, scores.numbers - marginal, scores.both - marginal)
    errors = bootstrap_errors(_quantities, arrays, n_bootstrap=n_bootstrap, seed=seed)
    return InformationOfBin(*place, len(scores), _quantities(*arrays), errors)


def _quantities(marginal: Floats, image: Floats, numbers: Floats, both: Floats) -> Floats:
    """Return the quantities in the order of `QUANTITIES`, from terms of objects (object,): ln p(y) and pointwise informations."""
    i_image, i_numbers, i_both = float(image.mean()), float(numbers.mean()), float(both.mean())
    found = [-float(marginal.mean()), i_image, i_numbers, i_both, i_both - i_numbers, i_both - i_image]
    # A network that knows less than nothing gives no information, and shares none.
    smaller = max(0.0, min(i_image, i_numbers))
    for redundancy in (smaller, float(_common_change(image, numbers, both).mean())):
        unique = i_image - redundancy
        found += [redundancy, unique, i_numbers - redundancy, i_both - i_numbers - unique]
    return np.array(found)


def _common_change(image: Floats, numbers: Floats, both: Floats) -> Floats:
    """Return what both sources change alike in the surprisal of each object's label, (object,); Ince 2017, equation 21.

    It is the pointwise co-information where it has the sign of all three changes, and 0 elsewhere.
    """
    common = image + numbers - both
    signs = np.sign([image, numbers, both, common])
    return np.where((signs == signs[0]).all(axis=0), common, 0.0)
