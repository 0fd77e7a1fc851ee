"""The report of a checked list as text, which ends with lines to paste into run.toml."""

from __future__ import annotations

import numpy as np

from galbatch.config import RegionConfig
from galbatch.objects.checking.check import ListCheck

__all__ = ["TO_PASTE", "report_lines"]

TO_PASTE = "To paste into run.toml"
"""The line of a report below which all lines are TOML."""


def report_lines(check: ListCheck) -> list[str]:
    """Return the check as human-readable lines."""
    columns = (
        ("id", check.objects.id, check.id_kind),
        ("ra", check.objects.ra, _span(check.positions.ra_deg)),
        ("dec", check.objects.dec, _span(check.positions.dec_deg)),
    )
    width = max(len(name) for _, name, _ in columns)
    rows = f"{check.counts.n_listed} row{'' if check.counts.n_listed == 1 else 's'}"
    lines = [f"{check.objects.path}: {rows}, {check.n_columns} columns", *_chosen_lines(check)]
    for key, name, what in columns:
        guessed = " (guessed by its name)" if key in check.guessed else ""
        lines.append(f"  {key:<3}  {name:<{width}}  {what}{guessed}")
    lines.append("")
    if check.refusals:
        verb = "Left out" if check.objects.invalid == "drop" else "Refused"
        lines.append(f"{verb}: {check.n_refused} of {check.n_rows} rows cannot be used")
        for refusal in check.refusals:
            lines.append(
                f"  {refusal.n_rows} x {refusal.reason}{', the first:' if refusal.n_rows > 1 else ':'}"
            )
            lines += [f"    {example}" for example in refusal.examples]
    if check.refusals and check.objects.invalid == "refuse":
        lines.append(
            '  Correct them, or set invalid = "drop": they are then left out and listed in rejected.parquet.'
        )
    if not check.refusals:
        lines.append("Accepted as it is: no row would be refused")
    lines += [f"network {name}: {n} of the objects" for name, n in check.n_selected.items()]
    lines += ["", *_cut_lines(check), ""]
    if notes := _all_notes(check):
        lines += ["Worth knowing", *(f"  {note}" for note in notes), ""]
    return lines + _to_paste(check)


def _chosen_lines(check: ListCheck) -> list[str]:
    """Return a line each for the region and for `where`, if they are stated, with the number of rows that they leave."""
    objects, counts = check.objects, check.counts
    lines = [f"  {counts.n_in_region} of them in the region {objects.region}"] if objects.region else []
    if objects.where:
        lines.append(f"  {counts.n_chosen} of {'these' if lines else 'them'} where {objects.where}")
    return lines


def _span(limits_deg: tuple[float, float]) -> str:
    if np.isnan(limits_deg[0]):
        return "no row that could be used"
    # Five decimals of a degree are 0.04 arcsec: enough to see which field a list covers.
    return f"{limits_deg[0]:.5f} to {limits_deg[1]:.5f} deg"


def _cut_lines(check: ListCheck) -> list[str]:
    if not check.cuts:
        return ["Usual cuts: none of the columns suggests one that would remove a row"]
    width = max(len("keep where"), *(len(cut.where) for cut in check.cuts))
    lines = ["Usual cuts (none is made unless you write it)", f"  {'keep where':<{width}}  removes  because"]
    for cut in check.cuts:
        unknown = f" ({cut.n_unknown} unknown)" if cut.n_unknown else ""
        lines.append(f"  {cut.where:<{width}}  {cut.n_removed:>7}  {cut.why}{unknown}")
    if len(check.cuts) > 1:
        lines.append(f"  {'all of them':<{width}}  {check.n_cut:>7}")
    return lines


def _all_notes(check: ListCheck) -> list[str]:
    flags = check.flags
    notes = list(check.notes)
    if check.positions.n_wrapped:
        lie = (
            "right ascensions lie outside 0..360 and are"
            if check.positions.n_wrapped > 1
            else "right ascension lies outside 0..360 and is"
        )
        notes.insert(0, f"{check.positions.n_wrapped} {lie} wrapped")
    for count, radius, flag in (
        (check.n_neighbor, flags.neighbor_radius_arcsec, "NEIGHBOR"),
        (check.n_duplicate, flags.duplicate_radius_arcsec, "DUPLICATE_POSITION"),
    ):
        if count:
            notes.append(f"{count} rows have another within {radius:g} arcsec: they stay, flagged {flag}")
    if check.n_duplicate and check.cuts:
        notes.append(
            "these two flags look at all rows of the run, whatever a network's `where` selects: rows that are no objects of their own, such as "
            "those that are not primary, are better left out by [objects] where"
        )
    return notes


def _to_paste(check: ListCheck) -> list[str]:
    objects = check.objects
    lines = [TO_PASTE, "  [objects]", f"  path = {_toml(objects.path)}"]
    if objects.hdu is not None:
        lines.append(f"  hdu = {objects.hdu if isinstance(objects.hdu, int) else _toml(objects.hdu)}")
    lines += [
        f"  {key} = {_toml(name)}"
        for key, name in (("id", objects.id), ("ra", objects.ra), ("dec", objects.dec))
    ]
    if objects.id_type != "as_stored":
        lines.append(f"  id_type = {_toml(objects.id_type)}")
    if objects.where:
        lines.append(f"  where = {_toml(objects.where)}")
    if objects.region:
        lines.append(f"  region = {_toml_region(objects.region)}")
    if columns := list(dict.fromkeys(cut.column for cut in check.cuts)):
        lines.append(f"  keep = [{', '.join(map(_toml, columns))}]  # what the cuts read")
    if check.refusals and objects.invalid == "drop":
        lines.append('  invalid = "drop"')
    elif check.refusals:
        lines.append('  # invalid = "drop"  # leaves the refused rows out; without it the run stops')
    if check.cuts:
        where = " and ".join(cut.where for cut in check.cuts)
        lines += [
            "  # all the cuts, for [[models]]; what is cut stays, flagged NOT_SELECTED:",
            f"  # where = {_toml(where)}",
        ]
    return lines


def _toml_region(region: RegionConfig) -> str:
    ((key, value),) = region.model_dump(exclude_none=True).items()
    if isinstance(value, str):
        return f"{{ {key} = {_toml(value)} }}"
    items = (_toml(item) if isinstance(item, str) else f"{item:g}" for item in value)
    return f"{{ {key} = [{', '.join(items)}] }}"


def _toml(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
