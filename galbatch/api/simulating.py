"""Simulating a survey from Python, and from the command line, which calls the same function."""

from __future__ import annotations

import os
from collections.abc import Sequence

from galbatch.simulation import SimulatedSurvey, simulate_survey

__all__ = ["simulate"]


def simulate(
    out: str | os.PathLike[str],
    *,
    n_objects: int = 2000,
    patches: int = 4,
    bands: Sequence[str] = ("g", "r"),
    population: str = "paper",
    layout: str = "hsc",
    seed: int = 1,
) -> SimulatedSurvey:
    """Simulate a survey with known truth: tiles or stamps in a survey's own files, an object list and the truth table.

    The same arguments always give the same files. Processes are spawned: in a script the call stands below
    ``if __name__ == "__main__"``.

    Parameters
    ----------
    out : str or path
        Local folder or ``s3://`` prefix to write into.
    n_objects : int
        Number of galaxies inside the footprint.
    patches : int
        Number of overlapping patches of the tract.
    bands : sequence of str
        Out of g, r and i; ``"gri"`` is a sequence, too.
    population : {"paper", "survey"}
        Isolated galaxies of Table 1 of the GaMPEN paper; or magnitude counts, neighbors, stars and correlated noise.
    layout : str
        Layout of the files: a value of ``[survey] layout``.
    seed : int
        Seed of all random numbers.

    Returns
    -------
    SimulatedSurvey
        With the paths of what was written, and ``run_toml``, the sections [survey] and [objects] of a run.toml for it.

    Raises
    ------
    OutputError
        `out` has tiles of another survey, or cannot be written.
    ConfigError
        There is no band, a band is repeated or not one of g, r, i, or the population or layout is unknown.

    Examples
    --------
    >>> import galbatch
    >>> survey = galbatch.simulate("survey", n_objects=100, bands="gr")  # doctest: +SKIP
    >>> print(survey.run_toml)  # doctest: +SKIP
    """
    return simulate_survey(
        os.fspath(out),
        n_objects=n_objects,
        patches=patches,
        bands=tuple(bands),
        population=population,
        layout=layout,
        seed=seed,
    )
