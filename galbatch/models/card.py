"""Model cards: what a bundle is, how it was made, how well it does, and what it is not. Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from galbatch.models.bundle import Bundle
from galbatch.models.metadata import BundleMetadata, ParameterInfo

__all__ = ["model_card"]


def model_card(
    bundle: Bundle, evaluation: Mapping[str, Mapping[str, Any]], *, test_data: str, limits: str
) -> str:
    """Markdown text of a bundle's card.

    Parameters
    ----------
    bundle : the network
    evaluation : of `evaluate`
    test_data : on what it was evaluated, one sentence
    limits : what the network is not
    """
    metadata = bundle.metadata
    lines = [
        f"# {metadata.name}, version {metadata.version}",
        "",
        f"sha256 `{bundle.sha256}`",
        "",
        "## What it is",
        "",
        *_input_lines(metadata),
        "",
        "| parameter | unit | what | transform | limits | training range |",
        "|---|---|---|---|---|---|",
        *(_parameter_line(parameter) for parameter in metadata.parameters),
        "",
        "## How it was made",
        "",
        f"Training data: {metadata.training_data}.",
        "",
        "| setting | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in metadata.training.items()),
        "",
        "## How well it does",
        "",
        test_data,
        "",
        *_evaluation_lines(evaluation),
        "",
        "## What it is not",
        "",
        limits,
        "",
        f"Licence: {metadata.licence}. Citation: {metadata.citation}.",
    ]
    return "\n".join(lines) + "\n"


def _input_lines(metadata: BundleMetadata) -> list[str]:
    images = metadata.input
    top = f", the {metadata.n_top_features} largest features kept" if metadata.n_top_features else ""
    return [
        f"Architecture {metadata.architecture}, head {metadata.head.kind}, dropout rate {metadata.dropout_rate:g}{top}.",
        f"Input: bands {', '.join(images.bands)}, {images.size_px} x {images.size_px} px at "
        f"{images.pixel_scale_arcsec:g} arcsec, {images.unit} at AB zero point {images.zero_point_mag:g}.",
    ]


def _parameter_line(parameter: ParameterInfo) -> str:
    cells = (
        parameter.name,
        parameter.unit,
        parameter.description,
        parameter.transform,
        _range(parameter.limits),
        _range(parameter.training_range),
    )
    return f"| {' | '.join(cells)} |"


def _range(values: tuple[float, float] | None) -> str:
    return "" if values is None else f"{values[0]:.4g} to {values[1]:.4g}"


def _evaluation_lines(evaluation: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield "| parameter | R^2 of the median | truths within 68.27 % | within 95.45 % |"
    yield "|---|---|---|---|"
    for name, found in evaluation.items():
        yield f"| {name} | {found['r2']:.3f} (of {found['r2_of']}) | {_share(found, '68')} | {_share(found, '95')} |"
    yield ""
    yield "Intervals are equal-tailed."
    if any("coverage_68_at_limits" in found for found in evaluation.values()):
        yield (
            "A truth at or beyond a parameter's limits meets a point mass of its posterior: it counts as covered by "
            "a random draw within that mass; 'touched' counts every interval that reaches it."
        )


def _share(found: Mapping[str, Any], interval: str) -> str:
    text = f"{found[f'coverage_{interval}']:.1%}"
    if f"coverage_{interval}_at_limits" in found:
        inside, at_limits, touched = (
            found[f"coverage_{interval}_{part}"] for part in ("inside_limits", "at_limits", "closed")
        )
        text += f" (inside the limits {inside:.1%}, at them {at_limits:.1%}; all, touched: {touched:.1%})"
    return text
