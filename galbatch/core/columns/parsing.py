"""The names of a catalog's columns, read: which are results, of which network, and of what."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from galbatch.core.columns.definitions import PIXEL_FLAGS
from galbatch.core.columns.photometry import photometry_names
from galbatch.core.columns.provenance import provenance_names
from galbatch.core.columns.statistics import MODEL_FLAGS, ColumnKey, Statistic

__all__ = ["flag_columns", "parse_column", "parse_columns", "pixel_names", "quantile_columns", "result_names"]


def result_names(names: Sequence[str]) -> list[str]:
    """Return the names of a catalog's result columns: the column ``flags`` and all after it; none if the catalog has no ``flags``."""
    return list(names[list(names).index(PIXEL_FLAGS.name) :]) if PIXEL_FLAGS.name in names else []


def pixel_names(names: Sequence[str]) -> list[str]:
    """Return the columns that result columns after ``flags`` begin with: provenance, then photometry; none in catalogs that lack them."""
    provenance = provenance_names(names)
    return [*provenance, *photometry_names(names[len(provenance) :])]


def parse_columns(names: Sequence[str]) -> dict[str, tuple[str, ColumnKey]]:
    """Return the model and the key of each result column of a catalog.

    The columns of one model are adjacent, and its column of flags is the last of them. The flags therefore mark where each
    model's columns end, and models whose names begin alike (``gampen``, ``gampen_survey``) are kept apart. Columns copied
    from the object list come before the column ``flags`` and are left out.

    Parameters
    ----------
    names : sequence of str
        All columns of the catalog, in the catalog's order.

    Returns
    -------
    dict of str to (str, ColumnKey)
        Model name and key, by column name.
    """
    # Without the column `flags` the names are those of results alone.
    results = result_names(names)[1:] if PIXEL_FLAGS.name in names else list(names)
    results = results[len(pixel_names(results)) :]
    found: dict[str, tuple[str, ColumnKey]] = {}
    block: list[str] = []
    for name in results:
        block.append(name)
        model = name.removesuffix(f"_{Statistic.FLAGS.word}")
        if model != name and all(one.startswith(f"{model}_") for one in block):
            found |= {key.name(model): (model, key) for key in _parse_block(block, model)}
            block = []
    return found


def flag_columns(names: Sequence[str]) -> list[str]:
    """Return the names of a catalog's columns of flags: ``flags`` of the pixels, then ``<model>_flags`` of each model."""
    keys = parse_columns(names)
    model_flags = [name for name, (_, key) in keys.items() if key == MODEL_FLAGS]
    return [PIXEL_FLAGS.name, *model_flags] if PIXEL_FLAGS.name in names else model_flags


def quantile_columns(names: Sequence[str]) -> dict[tuple[str, str], dict[float, str]]:
    """Return the names of a catalog's quantile columns, by (model, quantity) and then by level in ascending order."""
    found: dict[tuple[str, str], dict[float, str]] = {}
    for name, (model, key) in parse_columns(names).items():
        if key.level is not None:
            found.setdefault((model, key.quantity), {})[key.level] = name
    return {quantity: dict(sorted(columns.items())) for quantity, columns in found.items()}


def _parse_block(names: Sequence[str], model: str) -> Iterator[ColumnKey]:
    """Yield the keys of one model's columns. Its quantities are those that have quantiles."""
    found = [parsed[1] for name in names if (parsed := parse_column(name, (model,))) is not None]
    # A first pass finds the quantities, without which the names of correlations cannot be split.
    quantities = {key.quantity for key in found if key.statistic is Statistic.QUANTILE}
    for name in names:
        if (parsed := parse_column(name, (model,), quantities=quantities)) is not None:
            yield parsed[1]


def parse_column(
    name: str, models: Collection[str], *, quantities: Collection[str] = ()
) -> tuple[str, ColumnKey] | None:
    """Return the model and the key of one result column, or None if it belongs to none of `models`.

    Parameters
    ----------
    name : str
        The column's name in the catalog.
    models : collection of str
        Names of all models of the run. If the column's name begins with several of them, the longest is taken.
    quantities : collection of str
        Names of the model's quantities. If empty, any quantity is accepted, but no correlation is recognized: without
        the list the two names in it cannot be separated.
    """
    own = [model for model in models if name.startswith(f"{model}_")]
    if not own:
        return None
    # "gampen_survey_bt_q500" begins with "gampen_" too.
    model = max(own, key=len)
    rest = name.removeprefix(f"{model}_")
    # The longest word first: otherwise "bt_epistemic_std" would be read as the "std" of a quantity "bt_epistemic".
    for statistic in sorted(Statistic, key=lambda one: -len(one.word)):
        match = statistic.pattern.fullmatch(rest)
        if match and (key := _key(statistic, match.groupdict(), quantities)):
            return model, key
    return None


def _key(statistic: Statistic, parts: dict[str, str], quantities: Collection[str]) -> ColumnKey | None:
    if "pair" in parts:
        pairs = ((first, second) for first in quantities for second in quantities)
        found = next((pair for pair in pairs if "_".join(pair) == parts["pair"]), None)
        return None if found is None else ColumnKey(statistic, *found)
    quantity = parts.get("quantity", "")
    if quantity and quantities and quantity not in quantities:
        return None
    level = float(f"0.{parts['level']}") if "level" in parts else None
    return ColumnKey(statistic, quantity, level=level, rank=int(parts["rank"]) if "rank" in parts else None)
