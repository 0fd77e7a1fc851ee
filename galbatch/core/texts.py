"""Texts for people: counts and sizes with their nouns and units, and the HTML by which notebooks show an object."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["alike_but_for_case", "continued", "counted", "fill", "html_card", "html_table", "size"]

# Everything inherits the notebook's own font and color, so that it is readable on a light and on a dark page. The element is
# not a table, as Jupyter's style sheet would color the rows of one. JupyterLab's makes labels (dt) a fifth of their column wide, which breaks
# them after each letter or two.
STYLE = """
.galbatch-card{border:1px solid rgba(128,128,128,.45);border-radius:6px;padding:.6em .9em;max-width:62em;overflow-wrap:anywhere;line-height:1.45}
.galbatch-card .title{font-weight:600;margin-bottom:.35em}
.galbatch-card dl{display:grid;grid-template-columns:minmax(6em,max-content) minmax(0,1fr);gap:.1em 1.2em;margin:0}
.galbatch-card dt,.galbatch-card dd{float:none;display:block;width:auto;margin:0;padding:0}
.galbatch-card dt{opacity:.75;font-weight:400}
.galbatch-card .wide{overflow-x:auto;margin:.5em 0}
.galbatch-card table.values{border-collapse:collapse;background:none;color:inherit;font-size:inherit;margin:0}
.galbatch-card table.values tr,.galbatch-card table.values tr:hover{background:none}
.galbatch-card table.values th,.galbatch-card table.values td{background:none;color:inherit;text-align:right;padding:.1em .8em .1em 0;white-space:nowrap;border:0}
.galbatch-card table.values th{font-weight:400;opacity:.75}
.galbatch-card table.values th:first-child,.galbatch-card table.values td:first-child,.galbatch-card table.texts th,.galbatch-card table.texts td{text-align:left}
.galbatch-card table.texts td:last-child{white-space:normal}
.galbatch-card .note{border-left:3px solid #c77d00;padding-left:.6em;margin-top:.4em}
.galbatch-card img{image-rendering:pixelated;max-width:100%;width:12em;border-radius:3px;margin-top:.4em;display:block}
"""


def counted(number: int, noun: str, nouns: str | None = None) -> str:
    """Return a number with its noun, in the plural unless the number is 1: ``1 object``, ``2 objects``; `nouns`: ``2 passes``."""
    return f"{number} {noun if number == 1 else nouns or f'{noun}s'}"


def size(n_bytes: int) -> str:
    """Return a number of bytes as text with a binary unit (KiB to TiB), such as ``1.50 GiB``."""
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.2f} {unit}"
    return f"{n_bytes / 2**10:.2f} KiB"


def alike_but_for_case(names: Sequence[str]) -> list[str]:
    """Return the names, each once and sorted, that equal another of `names`, or do but for the case of letters."""
    folded = [name.casefold() for name in names]
    return sorted({name for name, key in zip(names, folded, strict=True) if folded.count(key) > 1})


def fill(text: str, width: int) -> str:
    """Return text whose lines break between words where they are longer than `width`; a longer word stays whole.

    Broken lines go on two characters further in than they began.
    """
    lines = []
    for line in text.split("\n"):
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        broken = textwrap.wrap(
            line,
            width,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
            replace_whitespace=False,
        )
        lines += [line] if len(line) <= width else broken
    return "\n".join(lines)


def continued(command: str, width: int) -> str:
    """Return a shell command whose lines break between words, by a backslash, where they are longer than `width`."""
    if len(command) <= width:
        return command
    return " \\\n".join(fill(command, width - 2).split("\n"))


def html_card(
    title: str, rows: Iterable[tuple[str, str]], *, notes: Sequence[str] = (), blocks: Sequence[str] = ()
) -> str:
    """Return a card for a notebook as HTML: a title, rows of a label and a text, then blocks, then notes.

    Parameters
    ----------
    title : str
    rows : iterable of (str, str)
        Label and text; plain text, which is escaped.
    notes : sequence of str
        Warnings, plain text.
    blocks : sequence of str
        HTML, such as `html_table` returns.
    """
    terms = "".join(f"<dt>{escape(label)}</dt><dd>{escape(text)}</dd>" for label, text in rows)
    warned = "".join(f'<div class="note">{escape(note)}</div>' for note in notes)
    return (
        f'<style>{STYLE}</style><div class="galbatch-card"><div class="title">{escape(title)}</div>'
        f"<dl>{terms}</dl>{''.join(blocks)}{warned}</div>"
    )


def html_table(heads: Sequence[str], rows: Iterable[Sequence[object]], *, of_texts: bool = False) -> str:
    """Return a table as HTML, which scrolls sideways where the page is narrower; text is escaped.

    Parameters
    ----------
    heads : sequence of str
    rows : iterable of sequence
        None is an empty cell.
    of_texts : bool
        Whether the columns hold texts, which begin at the left; numbers end at the right, but for the first column.
    """
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape('' if text is None else str(text))}</td>" for text in row) + "</tr>"
        for row in rows
    )
    kind = "values texts" if of_texts else "values"
    return f'<div class="wide"><table class="{kind}"><tr>{head}</tr>{body}</table></div>'
