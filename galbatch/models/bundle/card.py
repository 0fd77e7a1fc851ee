"""Model cards: a description of a bundle in Markdown, made from its metadata alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from galbatch.models.heads import head_of
from galbatch.models.metadata import (
    BundleMetadata,
    CalibrationInfo,
    DisagreementInfo,
    DomainInfo,
    ParameterInfo,
    StoppingInfo,
)

__all__ = ["card_summary", "card_text"]

NOT_STATED = "not stated"
MOST_SHOWN_RATE = 0.05
# In characters. A longer setting, such as the record of all epochs, would widen the table beyond any page; it is in the metadata.
LONGEST_VALUE = 200
DIGITS = 4  # Residuals and coverages are known to three digits at most, so a fourth loses nothing.


def card_text(metadata: BundleMetadata, sha256: str) -> str:
    """Return the card of a bundle as Markdown text that ends with a line break.

    Parameters
    ----------
    metadata : metadata of the bundle; nothing else is read, so the card can be written before the bundle is loaded
    sha256 : hash of the bundle's file, in hexadecimal digits

    Raises
    ------
    BundleError
        This version of galbatch does not know the bundle's kind of head.
    """
    head, bands = head_of(metadata.head), metadata.input.all_bands
    weights = f", weighted {' : '.join(map(str, metadata.member_weights))}" if metadata.member_weights else ""
    members = f", of each of {metadata.members} members{weights}" if metadata.members > 1 else ""
    # A reader must see at once whether there is a posterior: one network with a point head and without dropout has none.
    if metadata.passes_differ:
        passes = metadata.passes_text
    elif head.is_point and metadata.members == 1:
        passes = "no dropout, so all are equal and there is no posterior (NO_POSTERIOR)"
    else:
        passes = "no dropout, so all are equal"
    names = ", ".join(parameter.name for parameter in metadata.parameters)
    lines = [
        f"# {metadata.name} {metadata.version}",
        "",
        f"Estimates {names} from {metadata.input.text}.",
        "",
        f"- architecture: {metadata.architecture}",
        f"- output: {head.card_text(metadata.head)}; {head.n_outputs(metadata.head, len(metadata.parameters))} numbers{members}",
        f"- passes: {passes}",
    ]
    if metadata.n_top_features:
        lines.append(f"- features: the {metadata.n_top_features} largest are kept, the others set to 0")
    lines += [f"- sha256: `{sha256}`", ""]
    sections = {
        **_network_sections(metadata),
        **_training_sections(metadata),
        **_measured_sections(metadata),
        "What it was trained for": _domain_lines(metadata.domain, bands),
        "Licence and citation": [
            f"Licence: {metadata.licence or NOT_STATED}.",
            "",
            f"Citation: {metadata.citation or NOT_STATED}.",
        ],
    }
    for title, text in sections.items():
        lines += [f"## {title}", "", *text, ""]
    return "\n".join(lines)


def card_summary(metadata: BundleMetadata, sha256: str) -> list[tuple[str, str]]:
    """Return the card of a bundle in brief, as labels and texts: some fifteen lines that fit on one screen.

    Parameters
    ----------
    metadata : metadata of the bundle
    sha256 : hash of the bundle's file, in hexadecimal digits

    Raises
    ------
    BundleError
        This version of galbatch does not know the bundle's kind of head.
    """
    image, calibration = metadata.input, metadata.calibration or CalibrationInfo()
    taken = [
        f"{', '.join(one.bands)}: {one.size_px} px at {_number(one.pixel_scale_arcsec)} arcsec, {one.unit}"
        for one in image.images
    ]
    taken += [one.label for one in image.auxiliary_inputs]
    members = f" x {metadata.members}" if metadata.members > 1 else ""
    return [
        ("bundle", f"{metadata.name} {metadata.version}, sha256 {sha256[:12]}"),
        ("network", f"{metadata.architecture}{members}, {_passes_line(metadata)}"),
        ("output", head_of(metadata.head).card_text(metadata.head)),
        ("takes", ", ".join(taken)),
        *(("estimates", _parameter_line(parameter)) for parameter in metadata.parameters),
        ("trained on", metadata.training_data or NOT_STATED),
        ("prior", metadata.prior.text() if metadata.prior is not None else NOT_STATED),
        *_coverage_line(metadata, calibration),
        ("out of domain", "recognized" if _recognizes(metadata.domain) else "never recognized"),
        ("licence", metadata.licence or NOT_STATED),
        ("citation", metadata.citation or NOT_STATED),
    ]


def _parameter_line(parameter: ParameterInfo) -> str:
    unit = f" in {parameter.unit}" if parameter.unit else ""
    seen = f"; {_span(parameter.training_range)} in training" if parameter.training_range else ""
    return f"{parameter.name}{unit}{f': {parameter.description}' if parameter.description else ''}{seen}"


def _coverage_line(metadata: BundleMetadata, calibration: CalibrationInfo) -> list[tuple[str, str]]:
    """Return the first table of coverages as one line; none if there is no such table."""
    level, names = "68.27 %", {parameter.name for parameter in metadata.parameters}
    for result in calibration.results:
        if level in result.columns:
            place = result.columns.index(level)
            shares = [f"{row[0]} {row[place]:.4g}" for row in result.rows if row[0] in names]
            return [(f"{level} covers", f"{', '.join(shares)} % of held-out objects")]
    return [(f"{level} covers", "not measured")]


def _passes_line(metadata: BundleMetadata) -> str:
    own = ", draws of its own" if metadata.draws else ""
    return f"dropout rate {_number(metadata.dropout_rate)}{own}"


def _recognizes(domain: DomainInfo) -> bool:
    return bool(domain.psf_fwhm_arcsec or domain.sky_sigma_njy or domain.distance_limit)


def _network_sections(metadata: BundleMetadata) -> dict[str, list[str]]:
    """Return the sections on the input, and on the parameters with the magnitudes and labels that are derived from them."""
    image = metadata.input
    inputs = [] if image.takes_pixels else ["- no pixels: numbers per object alone"]
    for of_grid in image.images:
        inputs += [
            f"- bands: {', '.join(of_grid.bands)}",
            f"- grid: {of_grid.size_px} px at {_number(of_grid.pixel_scale_arcsec)} arcsec",
            f"- pixels: {of_grid.unit}, zero point {_number(of_grid.zero_point_mag)} mag (AB)",
            f"- background: {of_grid.background or NOT_STATED}",
            f"- release: {of_grid.release or NOT_STATED}",
        ]
    # Bundles that do not say it have the cards of before there was such a field.
    if image.dereddened is not None:
        inputs.append(f"- Galactic extinction: {'corrected' if image.dereddened else 'not corrected'}")
    for one in image.auxiliary_inputs:
        unit = f" [{one.unit}]" if one.unit else ""
        inputs.append(f"- auxiliary input: {one.label}{unit}: {one.description or NOT_STATED}")
    headings = ("name", "unit", "what it is", "transform", "limits", "seen in training")
    rows = [
        (p.name, p.unit, p.description, p.transform, _span(p.limits), _span(p.training_range))
        for p in metadata.parameters
    ]
    lines = _table(headings, rows)
    for parameter in metadata.parameters:
        if parameter.magnitude is not None:
            lines.append(f"- {parameter.magnitude}: AB magnitude of {parameter.name}")
        # In the order in which they are tried, as the first label that fits the median is the one in the catalog.
        labels = []
        for label in parameter.labels:
            bounds = [f"\u2265 {_number(label.at_least)}"] if label.at_least is not None else []
            bounds += [f"\u2264 {_number(label.at_most)}"] if label.at_most is not None else []
            labels.append(f'"{label.text}" {" and ".join(bounds) or "otherwise"}')
        if labels:
            lines.append(f"- {parameter.name}_label, by the median: {'; '.join(labels)}")
    # A table ends with an empty line, which Markdown needs before a list and which is one too many at the end of a section.
    return {"Input": inputs, "Parameters": lines if lines[-1].startswith("- ") else lines[:-1]}


def _setting_lines(settings: Mapping[str, Any]) -> list[str]:
    """Return a table of settings: numbers to four digits, text as it is, everything else as JSON."""
    rows = []
    for key, value in settings.items():
        text = _number(value) if isinstance(value, (int, float)) else value
        text = text if isinstance(text, str) else json.dumps(value)
        rows.append((key, text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]} \u2026"))
    return _table(("setting", "value"), rows)[:-1]


def _training_sections(metadata: BundleMetadata) -> dict[str, list[str]]:
    """Return the sections on training, results and calibration."""
    training = [f"Trained on {metadata.training_data or f'data that are {NOT_STATED}'}."]
    if metadata.training:
        training += ["", *_setting_lines(metadata.training)]
    if metadata.origin:
        training += ["", "Converted from:", "", *_setting_lines(metadata.origin)]
    calibration = metadata.calibration or CalibrationInfo()
    results: list[str] = []
    for result in calibration.results:
        results += [f"{result.caption}:", "", *_table(result.columns, result.rows)]
    sections = {"How it was made": training, "How well it does": results[:-1] or ["Not measured."]}
    # Results do not need factors: a bundle may have been measured without a correction being found.
    if calibration.inflation_factors is None:
        return sections | {"Calibration": ["None: the posterior's widths are the network's own."]}
    names = [parameter.name for parameter in metadata.parameters]
    factors = [(name, factor) for name, factor in zip(names, calibration.inflation_factors, strict=True)]
    by_default = "applied" if calibration.apply else "not applied"
    correction = [
        f"Found on {calibration.n_objects:,} objects that nothing was trained on"
        + (f": {calibration.data}" if calibration.data else "")
        + f". By default it is {by_default}; `[[models]] calibrated` decides otherwise.",
        "",
        *_table(("parameter", "the posterior is widened by"), factors)[:-1],
    ]
    return sections | {"Calibration": correction}


def _stopping_lines(info: StoppingInfo) -> list[str]:
    """Return how many passes objects have at least, and how well the held-out objects' stated errors hold."""
    found = info.actual_over_stated
    held = "too few of them stop to tell" if found is None else f"actual over stated error {_number(found)}"
    return [
        f"Objects may stop from {info.start} passes on. Measured with {info.n_passes:,} passes of {info.n_objects:,} objects"
        + (f": {info.data}" if info.data else "")
        + f"; {held}."
    ]


def _measured_sections(metadata: BundleMetadata) -> dict[str, list[str]]:
    """Return the sections on stopping, prior and second opinion, as far as the bundle has them."""
    return {
        **({} if metadata.stopping is None else {"Passes": _stopping_lines(metadata.stopping)}),
        **({} if metadata.prior is None else {"Prior": [f"Posteriors are under {metadata.prior.text()}."]}),
        **({} if metadata.disagreement is None else {"Second opinion": [_opinion(metadata.disagreement)]}),
    }


def _opinion(info: DisagreementInfo) -> str:
    """Return a paragraph on which estimates are compared with the photometry, and the limits of false-alarm rates."""
    limits = ", ".join(
        f"{_number(limit)} ({_number(100 * rate)} %)"
        for rate, limit in zip(info.rates, info.limits, strict=True)
        if rate <= MOST_SHOWN_RATE
    )
    return (
        f"Compared with the photometry of the same pixels: {', '.join(fit.parameter for fit in info.fits)}. Of {info.n_objects:,} objects"
        + (f", {info.data}," if info.data else "")
        + f" the shares in brackets have a larger disagreement: {limits}."
    )


def _domain_lines(domain: DomainInfo, bands: Sequence[str]) -> list[str]:
    """Return a table of the ranges of the training set, and the share of false alarms that they were chosen for."""
    # The last column says whether a range is checked: the light in a band is for human readers only (see `DomainInfo`).
    rows: list[tuple[Any, ...]] = []
    for what, ranges in (
        ("FWHM of the PSF, arcsec", domain.psf_fwhm_arcsec),
        ("sky noise of a pixel, nJy", domain.sky_sigma_njy),
    ):
        # Not strict, as a domain that is not known has no ranges for the bands.
        for band, span in zip(bands, ranges or (), strict=False):
            rows.append((f"{what}, {band}", _span(span), "yes"))
    if domain.flux_njy is not None:
        rows.append(("light in the brightest band, nJy", _span(domain.flux_njy), "no"))
    if domain.distance_limit is not None:
        rows.append(
            (
                f"distance of the {len(domain.features_mean or ())} last features",
                f"to {_number(domain.distance_limit)}",
                "yes",
            )
        )
    if not rows:
        return [f"What the training set looked like is {NOT_STATED}: OUT_OF_DOMAIN is never set."]
    lines = _table(("", "range", "sets OUT_OF_DOMAIN"), rows)
    if domain.false_alarm_rate is None:
        return lines[:-1]
    return [
        *lines,
        f"Of objects like those it was trained on, {_number(100 * domain.false_alarm_rate)} % get OUT_OF_DOMAIN, all checks "
        f"together: the limits were found on {domain.n_held_out:,} objects that nothing was fitted to.",
    ]


def _table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Return the lines of a Markdown table, followed by an empty line."""
    lines = []
    for row in (headings, ["---"] * len(headings), *rows):
        cells = [_number(cell) if isinstance(cell, (int, float)) else str(cell or "") for cell in row]
        # A bar or a line break inside a cell would end the cell or the table.
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return [*lines, ""]


def _span(limits: tuple[float, float] | None) -> str:
    return "" if limits is None else f"{_number(limits[0])} to {_number(limits[1])}"


def _number(value: float) -> str:
    """Return a number as text: whole ones from 10,000 on with commas between thousands, others to four digits."""
    # Asked first, as a bool is an int for Python.
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or (value == int(value) and abs(value) < 1e9):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.0f}"
    return f"{value:.{DIGITS}g}"
