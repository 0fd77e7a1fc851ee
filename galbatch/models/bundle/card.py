"""Model cards: what a bundle says of itself, for people. Markdown, from the metadata alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from galbatch.core.columns import ColumnKey, Statistic
from galbatch.models.heads import head_of
from galbatch.models.metadata import (
    BundleMetadata,
    CalibrationInfo,
    DomainInfo,
    HeadInfo,
    InputInfo,
    LabelInfo,
    ParameterInfo,
    ResultTable,
)

__all__ = ["card_text"]

NOT_STATED = "not stated"
LONGEST_VALUE = 200  # characters of a setting; a longer one, such as a history, is in the metadata
DIGITS = 4


def card_text(metadata: BundleMetadata, sha256: str) -> str:
    """The card of a bundle: Markdown, ending with a line break.

    Parameters
    ----------
    metadata : of the bundle; nothing else is looked at, so a card can be written before the bundle is loaded
    sha256 : of its file
    """
    sections = [
        _summary(metadata, sha256),
        _section("Input", _input_lines(metadata.input)),
        _section("Parameters", _parameter_lines(metadata)),
        _section("How it was made", _made_lines(metadata)),
        _section("How well it does", _result_lines(metadata.calibration)),
        _section("Calibration", _calibration_lines(metadata)),
        _section("What it was trained for", _domain_lines(metadata.domain, metadata.input.bands)),
        _section("Licence and citation", _terms(metadata)),
    ]
    return "\n".join(line for section in sections for line in section)


def _summary(metadata: BundleMetadata, sha256: str) -> list[str]:
    outputs = head_of(metadata.head).n_outputs(metadata.head, len(metadata.parameters))
    facts = [
        f"architecture: {metadata.architecture}",
        f"output: {_head_text(metadata.head)}; {outputs} numbers"
        + (f", of each of {metadata.members} members" if metadata.members > 1 else ""),
        f"passes: {_dropout_text(metadata)}",
    ]
    if metadata.n_top_features:
        facts.append(f"features: the {metadata.n_top_features} largest are kept, the others set to 0")
    facts.append(f"sha256: `{sha256}`")
    names = ", ".join(parameter.name for parameter in metadata.parameters)
    return [
        f"# {metadata.name} {metadata.version}",
        "",
        f"Estimates {names} from images in {', '.join(metadata.input.bands)}.",
        "",
        *(f"- {fact}" for fact in facts),
        "",
    ]


def _head_text(head: HeadInfo) -> str:
    return head_of(head).card_text(head)


def _dropout_text(metadata: BundleMetadata) -> str:
    if metadata.dropout_rate > 0:
        return f"Monte Carlo dropout, rate {_number(metadata.dropout_rate)}"
    if head_of(metadata.head).is_point and metadata.members == 1:
        return "no dropout, so all are equal and there is no posterior (NO_POSTERIOR)"
    return "no dropout, so all are equal"


def _input_lines(image: InputInfo) -> list[str]:
    lines = [
        f"- bands: {', '.join(image.bands)}",
        f"- grid: {image.size_px} px at {_number(image.pixel_scale_arcsec)} arcsec",
        f"- pixels: {image.unit}, zero point {_number(image.zero_point_mag)} mag (AB)",
        f"- background: {image.background or NOT_STATED}",
        f"- release: {image.release or NOT_STATED}",
    ]
    for one in image.auxiliary_inputs:
        unit = f" [{one.unit}]" if one.unit else ""
        lines.append(f"- auxiliary input: {one.name}{unit}: {one.description or NOT_STATED}")
    return lines


def _parameter_lines(metadata: BundleMetadata) -> list[str]:
    heads = ("name", "unit", "what it is", "transform", "limits", "seen in training")
    rows = [
        (p.name, p.unit, p.description, p.transform, _span(p.limits), _span(p.training_range))
        for p in metadata.parameters
    ]
    lines = _table(heads, rows)
    for parameter in metadata.parameters:
        if parameter.magnitude is not None:
            lines.append(f"- {parameter.magnitude}: AB magnitude of {parameter.name}")
        if parameter.labels:
            lines.append(f"- {_label_text(parameter)}")
    return lines if lines[-1].startswith("- ") else lines[:-1]


def _label_text(parameter: ParameterInfo) -> str:
    """The column and its words, in the order they are tried."""
    words = "; ".join(_condition(label) for label in parameter.labels)
    return f"{ColumnKey(Statistic.LABEL, parameter.name).suffix}, by the median: {words}"


def _condition(label: LabelInfo) -> str:
    bounds = [
        f"{sign} {_number(limit)}"
        for sign, limit in (("\u2265", label.at_least), ("\u2264", label.at_most))
        if limit is not None
    ]
    return f'"{label.text}" {" and ".join(bounds) or "otherwise"}'


def _made_lines(metadata: BundleMetadata) -> list[str]:
    lines = [f"Trained on {metadata.training_data or f'data that are {NOT_STATED}'}."]
    if metadata.training:
        lines += ["", *_settings(metadata.training)]
    if metadata.origin:
        lines += ["", "Converted from:", "", *_settings(metadata.origin)]
    return lines


def _settings(settings: Mapping[str, Any]) -> list[str]:
    return _table(("setting", "value"), [(key, _value(value)) for key, value in settings.items()])[:-1]


def _value(value: Any) -> str:
    text = _number(value) if isinstance(value, (int, float)) else value
    if not isinstance(text, str):
        text = json.dumps(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]} \u2026"


def _result_lines(calibration: CalibrationInfo | None) -> list[str]:
    if calibration is None or not calibration.results:
        return ["Not measured."]
    lines: list[str] = []
    for result in calibration.results:
        lines += [*_result_table(result)]
    return lines[:-1]


def _result_table(result: ResultTable) -> list[str]:
    return [f"{result.caption}:", "", *_table(result.columns, result.rows)]


def _calibration_lines(metadata: BundleMetadata) -> list[str]:
    calibration = metadata.calibration
    if calibration is None or calibration.inflation_factors is None:
        return ["None: the posterior's widths are the network's own."]
    names = [parameter.name for parameter in metadata.parameters]
    factors = [(name, factor) for name, factor in zip(names, calibration.inflation_factors, strict=True)]
    by_default = "applied" if calibration.apply else "not applied"
    return [
        f"Found on {calibration.n_objects:,} objects that nothing was trained on"
        + (f": {calibration.data}" if calibration.data else "")
        + f". By default it is {by_default}; `[[models]] calibrated` decides otherwise.",
        "",
        *_table(("parameter", "the posterior is widened by"), factors)[:-1],
    ]


def _domain_lines(domain: DomainInfo, bands: Sequence[str]) -> list[str]:
    rows: list[tuple[Any, ...]] = []
    for what, ranges in (
        ("FWHM of the PSF, arcsec", domain.psf_fwhm_arcsec),
        ("sky noise of a pixel, nJy", domain.sky_sigma_njy),
    ):
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


def _terms(metadata: BundleMetadata) -> list[str]:
    return [
        f"Licence: {metadata.licence or NOT_STATED}.",
        "",
        f"Citation: {metadata.citation or NOT_STATED}.",
    ]


def _section(title: str, lines: Iterable[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""]


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """A Markdown table and an empty line."""
    cells = [heads, ["---"] * len(heads), *rows]
    return [*("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in cells), ""]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = _number(value) if isinstance(value, (int, float)) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _span(limits: tuple[float, float] | None) -> str:
    return "" if limits is None else f"{_number(limits[0])} to {_number(limits[1])}"


def _number(value: float) -> str:
    """Whole numbers with their thousands apart, others to four digits."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or (value == int(value) and abs(value) < 1e9):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.0f}"
    return f"{value:.{DIGITS}g}"
