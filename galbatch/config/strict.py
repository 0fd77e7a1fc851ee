"""Strict parsing of settings: an unknown key, a renamed one or a value out of range is an error that says where it stands."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from galbatch.errors import ConfigError

__all__ = ["RENAMED_KEYS", "Section", "nearest_hint", "parse_strictly"]

RENAMED_KEYS: Mapping[tuple[str, str], str] = {
    ("models", "columns"): "auxiliary_inputs",
    ("posterior", "keep_components"): "keep_pass_outputs",
    ("", "columns"): "auxiliary_inputs",  # of the settings of a training
    ("input", "columns"): "auxiliary_inputs",  # of the description of a foreign network
    ("preprocessing", "stretch"): "intensity_stretch",
}
"""New name of each renamed key, by the section it stood in ("" outside of sections) and its old name.

An old key is refused, not read: a config file then always says what this version does.
"""

T = TypeVar("T")


class Section(BaseModel):
    """Base of all sections of run.toml: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def nearest_hint(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean NAME?"`` with the known name that is nearest to `name`, or an empty text if none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def parse_strictly(kind: type[T], data: Any, source: str) -> T:
    """Validate `data` as `kind`, a pydantic model or dataclass.

    Parameters
    ----------
    kind : the class to make
    data : tables and values, as a TOML or JSON parser gives them
    source : what each message begins with, such as the file's name

    Raises
    ------
    ConfigError
        One line for each thing wrong, beginning with `source` and the key; an unknown key comes with the
        nearest known one, a renamed key with its new name.
    """
    try:
        return TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        problems = [dict(problem) for problem in error.errors(include_url=False)]
        # A list whose only item is wrong is also reported as empty: that line would mislead.
        relevant = [p for p in problems if not (p["type"] == "too_short" and p["input"])]
        raise ConfigError("\n".join(_explain(kind, problem, source) for problem in relevant)) from None


def _explain(kind: type[Any], problem: dict[str, Any], source: str) -> str:
    location = problem["loc"]
    section = ".".join(part for part in location[:-1] if isinstance(part, str))
    place = f"{source}: [{section}] " if section else f"{source}: "
    message = problem["msg"].removeprefix("Value error, ")
    if not location or (problem["type"] == "value_error" and isinstance(location[-1], int)):
        # Validators of a whole section look at several keys together: their message names them.
        return f"{place}{message}"
    key = str(location[-1])
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        if new := RENAMED_KEYS.get((section, key)):
            return f"{place}{key}: renamed; write {new}"
        return f"{place}{key}: unknown key{nearest_hint(key, _known_keys(kind, location[:-1]))}"
    if problem["type"] == "missing":
        return f"{place}{key}: missing; it has no default"
    found = "" if problem["type"] == "value_error" else f" (found {problem['input']!r})"
    return f"{place}{key}: {message}{found}"


def _known_keys(kind: Any, location: tuple[Any, ...]) -> list[str]:
    """Return the names of the keys of the class that stands at `location` below `kind`."""
    for part in location:
        if isinstance(part, int):
            continue
        kind = _fields(kind).get(part, kind)
        # The class within Annotated, tuple and Union is the first argument of each.
        while getattr(kind, "__args__", None):
            kind = kind.__args__[0]
    return list(_fields(kind))


def _fields(kind: Any) -> dict[str, Any]:
    """Return the type of each field of a pydantic model or dataclass."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: info.annotation for name, info in kind.model_fields.items()}
    return {name: info.type for name, info in getattr(kind, "__dataclass_fields__", {}).items()}
