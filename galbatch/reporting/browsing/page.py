"""The page of a catalog: a map of the sky and a scatter of two columns, filtered by flags; what is clicked and selected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt
from bokeh.document import Document
from markupsafe import escape

from galbatch.core.columns import DEC, ID, RA
from galbatch.errors import GalbatchError
from galbatch.reporting.browsing.controls import Controls, styled_div
from galbatch.reporting.browsing.details import N_SIMILAR, corner_html, object_html, similar_html
from galbatch.reporting.browsing.panels import Panel
from galbatch.reporting.browsing.rows import BrowsedRows
from galbatch.reporting.browsing.saving import save_selection

__all__ = ["BrowsePage"]

Floats = npt.NDArray[np.floating]
Rows = npt.NDArray[np.intp]

HINT = "<p class='soft'>Click an object on the map or in the scatter to see it here.</p>"


class BrowsePage:
    """One opened page; a second window has its own.

    Parameters
    ----------
    rows : BrowsedRows
    store : str
        Cutout store.
    selection : str
        File for selections; see `galbatch.reporting.browsing.saving.save_selection`.
    """

    def __init__(self, rows: BrowsedRows, store: str, selection: str) -> None:
        self._rows, self._store, self._selection = rows, store, selection
        self._selected: Rows = np.zeros(0, np.intp)
        self._opened: int | None = None
        self._shown: Rows = np.arange(len(rows))
        self._controls = Controls.make(rows)
        self._sky = Panel("sky", self._open, self._select)
        self._scatter = Panel("scatter", self._open, self._select)
        self._counts, self._saved = styled_div("counts"), styled_div("saved")
        self._object, self._posterior = styled_div("object", HINT), styled_div("posterior")
        self._similar = styled_div("similar")

    def add_to(self, document: Document) -> None:
        """Fill a new document: widgets, panels and the page's template."""
        # Bokeh subscribes to the events of a button when it joins the document, and to none that come later.
        self._listen()
        named = (self._counts, self._saved, self._object, self._similar, self._posterior)
        for root in (*self._controls.roots, self._sky.figure, self._scatter.figure, *named):
            document.add_root(root)
        loader = jinja2.PackageLoader("galbatch.reporting")
        environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
        document.template = environment.get_template("browse.html")
        document.template_variables.update(path=self._rows.catalog.path, n_objects=len(self._rows))
        document.title = f"galbatch: {self._rows.catalog.path}"
        self._document = document
        self._sky.show(self._rows.values(RA.name), self._rows.values(DEC.name), (
            "right ascension (deg), east to the left", "declination (deg)",
        ))  # fmt: skip
        self._sky.turn_x(from_zero=self._rows.ra_turns)
        self._show_columns()

    def _listen(self) -> None:
        widgets = self._controls
        for one in (widgets.x_column, widgets.y_column):
            one.on_change("value", self._changed(self._show_columns))
        for one in (widgets.x_log, widgets.y_log):
            one.on_change("active", self._changed(self._show_columns))
        for one in (widgets.flags, widgets.flags_are):
            one.on_change("active", self._changed(self._filter))
        widgets.usable.on_click(self._check_quality)
        widgets.clear.on_click(lambda: self._set_selected(np.zeros(0, np.intp)))
        widgets.save.on_click(self._save)
        widgets.go_to.on_change("value", self._changed(self._go_to))
        widgets.neighbors.on_change("active", self._changed(self._go_to_neighbor))

    def _changed(self, then: Callable[[], None]) -> Callable[[str, Any, Any], None]:
        """Return a callback of a property that says what goes wrong on the page."""

        def callback(attribute: str, old: Any, new: Any) -> None:
            try:
                then()
            except GalbatchError as error:
                self._say(str(error))

        return callback

    # --- what is shown -------------------------------------------------------------------------------------

    def _show_columns(self) -> None:
        widgets = self._controls
        chosen = [
            self._axis(widgets.x_column.value, is_log=bool(widgets.x_log.active)),
            self._axis(widgets.y_column.value, is_log=bool(widgets.y_log.active)),
        ]
        self._scatter.show(chosen[0][0], chosen[1][0], (chosen[0][1], chosen[1][1]))
        self._filter()

    def _axis(self, column: str, *, is_log: bool) -> tuple[Floats, str]:
        """Return values (object,) and label of an axis; a logarithm of 0 or less is NaN."""
        values, label = self._rows.values(column), self._rows.label(column)
        if not is_log:
            return values, label
        return np.log10(np.where(values > 0, values, np.nan)), f"log10 {label}"

    def _filter(self) -> None:
        widgets = self._controls
        chosen = [self._rows.raised[index] for index in widgets.flags.active]
        mask = self._rows.shown(chosen, only=widgets.flags_are.active == 1)
        self._shown = np.flatnonzero(mask)
        for panel in (self._sky, self._scatter):
            panel.choose(self._shown)
            panel.mark(self._selected)
            if self._opened is not None:
                panel.mark_opened(self._opened)
        self._count()

    def _check_quality(self) -> None:
        of_quality = self._rows.quality_flags
        self._controls.flags_are.active = 0
        self._controls.flags.active = [
            index for index, one in enumerate(self._rows.raised) if one in of_quality
        ]

    def _count(self) -> None:
        self._counts.text = (
            f"<p><b data-name='shown'>{len(self._shown):,}</b> of {len(self._rows):,} objects shown, "
            f"<b data-name='selected'>{len(self._selected):,}</b> selected</p>"
        )

    def _say(self, text: str) -> None:
        self._saved.update(text="")
        self._saved.update(text=f"<p data-name='said'>{escape(text)}</p>")

    # --- what is selected ----------------------------------------------------------------------------------

    def _select(self, rows: Rows) -> None:
        before = self._selected
        mode = self._controls.mode.active
        chosen = (rows, np.union1d(before, rows), np.setdiff1d(before, rows))[mode]
        self._set_selected(chosen)

    def _set_selected(self, rows: Rows) -> None:
        self._selected = np.sort(rows)
        self._sky.mark(self._selected)
        self._scatter.mark(self._selected)
        self._count()

    def _save(self) -> None:
        if not len(self._selected):
            self._say("nothing is selected: draw a box or a lasso, by the buttons beside a panel")
            return
        try:
            path = save_selection(self._selection, self._rows.listed(self._selected))
        except (GalbatchError, OSError) as error:
            self._say(f"not saved: {error}")
            return
        self._say(f"{len(self._selected):,} ids saved: {path}")

    # --- what is opened ------------------------------------------------------------------------------------

    def _go_to(self) -> None:
        wanted = self._controls.go_to.value.strip()
        if wanted:
            self._open(self._rows.row_of(wanted))

    def _open(self, row: int) -> None:
        self._opened = row
        for panel in (self._sky, self._scatter):
            panel.mark_opened(row)
        object_id = self._rows.ids(np.array([row]))[0]
        self._similar.text = ""
        self._controls.neighbors.visible = False
        self._posterior.text = "<p class='soft'>drawing its posterior ..</p>"
        try:
            one = self._rows.catalog.object(object_id)
            self._object.text = object_html(one, self._store)
        except GalbatchError as error:
            self._object.text = f"<p>{escape(str(error))}</p>"
        # The corner plot takes a second: pictures and values are seen before it.
        self._document.add_next_tick_callback(lambda: self._draw_posterior(row, object_id))

    def _draw_posterior(self, row: int, object_id: int | str) -> None:
        # Another object may have been clicked meanwhile.
        if row == self._opened:
            self._posterior.text = corner_html(self._rows.catalog.path, object_id)
            if self._rows.embedded is not None:
                self._document.add_next_tick_callback(lambda: self._show_similar(row, object_id))

    def _show_similar(self, row: int, object_id: int | str) -> None:
        if row != self._opened:
            return
        model = self._rows.embedded
        try:
            found = self._rows.catalog.similar(object_id, N_SIMILAR, model=model)
        except GalbatchError as error:
            self._similar.text = f"<p class='soft'>{escape(str(error))}</p>"
            return
        pictures = similar_html(found, self._rows.catalog.path, self._store)
        self._similar.text = f"<h3>Nearest in the embedding of {escape(str(model))}</h3>{pictures}"
        ids = [str(one) for one in found[ID.name]]
        self._controls.neighbors.update(labels=ids, active=None, visible=True)

    def _go_to_neighbor(self) -> None:
        widget = self._controls.neighbors
        if widget.active is not None:
            self._open(self._rows.row_of(widget.labels[widget.active]))
