"""Make the tables of a network beside those of GaMPEN's paper, from the results of benchmarks/paper_tables.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"

NETWORK = "quarter_width"

NAMES = {"bt": "B/T", "re_arcsec": "R_e", "flux_njy": "flux"}

RESIDUALS = {
    "bt": "B/T: typical error",
    "re_arcsec": "R_e: typical error, arcsec",
    "re_arcsec, percent": "R_e: typical error, percent",
    "re_arcsec, R^2": "R_e: R^2",
    "flux_njy": "flux: typical error, nJy",
    "flux_njy, percent": "flux: typical error, percent",
    "mag": "magnitude: typical error, mag",
    "mag, R^2": "magnitude: R^2",
}


def _results() -> dict[str, Any]:
    content = json.loads((RESULTS / f"paper_tables_of_{NETWORK}.json").read_text(encoding="utf-8"))
    return dict(content)


def paper_coverage() -> str:
    """Return table 2 of the paper with the network's coverage beside it, as trained and corrected."""
    rows = _results()["table_2"]
    levels = sorted({row["level"] for row in rows})
    lines = ["| | |" + "".join(f" {level} % |" for level in levels), "|---" * (2 + len(levels)) + "|"]
    for name, what in NAMES.items():
        of_name = [row for row in rows if row["parameter"] == name]
        published = {row["level"]: row["paper"] for row in of_name}
        lines.append(f"| {what} | the paper |" + "".join(f" {published[level]:g} |" for level in levels))
        for posterior in ("as trained", "corrected"):
            found = {row["level"]: row for row in of_name if row["posterior"] == posterior}
            cells = "".join(
                f" {found[level]['here']:.1f} ± {found[level]['error']:.1f} |" for level in levels
            )
            lines.append(f"| | here, {posterior} |{cells}")
    return "\n".join(lines)


def paper_residuals() -> str:
    """Return the typical errors and R^2 of the paper's figure 12 with the network's beside them."""
    rows = {row["quantity"]: row for row in _results()["figure_12"]}
    lines = ["| | the paper | here |", "|---|---|---|"]
    lines += [
        f"| {what} | {rows[name]['paper']:g} | {rows[name]['here']:g} |" for name, what in RESIDUALS.items()
    ]
    return "\n".join(lines)
