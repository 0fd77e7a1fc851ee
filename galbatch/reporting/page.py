"""The report page: one HTML file that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt

from galbatch import catalog, storage
from galbatch.core.flags import CatalogFlag, ModelFlag, PixelFlag
from galbatch.objects import read_table
from galbatch.reporting.cards import embedded, object_card, shown_decimals
from galbatch.reporting.contents import Contents, read_contents
from galbatch.reporting.figures import distributions, recovery_panels, sky_map
from galbatch.reporting.gallery import choose_pictures
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
        """Whether any object has the flag."""
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
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("galbatch.reporting"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["count"] = lambda n: f"{n:,}"
    environment.filters["percent"] = lambda share: "–" if math.isnan(share) else f"{100 * share:.1f} %"
    environment.filters["fixed"] = lambda number: "–" if math.isnan(number) else f"{number:.3f}"
    page = environment.get_template("report.html").render(
        contents=contents,
        facts=_facts(contents),
        provenance=_provenance(contents),
        sky=embedded(sky_map(contents)),
        pixel_flags=_flag_lines([contents.flags], PixelFlag),
        model_flags=_flag_lines(list(contents.model_flags.values()), ModelFlag),
        models=[_model(contents, model, comparisons) for model in contents.model_flags],
        recovery=[_recovery(comparison) for comparison in comparisons if len(comparison.truth)],
        clean=[object_card(contents, picture, true_values) for picture in clean],
        flagged=[object_card(contents, picture, true_values) for picture in flagged],
    )
    storage.publish(output, page.encode())


def _facts(contents: Contents) -> list[tuple[str, str]]:
    """Return the few numbers at the top: pairs of a value and its name."""
    spoiled = float((~contents.clean).mean()) if len(contents) else 0.0
    facts = [(f"{len(contents):,}", "objects"), (str(len(contents.model_flags)), "networks")]
    if passes := [values[values > 0] for values in contents.passes.values()]:
        used = np.concatenate(passes)
        if len(used):
            span = "" if used.min() == used.max() else f", median of {used.min():,} to {used.max():,}"
            facts.append((f"{np.median(used):g}", f"passes an object{span}"))
    return [*facts, (f"{100 * spoiled:.1f} %", "with spoiled pixels")]


def _provenance(contents: Contents) -> list[tuple[str, str]]:
    """Return what the catalog's properties say of its making, the most telling first."""
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
        if key.startswith(prefix := catalog.model_property(what))
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
    """Return what the page shows of one model: how many objects have values, and their distributions."""
    quantities = contents.of_model(model)
    truths = [comparison for comparison in comparisons if comparison.quantity.model == model]
    with_values = (
        np.any([np.isfinite(quantity.median) for quantity in quantities], axis=0) if quantities else []
    )
    return {
        "name": model,
        "n_with_values": int(np.sum(with_values)),
        "figure": embedded(distributions(quantities, truths)) if quantities else None,
        "width_rem": WIDTH_REM * len(quantities),
    }


def _recovery(comparison: Comparison) -> dict[str, Any]:
    """Return a line of the table of recovery, and its panels."""
    summary = comparison.summary()
    digits = shown_decimals(summary.scatter, summary.scatter)
    return {
        "summary": summary,
        # Of the residual only what is not small against the scatter.
        "residual": f"{round(summary.median_residual, digits) + 0.0:,.{digits}f}".replace("-", "−"),
        "scatter": f"{summary.scatter:,.{digits}f}",
        "quantity": comparison.quantity,
        "figure": embedded(recovery_panels(comparison)),
    }
