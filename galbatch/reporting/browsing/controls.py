"""The widgets of the page, in its style: what is drawn, which flags filter, what is done with a selection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bokeh.models import (
    Button,
    CheckboxGroup,
    Div,
    InlineStyleSheet,
    RadioButtonGroup,
    Select,
    TextInput,
)

from galbatch.reporting.browsing.rows import BrowsedRows

__all__ = ["LEFT_OUT", "MODES", "Controls", "styled_div"]

# Widgets live in shadow roots, where the page's own rules do not hold; its custom properties do.
STYLE = """
:host, .bk-input-group label, label { color: var(--ink); font: 15px/1.45 system-ui, "DejaVu Sans", sans-serif; }
.bk-input, input[type=text], select { background: var(--paper); color: var(--ink); border: 1px solid var(--rule); font: inherit; }
:host { margin-inline: 0; } label { white-space: normal; overflow-wrap: anywhere; }
.bk-btn, .bk-btn-default { padding: .35rem .5rem; background: var(--paper); color: var(--ink); border: 1px solid var(--edge); font: inherit; }
.bk-btn-group { flex-wrap: wrap; } .bk-btn.bk-active { background: var(--blue); color: var(--paper); }
"""
DIV_STYLE = """
:host { color: var(--ink); font: 15px/1.45 system-ui, "DejaVu Sans", sans-serif; }
h2 { font-size: 1.15rem; margin: 0; overflow-wrap: anywhere; } h3 { font-size: 1rem; margin: 1rem 0 .2rem; }
p { margin: .15rem 0 .5rem; } .soft, figcaption, th { color: var(--soft); font-size: .9rem; font-weight: 400; overflow-wrap: anywhere; }
.bk-clearfix { width: 100%; } :host { margin-inline: 0; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: .6rem; margin: .6rem 0; }
figure { margin: 0; } .picture { position: relative; } .picture img { display: block; width: 100%; image-rendering: pixelated; border-radius: 4px; }
svg.marks { position: absolute; inset: 0; width: 100%; height: 100%; }
.corners { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: .8rem; } .corners img { width: 100%; max-width: 34rem; }
@media (prefers-color-scheme: dark) { .corners img { filter: invert(.92) hue-rotate(180deg); } }
ul.flags { list-style: none; padding: 0; margin: .2rem 0; } ul.flags li { margin: .25rem 0; } b.quality { color: var(--vermilion); }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { text-align: right; padding: .12rem .9rem .12rem 0; white-space: nowrap; } td:first-child, th:first-child { text-align: left; }
"""

LEFT_OUT = ("left out", "the only ones")
MODES = ("replaces", "adds", "takes away")


def styled_div(name: str, text: str = "") -> Any:
    """Return a Div in the page's style, as the root `name` of its template."""
    return Div(
        name=name, text=text, sizing_mode="stretch_width", stylesheets=[InlineStyleSheet(css=DIV_STYLE)]
    )


@dataclass(frozen=True, slots=True)
class Controls:
    """All widgets. Each is a root of the document, with the name of its attribute."""

    x_column: Any
    y_column: Any
    x_log: Any
    y_log: Any
    flags: Any
    flags_are: Any
    usable: Any
    mode: Any
    clear: Any
    save: Any
    go_to: Any
    neighbors: Any

    @classmethod
    def make(cls, rows: BrowsedRows) -> Controls:
        """Return the widgets for a catalog, with its columns and the flags that its objects have."""
        x, y = rows.first_columns
        return cls(
            x_column=_made(Select, "x_column", title="across", value=x, options=rows.plottable),
            y_column=_made(Select, "y_column", title="up", value=y, options=rows.plottable),
            x_log=_made(CheckboxGroup, "x_log", labels=["by logarithm"]),
            y_log=_made(CheckboxGroup, "y_log", labels=["by logarithm"]),
            flags=_made(CheckboxGroup, "flags", labels=[one.label for one in rows.raised]),
            flags_are=_made(RadioButtonGroup, "flags_are", labels=list(LEFT_OUT), active=0),
            usable=_made(Button, "usable", label="Check all quality flags"),
            mode=_made(RadioButtonGroup, "mode", labels=list(MODES), active=0),
            clear=_made(Button, "clear", label="Clear"),
            save=_made(Button, "save", label="Save ids"),
            go_to=_made(TextInput, "go_to", title="Open the object with this id"),
            neighbors=_made(RadioButtonGroup, "neighbors", labels=[], visible=False),
        )

    @property
    def roots(self) -> list[Any]:
        """All widgets, in the order of their names here."""
        return [getattr(self, name) for name in self.__slots__]


def _made(kind: Any, name: str, **options: Any) -> Any:
    return kind(name=name, sizing_mode="stretch_width", stylesheets=[InlineStyleSheet(css=STYLE)], **options)
