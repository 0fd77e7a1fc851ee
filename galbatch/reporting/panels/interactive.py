"""Sky map, medians and residuals as linked panels of Bokeh, whose code and data are inside the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from bokeh.embed import components
from bokeh.layouts import column
from bokeh.models import (
    ColumnDataSource,
    CustomJS,
    HoverTool,
    InlineStyleSheet,
    Select,
)
from bokeh.plotting import figure
from bokeh.resources import Resources

from galbatch.reporting.contents import Contents, Quantity
from galbatch.reporting.figures import BLUE, INK, RULE, VERMILION
from galbatch.reporting.recovery import Comparison

__all__ = ["SAMPLED", "Interactive", "interactive_panels"]

Floats = npt.NDArray[np.float64]

SAMPLED = 5_000
"""Most objects in the panels: with all numbers of each they take half a megabyte of the page."""

TOOLS = "pan,wheel_zoom,box_select,lasso_select,tap,reset"

# Drawn on white, as all figures; turned over with their hues kept on a dark page.
DARK = "@media (prefers-color-scheme: dark) { :host { filter: invert(.92) hue-rotate(180deg); } } @media print { :host { filter: none; } }"

LIST_STYLE = """
:host, label { color: var(--ink); font: 14px/1.4 system-ui, "DejaVu Sans", sans-serif; }
.bk-input { background: var(--paper); color: var(--ink); border: 1px solid var(--soft); font: inherit; }
"""

SHOW_COLUMN = """
for (const glyph of glyphs) glyph[axis] = {field: this.value};
label.axis_label = names[this.value];
points.data_source.change.emit();
"""


@dataclass(frozen=True, slots=True)
class Interactive:
    """HTML of the panels, Bokeh's own code in front of them, and how many objects they show."""

    resources: str
    script: str
    panels: tuple[str, ...]
    n_shown: int


def interactive_panels(contents: Contents, comparisons: Sequence[Comparison]) -> Interactive | None:
    """Return the linked panels of a sample of the objects; None without objects or quantities.

    What is selected in one panel is selected in all. Two lists choose what is drawn across and up; the residuals against
    the truth are there where there are `comparisons`. The sample is the same in each report.
    """
    quantities = [one for one in contents.quantities if np.isfinite(one.median).any()]
    if not quantities:
        return None
    rows = np.sort(np.random.default_rng(0).permutation(len(contents))[:SAMPLED])
    source = ColumnDataSource(_columns(contents, quantities, comparisons, rows))
    labels = {f"q{number}": f"{one.model}: {one.label}" for number, one in enumerate(quantities)}
    roots = [
        _sky_panel(source),
        _chosen_panel(source, "medians", labels, ("q0", list(labels)[1 % len(labels)])),
    ]
    if comparisons:
        truths = {f"t{number}": f"true {one.quantity.label}" for number, one in enumerate(comparisons)}
        residuals = {
            f"r{number}": f"{one.quantity.model}: {one.quantity.label}, median − truth"
            for number, one in enumerate(comparisons)
        }
        roots.append(_chosen_panel(source, "residuals", truths | residuals, ("t0", "r0")))
    script, divs = components(tuple(roots))
    inline = Resources(mode="inline", components=["bokeh", "bokeh-widgets"]).render()
    return Interactive(inline, script, tuple(divs), len(rows))


def _columns(
    contents: Contents,
    quantities: Sequence[Quantity],
    comparisons: Sequence[Comparison],
    rows: npt.NDArray[np.intp],
) -> dict[str, Any]:
    """Return the columns of the panels for some rows: medians as q0, q1, .., truths as t0, .., residuals as r0, .."""
    spoiled = ~contents.clean[rows]
    found: dict[str, Any] = {
        "id": [str(contents.object_id[row]) for row in rows],
        "ra": contents.ra_deg[rows],
        "dec": contents.dec_deg[rows],
        "color": np.where(spoiled, VERMILION, BLUE),
    }
    for number, one in enumerate(quantities):
        found[f"q{number}"] = one.median[rows].astype(np.float32)
    for number, compared in enumerate(comparisons):
        values = np.full((2, len(contents)), np.nan, np.float32)
        if compared.rows is not None:
            values[:, compared.rows] = compared.truth, compared.quantity.median - compared.truth
        found[f"t{number}"], found[f"r{number}"] = values[:, rows]
    return found


def _panel(source: ColumnDataSource, across: str, up: str, labels: tuple[str, str]) -> tuple[Any, Any]:
    """Return an empty-handed figure and its points."""
    panel = figure(
        height=360,
        sizing_mode="stretch_width",
        tools=TOOLS,
        active_drag=None,
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=RULE,
        x_axis_label=labels[0],
        y_axis_label=labels[1],
        stylesheets=[InlineStyleSheet(css=DARK)],
    )
    panel.toolbar.logo = None
    panel.axis.axis_label_text_font_style = "normal"
    panel.axis.axis_label_text_color = panel.axis.major_label_text_color = INK
    style = {"size": 5, "fill_color": "color", "line_color": None, "fill_alpha": 0.6}
    points = panel.scatter(across, up, source=source, nonselection_fill_alpha=0.06, **style)
    panel.add_tools(
        HoverTool(tooltips=[("id", "@id"), ("ra, dec", "@ra{0.00000} @dec{0.00000}")], renderers=[points])
    )
    return panel, points


def _sky_panel(source: ColumnDataSource) -> Any:
    panel, _ = _panel(source, "ra", "dec", ("right ascension (deg), east to the left", "declination (deg)"))
    panel.x_range.flipped = True
    # Right ascensions have six digits: more ticks would touch.
    panel.xaxis.ticker.desired_num_ticks = 4
    return panel


def _chosen_panel(
    source: ColumnDataSource, title: str, labels: dict[str, str], first: tuple[str, str]
) -> Any:
    """Return a panel of two columns with lists, by which the reader chooses others; `labels` are their names by column."""
    panel, points = _panel(source, *first, (labels[first[0]], labels[first[1]]))
    lists = []
    for axis, name, drawn in zip(("x", "y"), first, (panel.xaxis[0], panel.yaxis[0]), strict=True):
        choice = Select(
            title=f"{title}, {'across' if axis == 'x' else 'up'}", value=name, options=list(labels.items())
        )
        choice.stylesheets = [InlineStyleSheet(css=LIST_STYLE)]
        choice.sizing_mode = "stretch_width"
        glyphs = [points.glyph, points.nonselection_glyph]
        arguments = {"glyphs": glyphs, "axis": axis, "label": drawn, "names": labels, "points": points}
        choice.js_on_change("value", CustomJS(args=arguments, code=SHOW_COLUMN))
        lists.append(choice)
    return column(panel, *lists, sizing_mode="stretch_width")
