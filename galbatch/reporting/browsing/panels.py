"""A panel of the page: points in a plane, as points or as their density, with what is selected and what is opened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from bokeh import events
from bokeh.models import (
    BoxSelectTool,
    ColumnDataSource,
    CustomJSTickFormatter,
    InlineStyleSheet,
    LassoSelectTool,
    LinearColorMapper,
    PanTool,
    Range1d,
    ResetTool,
    WheelZoomTool,
)
from bokeh.plotting import figure
from matplotlib.path import Path

from galbatch.reporting.browsing.density import SHADED_ABOVE, counts_in_cells, inside
from galbatch.reporting.browsing.rows import nearest_point
from galbatch.reporting.figures import BLUE, INK, RULE, VERMILION

__all__ = ["REACH", "Panel"]

Floats = npt.NDArray[np.floating]
Rows = npt.NDArray[np.intp]

REACH = 0.03
"""A click opens the nearest object within this share of the panel's width and height."""

REDRAW_MS = 60
"""While a view moves it is drawn again at most so often: a browser tells of every step."""

MARKED = 5_000
"""Most selected objects that are marked in a panel; all of them are saved."""

EDGE = 0.001
"""Share of the values left out at each end of an axis at first: one far value would squeeze all others together."""

# Panels are drawn on white. Turned over with their hues kept, they stand on a dark page.
DARK = "@media (prefers-color-scheme: dark) { :host { filter: invert(.92) hue-rotate(180deg); } }"

PALETTE = [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in np.linspace((198, 219, 239), (8, 29, 88), 64).astype(int)]

FROM_ZERO = "const d = tick < 0 ? tick + 360 : tick; return d.toFixed(Math.max(0, Math.min(6, Math.ceil(-Math.log10((ticks[1] - ticks[0]) || 1)))));"
"""Right ascensions below 0 as their angle from 0 to 360, with the digits that tell ticks apart."""


class Panel:
    """Points in a plane that one can move, select and click.

    Parameters
    ----------
    name : str
        Name of the root in the page's template.
    on_pick : callable
        Called with the row of the object that was clicked.
    on_select : callable
        Called with the rows (row,) within a box or lasso.
    """

    def __init__(self, name: str, on_pick: Callable[[int], None], on_select: Callable[[Rows], None]) -> None:
        self._on_pick, self._on_select = on_pick, on_select
        self._rows: Rows = np.zeros(0, np.intp)
        self._x: Floats = np.zeros(0)
        self._y: Floats = np.zeros(0)
        self._is_waiting = False
        box, lasso = BoxSelectTool(renderers=[]), LassoSelectTool(renderers=[], continuous=False)
        wheel = WheelZoomTool()
        self.figure = figure(
            name=name,
            height=420,
            sizing_mode="stretch_width",
            tools=[PanTool(), wheel, box, lasso, ResetTool()],
            active_scroll=wheel,
            x_range=Range1d(0, 1),
            y_range=Range1d(0, 1),
            background_fill_color=None,
            border_fill_color=None,
            outline_line_color=RULE,
            stylesheets=[InlineStyleSheet(css=DARK)],
        )
        self.figure.toolbar.logo = None
        self.figure.axis.axis_label_text_font_style = "normal"
        self.figure.axis.axis_label_text_color = self.figure.axis.major_label_text_color = INK
        self.figure.grid.grid_line_color = RULE
        self._add_layers()
        self.figure.on_event(events.RangesUpdate, lambda _: self._redraw_soon())
        self.figure.on_event(events.Tap, self._tapped)
        self.figure.on_event(events.SelectionGeometry, self._enclosed)

    def _add_layers(self) -> None:
        self._shading = ColumnDataSource({"image": [], "x": [], "y": [], "dw": [], "dh": []})
        self._points = ColumnDataSource({"x": [], "y": []})
        self._marked = ColumnDataSource({"x": [], "y": []})
        self._opened = ColumnDataSource({"x": [], "y": []})
        self._mapper = LinearColorMapper(palette=PALETTE, low=0, high=1, nan_color="rgba(0,0,0,0)")
        place = {"x": "x", "y": "y", "dw": "dw", "dh": "dh"}
        self.figure.image("image", **place, source=self._shading, color_mapper=self._mapper, level="image")
        style: dict[str, Any] = {"line_color": None, "size": 4, "fill_alpha": 0.55}
        self.figure.scatter("x", "y", source=self._points, fill_color=BLUE, **style)
        self.figure.scatter(
            "x", "y", source=self._marked, fill_color=VERMILION, **style | {"fill_alpha": 0.9}
        )
        self.figure.scatter(
            "x",
            "y",
            source=self._opened,
            size=16,
            marker="circle",
            fill_color=None,
            line_color=INK,
            line_width=2,
        )

    # --- what it shows -------------------------------------------------------------------------------------

    def show(self, x: Floats, y: Floats, labels: tuple[str, str]) -> None:
        """Show other columns (object,), from edge to edge; call `choose` after it."""
        self._all_x, self._all_y = x, y
        self.figure.xaxis.axis_label, self.figure.yaxis.axis_label = labels
        for ends, values in ((self.figure.x_range, x), (self.figure.y_range, y)):
            ends.start, ends.end = _ends(values)
            ends.update(reset_start=ends.start, reset_end=ends.end)

    def turn_x(self, *, from_zero: bool) -> None:
        """Let x grow to the left, as right ascensions do; with `from_zero` ticks below 0 are written as angles below 360."""
        ends = self.figure.x_range
        ends.update(start=ends.end, end=ends.start)
        ends.update(reset_start=ends.start, reset_end=ends.end)
        if from_zero:
            self.figure.xaxis.formatter = CustomJSTickFormatter(code=FROM_ZERO)

    def choose(self, rows: Rows) -> None:
        """Show these rows (row,) only, of those that have both values."""
        has_both = np.isfinite(self._all_x[rows]) & np.isfinite(self._all_y[rows])
        self._rows = rows[has_both]
        self._x, self._y = self._all_x[self._rows], self._all_y[self._rows]
        self.redraw()

    def redraw(self) -> None:
        """Show what is in view: points, or their density where there are more than `SHADED_ABOVE`."""
        x_ends, y_ends = self._view()
        there = inside(self._x, self._y, x_ends, y_ends)
        n = int(np.count_nonzero(there))
        x, y = self._x[there], self._y[there]
        if n <= SHADED_ABOVE:
            self._points.data = {"x": x, "y": y}
            self._shading.data = {"image": [], "x": [], "y": [], "dw": [], "dh": []}
            return
        # By logarithm: the densest cells have thousands of objects where others have one.
        image = np.log10(counts_in_cells(x, y, x_ends, y_ends))
        self._mapper.update(low=0.0, high=max(float(np.nanmax(image)), 0.1))
        self._points.data = {"x": [], "y": []}
        self._shading.data = {
            "image": [image],
            "x": [x_ends[0]],
            "y": [y_ends[0]],
            "dw": [x_ends[1] - x_ends[0]],
            "dh": [y_ends[1] - y_ends[0]],
        }

    def mark(self, rows: Rows) -> None:
        """Mark selected rows (row,), `MARKED` at most."""
        some = rows if len(rows) <= MARKED else rows[:: -(-len(rows) // MARKED)]
        self._marked.data = {"x": self._all_x[some], "y": self._all_y[some]}

    def mark_opened(self, row: int) -> None:
        """Mark the row whose object is opened."""
        self._opened.data = {"x": self._all_x[[row]], "y": self._all_y[[row]]}

    def _view(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return low and high end of x and of y in view."""
        ends = [sorted((one.start, one.end)) for one in (self.figure.x_range, self.figure.y_range)]
        return (ends[0][0], ends[0][1]), (ends[1][0], ends[1][1])

    # --- what comes from the browser -----------------------------------------------------------------------

    def _redraw_soon(self) -> None:
        if self._is_waiting:
            return
        self._is_waiting = True

        def now() -> None:
            self._is_waiting = False
            self.redraw()

        self.figure.document.add_timeout_callback(now, REDRAW_MS)

    def _tapped(self, event: Any) -> None:
        (left, right), (low, high) = self._view()
        spans = (right - left, high - low)
        found = nearest_point(self._x, self._y, (event.x, event.y), spans, reach=REACH)
        if found is not None:
            self._on_pick(int(self._rows[found]))

    def _enclosed(self, event: Any) -> None:
        drawn = event.geometry
        if not event.final:
            return
        if drawn["type"] == "rect":
            x_ends, y_ends = sorted((drawn["x0"], drawn["x1"])), sorted((drawn["y0"], drawn["y1"]))
            there = inside(self._x, self._y, (x_ends[0], x_ends[1]), (y_ends[0], y_ends[1]))
        else:
            corners = np.stack([np.asarray(drawn["x"], float), np.asarray(drawn["y"], float)], axis=1)
            there = Path(corners).contains_points(np.stack([self._x, self._y], axis=1))
        self._on_select(self._rows[there])


def _ends(values: Floats) -> tuple[float, float]:
    """Return the ends of an axis for some values: all but `EDGE` at either end, with a margin of 3 %."""
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0, 1.0
    # Of a few values none is left out.
    edge = EDGE if len(known) > SHADED_ABOVE else 0.0
    low, high = (float(end) for end in np.quantile(known, [edge, 1 - edge]))
    margin = 0.03 * (high - low) or 0.05 * abs(low) or 1.0
    return low - margin, high + margin
