"""Strict parsing of settings: unknown keys, renamed keys and values out of range are errors that name file, section and key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from galbatch.core.flags import RENAMED_FLAGS
from galbatch.core.urls import without_secrets
from galbatch.errors import ConfigError

__all__ = ["RENAMED_KEYS", "Section", "nearest_hint", "parse_strictly", "require_plain"]

RENAMED_KEYS: Mapping[tuple[str, str], str] = {
    ("models", "columns"): "auxiliary_inputs",
    ("survey.galaxiesml", "variance"): "weight",
    ("posterior", "keep_components"): "keep_pass_outputs",
    # Not of run.toml: settings of a training, and descriptions of foreign networks ([input] and [preprocessing]).
    ("", "columns"): "auxiliary_inputs",
    ("input", "columns"): "auxiliary_inputs",
    ("preprocessing", "stretch"): "intensity_stretch",
}
"""Maps (section, old key) to the new key; the section is "" for keys outside of sections.

An old key is an error and is not translated, so that a config file always has the names that the documentation has.
"""

T = TypeVar("T")

# pydantic adds to the place of a value of several kinds which of them it tried.
UNION_MEMBER = re.compile(r"int|str|float|bool|constrained-\w+|(dict|tuple|list|literal|function-\w+)\[.*\]")

# Line breaks and tabs may stand in long conditions.
CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class Section(BaseModel):
    """Base class of all sections of run.toml: instances are frozen; unknown keys, inf and nan are errors."""

    # pydantic warns of fields named like its own methods (model_..); keys of run.toml may have any name.
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    # To Python true is the number 1, and an integer of any size one; arrays hold 64 bits.
    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        kind = str(cls.model_fields[str(info.field_name)].annotation)
        # Tables that are sections of their own check their keys themselves.
        items = value.values() if isinstance(value, Mapping) and "dict[" in kind else _items(value)
        for item in items:
            if isinstance(item, bool) and "bool" not in kind:
                raise ValueError(f"{str(item).lower()} is neither number nor text")
            if isinstance(item, int) and not -(2**63) <= item < 2**63:
                raise ValueError(f"{item} is beyond 64 bits")
        return value


def _items(value: Any) -> Iterable[Any]:
    """Return the items of a list, or the value itself."""
    return value if isinstance(value, list | tuple) else (value,)


def require_plain(data: Any, source: str, key: str = "") -> None:
    """Raise an error if a text in parsed TOML holds control characters, or credentials in a URL; no message quotes either.

    Raises
    ------
    ConfigError
        Names the key.
    """
    if isinstance(data, dict):
        for name, value in data.items():
            require_plain(value, source, f"{key}.{name}" if key else str(name))
    elif isinstance(data, list):
        for value in data:
            require_plain(value, source, key)
    elif isinstance(data, str):
        if CONTROL_CHARACTERS.search(data):
            raise ConfigError(f"{source}: {key}: holds control characters, which no path or name needs")
        if (hidden := without_secrets(data)) != data:
            raise ConfigError(
                f"{source}: {key}: {hidden}: the URL holds credentials, which would stand in logs and outputs; give them in the "
                "environment, or in fsspec's configuration (FSSPEC_<PROTOCOL> or ~/.config/fsspec)"
            )


def nearest_hint(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean NAME?"`` with the most similar of the known names, or an empty string if none is similar.

    Of a flag that was renamed it says the new name.
    """
    if new := RENAMED_FLAGS.get(name):
        return f"; the flag {name} is called {new}"
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def parse_strictly(kind: type[T], data: Any, source: str) -> T:
    """Return an instance of `kind` made from parsed TOML or JSON, or raise an error that lists everything wrong with it.

    Parameters
    ----------
    kind : type
        The class to make: a pydantic model or a dataclass.
    data : dict
        Tables and values, as a TOML or JSON parser returns them.
    source : str
        Text at the beginning of each message, such as the file's name.

    Returns
    -------
    instance of kind

    Raises
    ------
    ConfigError
        One line for each problem, beginning with `source` and the key. For an unknown key the line suggests the
        most similar known key; for a renamed key it gives the new name.
    """
    try:
        return TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        problems = [dict(problem) for problem in error.errors(include_url=False)]
        # pydantic reports a list whose only item is wrong as empty, too: that line would mislead.
        relevant = [p for p in problems if not (p["type"] == "too_short" and p["input"])]
        lines = dict.fromkeys(_explain(kind, problem, source) for problem in relevant)
        raise ConfigError("\n".join(lines)) from None


def _explain(kind: type[Any], problem: dict[str, Any], source: str) -> str:
    """Return the message for one problem that pydantic found: place, key, what is wrong, and the value found."""
    location = tuple(part for part in problem["loc"] if not UNION_MEMBER.fullmatch(str(part)))
    # Integers are positions in a list of tables, as in [[models]]: the message names the section alone.
    section = ".".join(part for part in location[:-1] if isinstance(part, str))
    place = f"{source}: [{section}] " if section else f"{source}: "
    message = problem["msg"].removeprefix("Value error, ")
    if not location or (problem["type"] == "value_error" and isinstance(location[-1], int)):
        # Validators of a whole section compare several keys: their own message names them.
        return f"{place}{message}"
    key = str(location[-1])
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        if new := RENAMED_KEYS.get((section, key)):
            return f"{place}{key}: renamed; write {new}"
        return f"{place}{key}: unknown key{nearest_hint(key, _known_keys(kind, location[:-1]))}"
    if problem["type"] == "missing":
        return f"{place}{key}: missing; it has no default"
    # Messages of our own validators already quote the value.
    found = "" if problem["type"] == "value_error" else f" (found {problem['input']!r})"
    if isinstance(problem["input"], str) and problem["input"] in RENAMED_FLAGS:
        found += nearest_hint(problem["input"], ())
    return f"{place}{key}: {message}{found}"


def _known_keys(kind: Any, location: tuple[Any, ...]) -> list[str]:
    """Return the names of the keys that are allowed at `location`, a path of keys and list positions below `kind`."""
    for part in location:
        if isinstance(part, int):
            continue
        kind = _fields(kind).get(part, kind)
        # Annotations such as Annotated[tuple[SurveyConfig, ...], ..] and X | None: the class is always the first argument.
        while getattr(kind, "__args__", None):
            kind = kind.__args__[0]
    return list(_fields(kind))


def _fields(kind: Any) -> dict[str, Any]:
    """Return the type of each field of a pydantic model or dataclass."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: info.annotation for name, info in kind.model_fields.items()}
    return {name: info.type for name, info in getattr(kind, "__dataclass_fields__", {}).items()}
