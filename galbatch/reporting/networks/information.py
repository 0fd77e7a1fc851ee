"""The table and the figure of what images add to numbers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes

from galbatch import storage
from galbatch.core.information import QUANTITIES, InformationOfBin
from galbatch.reporting.figures import BLUE, GRAY, GREEN, INK, VERMILION, styled_figure

__all__ = ["information_table", "write_information"]

PARTS = ("redundancy", "unique_image", "unique_numbers", "synergy")
PANEL_INCHES = (4.2, 3.2)
# Bars and lines reach everywhere in a panel, so its legend stands above it.
ABOVE: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}


def information_table(found: Sequence[InformationOfBin]) -> pa.Table:
    """Return a row for each bin, the first of all objects: the quantities in nats with their bootstrap errors."""
    rows = []
    for one in found:
        row = {"bins": one.name, "bin_low": one.low, "bin_high": one.high, "n": one.n}
        for name, (value, error) in one.named().items():
            row |= {name: value, f"{name}_error": error}
        rows.append({k: None if isinstance(v, float) and np.isnan(v) else v for k, v in row.items()})
    fields = [
        pa.field("bins", pa.string()),
        pa.field("bin_low", pa.float64()),
        pa.field("bin_high", pa.float64()),
    ]
    fields.append(pa.field("n", pa.int64()))
    for name, text in QUANTITIES.items():
        for suffix, of in (("", ""), ("_error", ": standard deviation over bootstrap samples")):
            metadata = {"description": f"{text}, in nats{of}"}
            fields.append(pa.field(name + suffix, pa.float64(), metadata=metadata))
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def write_information(found: Sequence[InformationOfBin], path: str, *, title: str) -> None:
    """Write a PNG: the parts of all objects by both measures of redundancy, and the informations in the bins of each quantity."""
    names = list(dict.fromkeys(one.name for one in found if one.name))
    buffer = io.BytesIO()
    width, height = PANEL_INCHES
    with styled_figure(width * (1 + len(names)), height, buffer) as figure:
        panels = figure.subplots(1, 1 + len(names), squeeze=False)[0]
        _draw_parts(panels[0], found[0])
        for axes, name in zip(panels[1:], names, strict=True):
            _draw_bins(axes, [one for one in found if one.name == name])
        figure.suptitle(f"{title}: {found[0].n:,} held-out objects", fontsize=10)
    storage.publish(path, buffer.getvalue())


def _draw_parts(axes: Axes, everything: InformationOfBin) -> None:
    """Draw redundancy, unique parts and synergy as bars, by both measures."""
    named = everything.named()
    at = np.arange(len(PARTS))
    for offset, measure, color in ((-0.2, "mmi", BLUE), (0.2, "ccs", GREEN)):
        values = [named[f"{part}_{measure}"] for part in PARTS]
        height, error = zip(*values, strict=True)
        axes.bar(at + offset, height, 0.38, yerr=error, color=color, alpha=0.7, label=measure.upper())
    axes.axhline(0, color=INK, lw=0.8)
    axes.set_xticks(at, [part.replace("_", "\n") for part in PARTS], fontsize=8)
    axes.set_ylabel("information (nats)")
    axes.legend(fontsize=7, ncols=2, **ABOVE)


def _draw_bins(axes: Axes, bins: Sequence[InformationOfBin]) -> None:
    """Draw the informations and the conditional ones in the bins of one quantity, at the bins' middles."""
    middle = [0.5 * (one.low + one.high) for one in bins]
    drawn = {
        "image": ("image", BLUE),
        "numbers": ("numbers", GREEN),
        "both": ("both", INK),
        "image_given_numbers": ("image | numbers", VERMILION),
        "numbers_given_image": ("numbers | image", GRAY),
    }
    for name, (label, color) in drawn.items():
        values, errors = zip(*(one.named()[name] for one in bins), strict=True)
        axes.errorbar(middle, values, yerr=errors, fmt="o-", ms=3.6, lw=1, color=color, label=label)
    axes.axhline(0, color=INK, lw=0.8)
    axes.set_xlabel(bins[0].name.replace("_", " "))
    axes.legend(fontsize=7, ncols=3, **ABOVE)
