"""A bundle's metadata from JSON and to JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence

from galbatch.config import parse_strictly
from galbatch.errors import BundleError, ConfigError
from galbatch.models.metadata.names import with_current_names
from galbatch.models.metadata.schema import BundleMetadata, HeadInfo, ParameterInfo

__all__ = ["HeadRules", "parse_metadata", "write_metadata"]

HeadRules = Callable[[HeadInfo, Sequence[ParameterInfo]], list[str]]
"""Says what is wrong with a head for these parameters; the registry of heads does."""


def write_metadata(metadata: BundleMetadata) -> str:
    """Return metadata as JSON.

    Raises
    ------
    BundleError
        It holds numbers that are not finite.
    """
    data = dataclasses.asdict(metadata)
    # The kind stands before its options, which it gives a meaning to: a dataclass has inherited fields first.
    data["head"] = {"kind": metadata.head.kind, **data["head"]}
    try:
        return json.dumps(data, allow_nan=False)
    except ValueError:
        raise BundleError(f"{metadata.name}: its metadata hold numbers that are not finite") from None


def parse_metadata(text: str | bytes, source: str, *, head_rules: HeadRules) -> BundleMetadata:
    """Return metadata from JSON; `galbatch.models.heads.read_metadata` does it with the heads that are known.

    Parameters
    ----------
    text : JSON, as `write_metadata` gives it; fields may have the names that older versions wrote
    source : what messages begin with
    head_rules : says what is wrong with the head

    Raises
    ------
    BundleError
        It is no JSON, has unknown or missing keys, or values that contradict each other.
    """

    def refuse_constant(constant: str) -> float:
        raise ValueError(f"{constant} is no number")

    try:
        data = with_current_names(json.loads(text, parse_constant=refuse_constant))
        metadata = parse_strictly(BundleMetadata, data, source=f"{source}: galbatch.json")
    except ValueError as error:  # of JSON, or of its encoding
        raise BundleError(f"{source}: galbatch.json is no JSON: {error}") from None
    except ConfigError as error:
        raise BundleError(str(error)) from None
    problems = [*metadata.problems(), *head_rules(metadata.head, metadata.parameters)]
    if problems:
        raise BundleError("\n".join(f"{source}: galbatch.json: {problem}" for problem in problems))
    return metadata
