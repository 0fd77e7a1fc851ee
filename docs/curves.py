"""Make the figure and the tables of the quality flags' thresholds, from the results of benchmarks/spoiled.py and second_opinion.py."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"

BUNDLES = {"demo:gampen_survey": "demo_gampen_survey", "demo:gampen": "demo_gampen"}
"""The networks of the figure, and the names of their results."""

ALL = "any quality flag"
CLEAN_LIMIT, MOVED_LIMIT = 0.05, 0.95
"""What the default cut should keep of clean objects, and should take of the moved ones."""

IN_TABLE = (0.5, 0.7, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0)


def spoiled_curves() -> str:
    """Return the figure and the table of the shares of clean and of moved objects that carry a flag, by the factor on the thresholds."""
    curves = {name: results(of)["curves"] for name, of in BUNDLES.items()}
    lines = [figure(curves), "", "| thresholds times |" + "".join(f" {factor:g} |" for factor in IN_TABLE)]
    lines.append("|---" * (1 + len(IN_TABLE)) + "|")
    for name, one in curves.items():
        for what in ("clean", "moved"):
            shares = dict(zip(one["factors"], one[ALL][what], strict=True))
            cells = "".join(f" {100 * shares[factor]:.1f} |" for factor in IN_TABLE)
            lines.append(f"| `{name}`: {what} objects with a quality flag, percent |{cells}")
    return "\n".join(lines)


def results(name: str) -> dict[str, Any]:
    """Return the results of one network as the benchmark wrote them."""
    content = json.loads((RESULTS / f"spoiled_images_of_{name}.json").read_text(encoding="utf-8"))
    return dict(content)


def false_alarms() -> str:
    """Return the table of the shares of fresh galaxies above the limits of the second opinion, by the false-alarm rate that is stated."""
    lines = []
    for name in ("demo:gampen", "demo:gampen_survey", "demo:sfnet"):
        path = RESULTS / f"false_alarms_of_the_second_opinion_of_{name.replace(':', '_')}.json"
        rows = json.loads(path.read_text(encoding="utf-8"))["rates"]
        if not lines:
            lines.append("| stated, percent |" + "".join(f" {100 * row['stated']:g} |" for row in rows))
            lines.append("|---" * (1 + len(rows)) + "|")
        cells = "".join(f" {100 * row['found']:.2f} ± {100 * row['error']:.2f} |" for row in rows)
        lines.append(f"| `{name}` |{cells}")
    return "\n".join(lines)


def figure(curves: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the curves of each network as an image, in one line of HTML."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # The same bytes at each build.
    with mpl.rc_context({"svg.hashsalt": "galbatch", "font.size": 9}):
        drawing = Figure(figsize=(7.2, 3.4), layout="constrained")
        panels = drawing.subplots(1, len(curves), sharey=True, squeeze=False)[0]
        for panel, (name, one) in zip(panels, curves.items(), strict=True):
            _draw(panel, name, one)
        panels[0].set_ylabel("moved objects with a flag, percent")
        drawing.legend(
            *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False
        )
        image = io.BytesIO()
        drawing.savefig(image, format="svg", metadata={"Date": None})
    data = base64.b64encode(image.getvalue()).decode("ascii")
    text = (
        "Share of moved objects with a flag against the share of clean objects with one, as all thresholds are scaled together, for "
        + " and ".join(curves)
    )
    return f'<img alt="{text}; the table below has the numbers" src="data:image/svg+xml;base64,{data}">'


def _draw(panel: Any, name: str, one: Mapping[str, Any]) -> None:
    """Draw the curves of one network."""
    at_default = one["factors"].index(1.0)
    for flag, shares in one.items():
        if flag == "factors":
            continue
        x, y = ([100 * value for value in shares[what]] for what in ("clean", "moved"))
        style = {"color": "black", "linewidth": 1.8} if flag == ALL else {"linewidth": 1.0}
        (line,) = panel.plot(x, y, label=flag, **style)
        panel.plot(x[at_default], y[at_default], "o", color=line.get_color(), markersize=4)
    panel.axvline(100 * CLEAN_LIMIT, color="gray", linestyle=":", linewidth=0.8)
    panel.axhline(100 * MOVED_LIMIT, color="gray", linestyle=":", linewidth=0.8)
    panel.set_xscale("symlog", linthresh=1.0)
    panel.set_xlim(-0.05, 100)
    panel.set_ylim(0, 101)
    panel.set_xticks([0, 1, 3, 10, 30, 100], ["0", "1", "3", "10", "30", "100"])
    panel.set_xlabel("clean objects with a flag, percent")
    panel.set_title(name, fontsize=9)
