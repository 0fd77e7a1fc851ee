"""Dereddened magnitudes: columns beside those as observed, less A_b E(B-V)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from galbatch.core.columns import ColumnKey, ResultColumn, Statistic
from galbatch.core.ucds import quantity_ucd
from galbatch.models.metadata import BundleMetadata
from galbatch.models.posterior import Quantity, quantities_of

__all__ = ["CaseInfo", "Dereddened", "dereddened", "dereddened_columns"]

PREFIX = "dered_"
"""The beginning of the name of a dereddened magnitude, which stands beside that as observed."""

SHIFTED = (Statistic.MEAN, Statistic.MODE)
"""The statistics that extinction moves, besides quantiles; widths stay as they are."""


@dataclass(frozen=True)
class CaseInfo:
    """One of the networks that fill the columns of a model.

    Attributes
    ----------
    case : name of its case; "" of a model without cases
    metadata : metadata of its bundle
    bands : the survey's bands that it is fed, in the order of the bundle's, those of all grids
    """

    case: str
    metadata: BundleMetadata
    bands: tuple[str, ...]


@dataclass(frozen=True)
class Dereddened:
    """A dereddened column, the column as observed, and the extinction in mag per unit E(B-V) between them."""

    column: str
    observed: str
    a_b: float


def dereddened(
    case: CaseInfo, *, name: str, quantiles: Sequence[float], a_b: Mapping[str, float]
) -> Iterator[Dereddened]:
    """Yield the dereddened columns that one network fills.

    Parameters
    ----------
    case : the network
    name : name of the model, which is the prefix of the columns
    quantiles : levels of the quantiles
    a_b : extinction in mag per unit E(B-V) by the survey's band
    """
    for quantity in quantities_of(case.metadata.parameters):
        band = _band_of(quantity, case)
        if band in a_b:
            for key, observed in _keys(quantity, quantiles):
                yield Dereddened(key.name(name), observed.name(name), a_b[band])


def dereddened_columns(
    cases: Sequence[CaseInfo], *, name: str, quantiles: Sequence[float], a_b: Mapping[str, float]
) -> list[ResultColumn]:
    """Return the dereddened columns of a model, in the order of its magnitudes; the arguments are those of `dereddened`."""
    columns = []
    for quantity in quantities_of(cases[0].metadata.parameters):
        bands = [(one.case, band) for one in cases if (band := _band_of(quantity, one)) in a_b]
        if not bands:
            continue
        taken = " or ".join(
            f"{a_b[band]:g} E(B-V) in {band}{f' (case {case})' if case else ''}" for case, band in bands
        )
        what = f"AB magnitude of {quantity.parameter.description or quantity.parameter.name}, corrected for Galactic extinction by {taken}"
        of_one = {band for _, band in bands}
        ucd = quantity_ucd(quantity.name, "mag", tuple(of_one) if len(of_one) == 1 else ())
        columns += [
            key.column(name, unit="mag", ucds=(ucd,), what=what) for key, _ in _keys(quantity, quantiles)
        ]
    return columns


def _keys(quantity: Quantity, quantiles: Sequence[float]) -> Iterator[tuple[ColumnKey, ColumnKey]]:
    """Yield the keys of a dereddened column and of the one as observed."""
    own = PREFIX + quantity.name
    for level in quantiles:
        yield (
            ColumnKey(Statistic.QUANTILE, own, level=level),
            ColumnKey(Statistic.QUANTILE, quantity.name, level=level),
        )
    for statistic in SHIFTED:
        yield ColumnKey(statistic, own), ColumnKey(statistic, quantity.name)


def _band_of(quantity: Quantity, case: CaseInfo) -> str:
    """Return the survey's band that a magnitude is of; "" for what is no magnitude, and where it is not known.

    It is the band in the name, such as ``mag_r``, or the only one that the network is fed. Colors are no magnitudes.
    """
    named = re.fullmatch(r"mag(?:_(?P<after>.+))?|(?P<before>.+)_mag", quantity.name)
    if quantity.unit != "mag" or (named is None and not quantity.is_magnitude):
        return ""
    word = "" if named is None else named["after"] or named["before"] or ""
    of_survey = dict(zip(case.metadata.input.all_bands, case.bands, strict=True))
    if word in of_survey:
        return of_survey[word]
    is_plain = word == "" or quantity.is_magnitude
    return case.bands[0] if len(case.bands) == 1 and is_plain else ""
