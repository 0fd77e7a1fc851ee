"""The report: one HTML file that includes all its figures."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from markupsafe import Markup, escape

from galbatch import api, catalog, storage
from galbatch.core.flags import CatalogFlag, ModelFlag, PixelFlag
from galbatch.objects import read_table
from galbatch.reporting.cards import embedded, object_card, shown_decimals
from galbatch.reporting.contents import Contents, Quantity, read_contents
from galbatch.reporting.figures import distributions, recovery_panels, sky_map
from galbatch.reporting.gallery import choose_pictures
from galbatch.reporting.injection import read_evidence
from galbatch.reporting.networks import feature_panels, summarize_features
from galbatch.reporting.panels import interactive_panels
from galbatch.reporting.recovery import Comparison, compare_truth
from galbatch.reporting.texts import CITATIONS, loading_code, methods_text
from galbatch.reporting.usability import usability_of

__all__ = ["report", "write_report"]


# In the property of an audit the numbers of each quantile follow after this. The page has no room for them.
AUDIT_LEVELS = "; at "


@dataclass(frozen=True, slots=True)
class FlagLine:
    """A row of a table of flags. `counts` has the number of flagged objects and their share for each column of flags."""

    name: str
    counts: list[tuple[int, float]]
    meaning: str

    @property
    def fired(self) -> bool:
        """True if any object has the flag."""
        return any(n for n, _ in self.counts)


def report(
    catalog_path: str | os.PathLike[str],
    output: str | os.PathLike[str] = "report.html",
    *,
    truth: str | os.PathLike[str] | pa.Table | None = None,
    store: str | os.PathLike[str] | None = None,
) -> str:
    """Write a report about a catalog, one HTML file that includes all figures, and return its path.

    Parameters
    ----------
    catalog_path : str or path
        A HATS catalog written by galbatch. It may be incomplete.
    output : str or path
        The HTML file, local or ``s3://``. An existing file is replaced.
    truth : str, path, pyarrow.Table or None
        Truth table of a simulated survey. With it the report compares posteriors with the truth.
    store : str, path or None
        Cutout store, of which the report shows pictures; None: that of the run, as the catalog's properties state it.

    Raises
    ------
    CatalogError
        There is no catalog at `catalog_path`.
    ObjectListError
        The truth table cannot be read.
    OutputError
        The file cannot be written.

    Examples
    --------
    >>> import galbatch
    >>> galbatch.report("catalog", "report.html", store="cutouts.zarr")  # doctest: +SKIP
    'report.html'
    """
    path = os.fspath(output)
    table = truth if truth is None or isinstance(truth, pa.Table) else os.fspath(truth)
    write_report(
        os.fspath(catalog_path), path, truth=table, store=None if store is None else os.fspath(store)
    )
    return path


def write_report(
    catalog_path: str, output: str, *, truth: str | pa.Table | None = None, store: str | None = None
) -> None:
    """Write a report about a catalog; arguments and errors are those of `report`, with paths as text."""
    contents = read_contents(catalog_path)
    true_values = read_table(truth) if isinstance(truth, str) else truth
    comparisons = [] if true_values is None else compare_truth(contents, true_values)
    clean, flagged = choose_pictures(store or api.store_of(catalog_path), contents)
    # StrictUndefined: a name misspelled in the template fails instead of leaving a gap in the page.
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("galbatch.reporting"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    # Names are long words: they may break after an underscore, and nowhere else.
    environment.filters["wrapped"] = lambda name: escape(name).replace("_", Markup("_<wbr>"))
    environment.filters["count"] = lambda n: f"{n:,}"
    environment.filters["percent"] = lambda share: "–" if math.isnan(share) else f"{100 * share:.1f} %"
    environment.filters["fixed"] = lambda number: "–" if math.isnan(number) else f"{number:.3f}"
    environment.filters["short"] = lambda number: "–" if number is None else f"{number:.3g}".replace("-", "−")
    environment.filters["covers"] = lambda share: "–" if share is None else f"{100 * share:.0f} %"
    page = environment.get_template("report.html").render(
        contents=contents,
        usability=usability_of(contents),
        evidence=read_evidence(catalog_path),
        methods=methods_text(contents),
        citations=CITATIONS,
        loading=loading_code(contents),
        **_summary(contents),
        sky=embedded(sky_map(contents)),
        pixel_flags=_flag_lines([contents.flags], PixelFlag),
        model_flags=_flag_lines(list(contents.model_flags.values()), ModelFlag),
        **_model_sections(contents, comparisons),
        interactive=interactive_panels(contents, comparisons),
        bands=api.color_bands((clean + flagged)[0].bands) if clean or flagged else (),
        clean=[object_card(contents, picture, true_values) for picture in clean],
        flagged=[object_card(contents, picture, true_values) for picture in flagged],
    )
    storage.publish(output, page.encode())


def _summary(contents: Contents) -> dict[str, list[tuple[str, str]]]:
    """Return the template's ``facts`` (value, name) at the top of the page, its ``provenance`` (title, value), and what of it is ``folded`` away."""
    spoiled = float((~contents.clean).mean()) if len(contents) else 0.0
    facts = [(f"{len(contents):,}", "objects"), (str(len(contents.model_flags)), "networks")]
    # Objects on which a model was not run have 0 passes, and would lower the median.
    passes = [n[n > 0] for n in contents.passes.values()]
    used = np.concatenate(passes) if passes else np.empty(0, np.int32)
    if len(used):
        span = "" if used.min() == used.max() else f", median of {used.min():,} to {used.max():,}"
        facts.append((f"{np.median(used):g}", f"passes an object{span}"))
    facts.append((f"{100 * spoiled:.1f} %", "with spoiled pixels"))
    titles = {
        "hats_creation_date": "written",
        "galbatch_version": "galbatch",
        "galbatch_method": "posterior",
        "galbatch_passes": "passes",
    }
    hidden = {"galbatch_seed": "seed", "galbatch_fingerprint": "fingerprint"}
    properties = contents.properties
    found = [(title, properties[key]) for key, title in titles.items() if key in properties]
    folded = [(title, properties[key]) for key, title in hidden.items() if key in properties]
    # Properties of a model have its name at the end of their key.
    of_models = [
        (f"{kind} of {key.removeprefix(prefix)}", value.partition(AUDIT_LEVELS)[0])
        for kind in ("doubt", "prior", "audit", "engine", "bundle")
        for key, value in properties.items()
        if key.startswith(prefix := catalog.model_property(kind))
    ]
    return {
        "facts": facts,
        "provenance": [
            ("catalog", contents.path),
            *found,
            *(one for one in of_models if not _is_folded(one[0])),
        ],
        "folded": [*folded, *(one for one in of_models if _is_folded(one[0]))],
    }


def _is_folded(title: str) -> bool:
    """Return whether a property of a model is of use only to who makes the catalog again."""
    return title.startswith(("engine of", "bundle of"))


def _beyond(
    quantities: Sequence[Quantity], trained: Mapping[str, tuple[float, float]]
) -> list[tuple[str, str, float]]:
    """Return title, training range as text, and the share of medians outside it, of each quantity whose range is known."""
    lines = []
    for one in quantities:
        if ends := trained.get(one.parameter):
            known = one.median[np.isfinite(one.median)]
            share = float(((known < ends[0]) | (known > ends[1])).mean()) if len(known) else math.nan
            lines.append((one.title, f"{ends[0]:.4g} to {ends[1]:.4g} {one.unit}".strip(), share))
    return lines


def _flag_lines(columns: Sequence[npt.NDArray[np.int32]], flags: type[CatalogFlag]) -> list[FlagLine]:
    """Return a row for each flag, with its count in each column of flags; flags without objects are included."""
    lines = []
    for flag in flags:
        raised = [(column & int(flag)) != 0 for column in columns]
        lines.append(
            FlagLine(str(flag.name), [(int(has.sum()), float(has.mean())) for has in raised], flag.text)
        )
    return lines


def _features(contents: Contents, model: str, quantities: Sequence[Quantity]) -> dict[str, Any] | None:
    """Return the template's ``features`` of a model: a figure, and a line for each feature; None for networks that have none."""
    if model not in contents.features:
        return None
    summary = summarize_features(contents.features[model], quantities)
    if summary is None:
        return None
    columns = (summary.number, summary.n_objects, summary.share, summary.median_activation, summary.strongest)
    lines = [
        {
            "number": number,
            "n": n,
            "share": share,
            "activation": activation,
            "strongest": contents.object_id[row],
        }
        for number, n, share, activation, row in zip(*(one.tolist() for one in columns), strict=True)
    ]
    return {"figure": embedded(feature_panels(summary, quantities)), "lines": lines}


def _model_sections(contents: Contents, comparisons: Sequence[Comparison]) -> dict[str, list[dict[str, Any]]]:
    """Return the template's ``models``, one per model, and ``recovery``, one per comparison that has objects."""
    models = []
    for model in contents.model_flags:
        quantities = contents.of_model(model)
        truths = [comparison for comparison in comparisons if comparison.quantity.model == model]
        trained = catalog.trained_ranges(contents.properties, model)
        # (quantity, object); an object counts if any of its quantities has a value.
        finite = [np.isfinite(quantity.median) for quantity in quantities]
        models.append(
            {
                "name": model,
                "n_with_values": int(np.sum(np.any(finite, axis=0))) if quantities else 0,
                "figures": [
                    (quantity.title, embedded(distributions([quantity], truths, trained=trained)))
                    for quantity in quantities
                ],
                "beyond": _beyond(quantities, trained),
                "features": _features(contents, model, quantities),
            }
        )
    recovery = []
    for comparison in comparisons:
        if not len(comparison.truth):
            continue
        summary = comparison.summary()
        digits = shown_decimals(summary.scatter, summary.scatter)
        # The residual is rounded to the digits of the scatter, and adding 0.0 turns -0.0 into 0.0.
        residual = f"{round(summary.median_residual, digits) + 0.0:,.{digits}f}".replace("-", "−")
        recovery.append(
            {
                "summary": summary,
                "residual": residual,
                "scatter": f"{summary.scatter:,.{digits}f}",
                "quantity": comparison.quantity,
                "figures": [embedded(png) for png in recovery_panels(comparison)],
            }
        )
    return {"models": models, "recovery": recovery}
