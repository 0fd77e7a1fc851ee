"""Reading a bundle's metadata from JSON, and writing them as JSON."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from galbatch.config import parse_strictly
from galbatch.errors import BundleError, ConfigError
from galbatch.models.metadata.names import with_current_names
from galbatch.models.metadata.schema import BundleMetadata, HeadInfo, ParameterInfo

__all__ = ["HeadRules", "parse_metadata", "write_metadata"]

# Metadata are printed: an escape sequence in a name could rewrite what a terminal shows. Line breaks and tabs are fine.
CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

HeadRules = Callable[[HeadInfo, Sequence[ParameterInfo]], list[str]]
"""A function that returns messages on what is wrong with a head, such as `galbatch.models.heads.head_problems`."""


def write_metadata(metadata: BundleMetadata) -> str:
    """Return metadata as JSON.

    Raises
    ------
    BundleError
        The metadata hold numbers that are not finite, which JSON cannot hold.
    """
    data = dataclasses.asdict(metadata)
    # A bundle without them has the bytes, and so the hash and the draws, that it had before there was such a field.
    optional = [(data, name) for name in ("stopping", "prior", "disagreement")]
    for section, name in (*optional, (data["input"], "dereddened")):
        if section[name] is None:
            del section[name]
    # So have those that do not use what came later.
    for name in ("draws", "member_weights"):
        if not data[name]:
            del data[name]
    if not metadata.input.more_grids:
        del data["input"]["more_grids"]
    for section in (data["head"], *data["input"]["auxiliary_inputs"]):
        if not section["length"]:
            del section["length"]
    # The kind comes first in the file, as the options mean nothing without it; a dataclass has inherited fields first.
    # Bundles whose quantities state no UCD have the same bytes as before there was one.
    data["parameters"] = [
        {key: value for key, value in parameter.items() if key != "ucd" or value}
        for parameter in data["parameters"]
    ]
    data["head"] = {"kind": metadata.head.kind, **data["head"]}
    try:
        return json.dumps(data, allow_nan=False)
    except ValueError:
        raise BundleError(f"{metadata.name}: its metadata hold numbers that are not finite") from None


def parse_metadata(text: str | bytes, source: str, *, head_rules: HeadRules) -> BundleMetadata:
    """Return metadata from JSON. `galbatch.models.heads.read_metadata` calls it with the checks of the known heads.

    Parameters
    ----------
    text : JSON, as `write_metadata` returns it; fields may have the names of older versions
    source : path or name with which messages begin
    head_rules : function that checks the head

    Raises
    ------
    BundleError
        The text is no JSON, has unknown or missing keys, or values that contradict each other.
    """

    # Python's parser accepts NaN and Infinity, which are no JSON; NaN would pass checks such as scale <= 0.
    def refuse_constant(constant: str) -> float:
        raise ValueError(f"{constant} is no number")

    try:
        data = with_current_names(json.loads(text, parse_constant=refuse_constant))
        if any(CONTROL_CHARACTERS.search(word) for word in _words(data)):
            raise BundleError(f"{source}: galbatch.json holds control characters, which no text needs")
        metadata = parse_strictly(BundleMetadata, data, source=f"{source}: galbatch.json")
    except RecursionError:
        raise BundleError(f"{source}: galbatch.json is nested too deeply") from None
    except ValueError as error:  # A UnicodeDecodeError, from bytes that are no UTF-8, is one, too.
        raise BundleError(f"{source}: galbatch.json is no JSON: {error}") from None
    except ConfigError as error:
        raise BundleError(str(error)) from None
    problems = [*metadata.problems(), *head_rules(metadata.head, metadata.parameters)]
    if problems:
        raise BundleError("\n".join(f"{source}: galbatch.json: {problem}" for problem in problems))
    return metadata


def _words(data: Any) -> Iterator[str]:
    """Yield every text in the content of a JSON file, keys included."""
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict):
        yield from data
        data = list(data.values())
    if isinstance(data, list):
        for part in data:
            yield from _words(part)
