"""The features of sparse networks (SFNet): how often each fires, with which others, and with which parameter values."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from scipy.stats import rankdata

from galbatch.reporting.contents import Features, Quantity
from galbatch.reporting.figures import styled_figure

__all__ = ["MOST_RANKED", "FeatureSummary", "feature_panels", "summarize_features"]

Floats = npt.NDArray[np.float64]

MOST_FEATURES = 12
"""Number of features that the report shows, the most frequent first: more rows have no room for their numbers."""

N_STRONGEST = 3
"""Number of objects of each feature in which it is strongest that are named and shown."""

DARK = 0.179
"""Relative luminance below which white numbers have the higher contrast, and above which black ones have: at least 4.5."""

MOST_RANKED = 100_000
"""Most objects of a rank correlation, a random sample: its standard error is 0.003 then, and the page shows two digits."""

# A rank correlation of fewer objects says nothing: its standard error is 0.3 at 10.
FEWEST_OBJECTS = 10


@dataclass(frozen=True, slots=True)
class FeatureSummary:
    """Statistics of the most frequent features of a network, over the objects with values.

    Attributes
    ----------
    number : (feature,) int64
        Numbers of the features in the network, the most frequent first.
    n_objects : (feature,) int64
        Number of objects in which each fired.
    share : (feature,) float64
        That number over the objects in which any feature fired.
    median_activation : (feature,) float64
        Median of the activation, over the objects in which the feature fired.
    strongest : (feature, 3) int64
        Rows in the catalog of the objects with the largest activations, the largest first; -1 where the feature fired in fewer.
    together : (feature, feature) float64
        Share of the objects of the row's feature in which the column's feature fired, too; 1 on the diagonal.
    correlation : (feature, quantity) float64
        Spearman's rank correlation of the activation and the posterior median, over the objects in which the feature fired, of a sample of
        `MOST_RANKED`; NaN for fewer than 10 objects, or where one of the two does not vary.
    """

    number: npt.NDArray[np.int64]
    n_objects: npt.NDArray[np.int64]
    share: Floats
    median_activation: Floats
    strongest: npt.NDArray[np.int64]
    together: Floats
    correlation: Floats


def summarize_features(features: Features, quantities: Sequence[Quantity]) -> FeatureSummary | None:
    """Return statistics of the `MOST_FEATURES` most frequent features of a network; None if none fired in any object."""
    numbers, counts = np.unique(features.index[features.index >= 0], return_counts=True)
    if not len(numbers):
        return None
    chosen = numbers[np.argsort(-counts, kind="stable")[:MOST_FEATURES]]
    activation = np.stack([_activation_of(features, number) for number in chosen.tolist()], axis=1)
    has = np.isfinite(activation)  # (object, feature)
    n_any = int((features.index >= 0).any(axis=1).sum())
    together = has.T.astype(np.float64) @ has / has.sum(axis=0)[:, None]
    sample = np.sort(np.random.default_rng(0).permutation(len(activation))[:MOST_RANKED])
    medians = [quantity.median[sample] for quantity in quantities]
    correlation = [[_rank_correlation(one, median) for median in medians] for one in activation[sample].T]
    return FeatureSummary(
        number=chosen,
        n_objects=has.sum(axis=0),
        share=has.sum(axis=0) / n_any,
        median_activation=np.nanmedian(activation, axis=0),
        strongest=_strongest(activation),
        together=together,
        correlation=np.array(correlation).reshape(len(chosen), len(quantities)),
    )


def _activation_of(features: Features, number: int) -> Floats:
    """Return the activation (object,) of a feature; NaN where it did not fire."""
    # It fires in one rank of an object at most.
    fired = features.index == number
    activation = np.where(fired, features.activation, 0.0).sum(axis=1)
    return np.where(fired.any(axis=1), activation, np.nan)


def _strongest(activation: Floats) -> npt.NDArray[np.int64]:
    """Return the rows (feature, rank) of the `N_STRONGEST` largest activations (object, feature) of each feature, -1 where it did not fire."""
    missing = max(N_STRONGEST - len(activation), 0)
    values = np.pad(np.nan_to_num(activation, nan=-1.0), ((0, missing), (0, 0)), constant_values=-1.0)
    rows = np.argpartition(-values, N_STRONGEST - 1, axis=0)[:N_STRONGEST]
    found = np.take_along_axis(values, rows, axis=0)
    order = np.lexsort((rows, -found), axis=0)
    return np.take_along_axis(np.where(found > 0, rows, -1), order, axis=0).T


def _rank_correlation(first: Floats, second: Floats) -> float:
    both = np.isfinite(first) & np.isfinite(second)
    if both.sum() < FEWEST_OBJECTS:
        return np.nan
    ranks = rankdata(first[both]), rankdata(second[both])
    if any(np.ptp(one) == 0 for one in ranks):
        return np.nan
    return float(np.corrcoef(*ranks)[0, 1])


def feature_panels(summary: FeatureSummary, quantities: Sequence[Quantity]) -> bytes:
    """Return a PNG with the features that fire together (left) and the correlation of each with the parameters (right)."""
    names = [str(number) for number in summary.number]
    titles = [quantity.short_title for quantity in quantities]
    # Of a network without a posterior there is nothing to correlate with.
    widths = [len(names), max(len(titles), 3) * 1.6] if titles else [len(names)]
    buffer = io.BytesIO()
    with styled_figure(8.0, 1.6 + 0.3 * len(names), buffer) as figure:
        left, *others = figure.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0]
        _heat_map(left, summary.together, names, color_map="Blues", lowest=0.0)
        left.set(title="fires together with", ylabel="feature")
        for right in others:
            _heat_map(right, summary.correlation, titles, color_map="RdBu_r", lowest=-1.0)
            right.set(title="rank correlation with")
        for axes in (left, *others):
            axes.set_yticks(range(len(names)), names)
    return buffer.getvalue()


def _heat_map(axes: Axes, values: Floats, columns: Sequence[str], *, color_map: str, lowest: float) -> None:
    image = axes.imshow(values, cmap=color_map, vmin=lowest, vmax=1.0, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor")
    axes.grid(visible=False)
    # The cell of a missing value is empty; the color of 0 is as light.
    luminance = _luminance(np.asarray(image.to_rgba(np.nan_to_num(values))))
    for row, column in np.ndindex(values.shape):
        value = values[row, column]
        text = "–" if np.isnan(value) else f"{value:.2f}".replace("-", "−").replace("0.", ".")
        axes.text(
            column,
            row,
            text,
            ha="center",
            va="center",
            fontsize=6.5,
            color="white" if luminance[row, column] < DARK else "black",
        )


def _luminance(colors: Floats) -> Floats:
    """Return the relative luminance (..,), from 0 to 1, of colors (.., red green blue alpha), as WCAG 2.2 defines it."""
    parts = colors[..., :3]
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return np.asarray(linear @ [0.2126, 0.7152, 0.0722])
