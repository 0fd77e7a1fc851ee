"""The hours that a run would take, by its own plan and the rates of this machine."""

from __future__ import annotations

from galbatch import api
from galbatch.doctor.findings import Finding

__all__ = ["projected_run"]


def projected_run(run_toml: str) -> Finding:
    """Return the lines of the plan of a run: bytes, memory and time, from a few of its objects cut and inferred here."""
    made = api.plan(run_toml)
    rows = [*made.rows, *(("", note) for note in made.notes)]
    rates = made.rates
    data = {
        "rows": dict(made.rows),
        "n_measured": rates.n_measured,
        "cutout_s": rates.cutout_s,
        "is_as_planned": rates.is_as_planned,
        "networks": {
            name: {"pass_s": one.pass_s, "passes": one.passes} for name, one in rates.networks.items()
        },
    }
    return Finding(tuple(rows), data)
