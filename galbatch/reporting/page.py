"""The report page: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galbatch import storage
from galbatch.core.flags import CatalogFlag, ModelFlag, PixelFlag
from galbatch.objects import read_table
from galbatch.reporting.contents import Contents, Quantity, read_contents
from galbatch.reporting.figures import distributions, recovery_panels, sky_map
from galbatch.reporting.gallery import Picture, choose_pictures
from galbatch.reporting.recovery import Comparison, compare

__all__ = ["write_report"]


WIDTH_REM = 16.6  # of one column of the distributions
AUDIT_LEVELS = "; at "  # begins the audit's numbers of each quantile, which the properties have and the page has no room for


@dataclass(frozen=True, slots=True)
class FlagLine:
    """A line of a flag table; `counts` has (objects, their share) for each column of flags."""

    name: str
    counts: list[tuple[int, float]]
    meaning: str

    @property
    def fired(self) -> bool:
        """Whether any object has it."""
        return any(n for n, _ in self.counts)


def write_report(
    catalog_path: str, output: str, *, truth: str | None = None, store: str | None = None
) -> None:
    """Write a report page about a catalog: one HTML file with all figures inside.

    Parameters
    ----------
    catalog_path
        A HATS catalog that galbatch wrote; it may be incomplete.
    output
        The page, local or s3://; what is there is replaced.
    truth
        Truth table of a simulated survey: adds the comparison of truth and posterior.
    store
        Cutout store: adds the gallery.

    Raises
    ------
    CatalogError
        There is no catalog at `catalog_path`.
    ObjectListError
        The truth table cannot be read.
    OutputError
        The page cannot be written.
    """
    contents = read_contents(catalog_path)
    true_values = None if truth is None else read_table(truth)
    comparisons = [] if true_values is None else compare(contents, true_values)
    clean, flagged = ([], []) if store is None else choose_pictures(store, contents)
    page = (
        _environment()
        .get_template("report.html")
        .render(
            contents=contents,
            facts=_facts(contents),
            provenance=_provenance(contents),
            sky=_embedded(sky_map(contents)),
            pixel_flags=_flag_lines([contents.flags], PixelFlag),
            model_flags=_flag_lines(list(contents.model_flags.values()), ModelFlag),
            models=[_model(contents, model, comparisons) for model in contents.model_flags],
            recovery=[_recovery(comparison) for comparison in comparisons if len(comparison.truth)],
            clean=[_card(contents, picture, true_values) for picture in clean],
            flagged=[_card(contents, picture, true_values) for picture in flagged],
        )
    )
    storage.publish(output, page.encode())


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("galbatch.reporting"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["count"] = lambda n: f"{n:,}"
    environment.filters["percent"] = lambda share: "–" if math.isnan(share) else f"{100 * share:.1f} %"
    environment.filters["fixed"] = lambda number: "–" if math.isnan(number) else f"{number:.3f}"
    return environment


def _embedded(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _facts(contents: Contents) -> list[tuple[str, str]]:
    """The few numbers at the top: (value, what it is)."""
    spoiled = float((~contents.clean).mean()) if len(contents) else 0.0
    facts = [(f"{len(contents):,}", "objects"), (str(len(contents.model_flags)), "networks")]
    if passes := [values[values > 0] for values in contents.passes.values()]:
        used = np.concatenate(passes)
        if len(used):
            span = "" if used.min() == used.max() else f", median of {used.min():,} to {used.max():,}"
            facts.append((f"{np.median(used):g}", f"passes an object{span}"))
    return [*facts, (f"{100 * spoiled:.1f} %", "with spoiled pixels")]


def _provenance(contents: Contents) -> list[tuple[str, str]]:
    """What the catalog's properties say of its making, most telling first."""
    wanted = {
        "hats_creation_date": "written",
        "galbatch_version": "galbatch",
        "galbatch_method": "posterior",
        "galbatch_passes": "passes",
        "galbatch_seed": "seed",
        "galbatch_fingerprint": "fingerprint",
    }
    found = [(title, contents.properties[key]) for key, title in wanted.items() if key in contents.properties]
    of_models = [
        (f"{what} of {key.removeprefix(prefix)}", value.partition(AUDIT_LEVELS)[0])
        for what in ("audit", "engine", "bundle")
        for key, value in contents.properties.items()
        if key.startswith(prefix := f"galbatch_{what}_")
    ]
    return [("catalog", contents.path), *found, *of_models]


def _flag_lines(columns: Sequence[npt.NDArray[np.int32]], flags: type[CatalogFlag]) -> list[FlagLine]:
    """Count each flag in each column, those that no object has included."""
    lines = []
    for flag in flags:
        raised = [(column & int(flag)) != 0 for column in columns]
        lines.append(
            FlagLine(str(flag.name), [(int(has.sum()), float(has.mean())) for has in raised], flag.text)
        )
    return lines


def _model(contents: Contents, model: str, comparisons: Sequence[Comparison]) -> dict[str, Any]:
    quantities = contents.of_model(model)
    truths = [comparison for comparison in comparisons if comparison.quantity.model == model]
    with_values = (
        np.any([np.isfinite(quantity.median) for quantity in quantities], axis=0) if quantities else []
    )
    return {
        "name": model,
        "n_with_values": int(np.sum(with_values)),
        "figure": _embedded(distributions(quantities, truths)) if quantities else None,
        "width_rem": WIDTH_REM * len(quantities),
    }


def _recovery(comparison: Comparison) -> dict[str, Any]:
    summary = comparison.summary()
    digits = _digits(summary.scatter, summary.scatter)
    return {
        "summary": summary,
        # Of the residual only what is not small against the scatter.
        "residual": f"{round(summary.median_residual, digits) + 0.0:,.{digits}f}".replace("-", "−"),
        "scatter": f"{summary.scatter:,.{digits}f}",
        "quantity": comparison.quantity,
        "figure": _embedded(recovery_panels(comparison)),
    }


def _card(contents: Contents, picture: Picture, truth: pa.Table | None) -> dict[str, Any]:
    """A picture with what the catalog, and the truth, say of its object."""
    row = picture.row
    names = [str(bit.name) for bit in PixelFlag if contents.flags[row] & int(bit)]
    for model, flags in contents.model_flags.items():
        names += [f"{model}: {bit.name}" for bit in ModelFlag if flags[row] & int(bit)]
    identity = contents.object_id[row]
    true_row = (
        [] if truth is None else truth.filter(pa.compute.equal(truth["object_id"], identity)).to_pylist()
    )
    return {
        "id": identity,
        "image": _embedded(picture.png),
        "flags": names,
        "lines": [
            line
            for quantity in _captioned(contents)
            if (line := _caption(quantity, row, true_row[0] if true_row else {})) is not None
        ],
    }


def _captioned(contents: Contents) -> list[Quantity]:
    """A flux goes untold where its magnitude is there."""
    has_magnitude = {quantity.model for quantity in contents.quantities if quantity.parameter == "mag"}
    return [
        quantity
        for quantity in contents.quantities
        if not (quantity.parameter == "flux_njy" and quantity.model in has_magnitude)
    ]


def _caption(quantity: Quantity, row: int, truth: dict[str, Any]) -> dict[str, str] | None:
    median = float(quantity.median[row])
    if not math.isfinite(median):
        return None
    true = truth.get(quantity.parameter)
    if true is None and quantity.parameter == "mag":
        true = truth.get("mag_g")
    ends = quantity.interval(0.6827)
    if ends is None or not math.isfinite(ends[1][row] - ends[0][row]):
        return {
            "name": quantity.short_title,
            "value": f"{median:.3g}",
            "up": "",
            "down": "",
            "unit": quantity.unit,
            "true": "",
        }
    up, down = float(ends[1][row]) - median, median - float(ends[0][row])
    digits = _digits(up, down)
    return {
        "name": quantity.short_title,
        "value": f"{median:.{digits}f}",
        "up": f"+{up:.{digits}f}",
        "down": f"−{down:.{digits}f}",
        "unit": quantity.unit,
        "true": "" if true is None else f"{true:.{digits}f}",
    }


def _digits(up: float, down: float) -> int:
    """Decimals that show the smaller half-width with two figures, three at most."""
    smaller = min((width for width in (up, down) if width > 0), default=1.0)
    return min(max(1 - math.floor(math.log10(smaller)), 0), 3)
