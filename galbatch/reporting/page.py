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
from galbatch.core.flags import CatalogFlag, ModelFlag, PixelFlag, count_flags
from galbatch.errors import GalbatchError
from galbatch.objects import read_table
from galbatch.reporting.cards import embedded, object_card, shown_decimals
from galbatch.reporting.contents import Contents, read_contents
from galbatch.reporting.figures import MOST_POINTS, distributions, recovery_panels, sky_map
from galbatch.reporting.gallery import choose_pictures
from galbatch.reporting.injection import read_evidence
from galbatch.reporting.networks import (
    MOST_RANKED,
    FeatureSummary,
    FiringPicture,
    bundle_files,
    feature_panels,
    firing_pictures,
    summarize_features,
)
from galbatch.reporting.panels import interactive_panels
from galbatch.reporting.recovery import Comparison, compare_truth
from galbatch.reporting.redshifts import redshift_sections
from galbatch.reporting.texts import CITATIONS, loading_code, methods_text
from galbatch.reporting.training_ranges import beyond_training, training_ranges
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
    bundles: Mapping[str, str | os.PathLike[str]] | None = None,
    magnitude: str | None = None,
) -> str:
    """Write a report about a catalog, one HTML file that includes all figures, and return its path.

    Parameters
    ----------
    catalog_path : str or path
        A HATS catalog written by galbatch. It may be incomplete.
    output : str or path
        The HTML file, local or ``s3://``. An existing file is replaced.
    truth : str, path, pyarrow.Table or None
        Table of known values, such as the truth of a simulated survey or spectroscopic redshifts: the column ``object_id`` and columns
        named as the parameters. With it the report compares posteriors with them.
    store : str, path or None
        Cutout store, of which the report shows pictures; None: that of the run, as the catalog's properties state it.
    bundles : mapping of str to str or path, or None
        Bundle files of sparse networks, by the networks' names: the report loads and runs them to show where features fire. Of
        those that are shipped with galbatch none needs to be given.
    magnitude : str or None
        Column of the catalog or of `truth` by which the statistics of redshifts are binned, besides z_phot.

    Raises
    ------
    CatalogError
        There is no catalog at `catalog_path`.
    UsageError
        A file of `bundles` is not the bundle that the catalog was made with, there is no column `magnitude`, or no redshift to bin.
    ObjectListError
        The table of known values cannot be read, has no column ``object_id``, or a value that is no number.
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
        os.fspath(catalog_path),
        path,
        truth=table,
        store=None if store is None else os.fspath(store),
        bundles={name: os.fspath(file) for name, file in (bundles or {}).items()},
        magnitude=magnitude,
    )
    return path


def write_report(
    catalog_path: str,
    output: str,
    *,
    truth: str | pa.Table | None = None,
    store: str | None = None,
    bundles: Mapping[str, str] | None = None,
    magnitude: str | None = None,
) -> None:
    """Write a report about a catalog; arguments and errors are those of `report`, with paths as text."""
    contents = read_contents(catalog_path)
    true_values = read_table(truth) if isinstance(truth, str) else truth
    comparisons = [] if true_values is None else compare_truth(contents, true_values)
    cutouts = store or api.store_of(catalog_path)
    clean, flagged = choose_pictures(cutouts, contents)
    features = _features(contents, store=cutouts, bundles=bundle_files(contents, bundles or {}))
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
    environment.filters["embedded"] = embedded
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
        redshifts=redshift_sections(contents, comparisons, true_values, magnitude=magnitude),
        **_model_sections(contents, comparisons),
        features=features,
        most_points=MOST_POINTS,
        most_ranked=MOST_RANKED,
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


def _flag_lines(columns: Sequence[npt.NDArray[np.int32]], flags: type[CatalogFlag]) -> list[FlagLine]:
    """Return a row for each flag, with its count in each column of flags; flags without objects are included."""
    counts = [count_flags(column, flags) for column in columns]
    return [
        FlagLine(
            str(flag.name),
            [
                (of[number], of[number] / max(len(column), 1))
                for of, column in zip(counts, columns, strict=True)
            ],
            flag.text,
        )
        for number, flag in enumerate(flags)
    ]


def _features(contents: Contents, *, store: str, bundles: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return the template's ``features`` of each network that has some: a figure, a line for each feature, and where the first ones fire."""
    sections = {}
    for model, features in contents.features.items():
        quantities = contents.of_model(model)
        if (summary := summarize_features(features, quantities)) is None:
            continue
        columns = (summary.number, summary.n_objects, summary.share, summary.median_activation)
        lines = [
            {
                "number": number,
                "n": n,
                "share": share,
                "activation": activation,
                "strongest": contents.object_id[row],
            }
            for number, n, share, activation, row in zip(
                *(one.tolist() for one in columns), summary.strongest[:, 0].tolist(), strict=True
            )
        ]
        sections[model] = {
            "figure": embedded(feature_panels(summary, quantities)),
            "lines": lines,
            **_places(contents, summary, model=model, store=store, bundle=bundles.get(model)),
        }
    return sections


def _places(
    contents: Contents, summary: FeatureSummary, *, model: str, store: str, bundle: str | None
) -> dict[str, Any]:
    """Return the ``places`` where features fire, pictures by number of the feature; without them ``why_no_places`` says why."""
    if bundle is None:
        reason = (
            f"the network's bundle is not known here; name its file: galbatch report --bundle {model}=FILE"
        )
        return {"places": {}, "why_no_places": reason}
    try:
        found = firing_pictures(contents, summary, model=model, store=store, bundle=bundle)
    except GalbatchError as error:
        return {"places": {}, "why_no_places": str(error)}
    places: dict[int, list[FiringPicture]] = {}
    for one in found:
        places.setdefault(one.feature, []).append(one)
    return {"places": places, "why_no_places": ""}


def _model_sections(contents: Contents, comparisons: Sequence[Comparison]) -> dict[str, list[dict[str, Any]]]:
    """Return the template's ``models``, one per model, and ``recovery``, one per comparison that has objects."""
    models = []
    for model in contents.model_flags:
        quantities = contents.of_model(model)
        truths = [comparison for comparison in comparisons if comparison.quantity.model == model]
        trained = training_ranges(contents, model)
        ends = {parameter: [one.ends for one in ranges] for parameter, ranges in trained.items()}
        # (quantity, object); an object counts if any of its quantities has a value.
        finite = [np.isfinite(quantity.median) for quantity in quantities]
        models.append(
            {
                "name": model,
                "n_with_values": int(np.sum(np.any(finite, axis=0))) if quantities else 0,
                "figures": [
                    (quantity.title, embedded(distributions([quantity], truths, trained=ends)))
                    for quantity in quantities
                ],
                "beyond": beyond_training(quantities, trained),
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
