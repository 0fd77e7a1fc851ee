"""Where galaxies are injected, and the object list of them: random places in the footprint, or those of a table."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy.spatial

from galbatch import api, execution, models, simulation
from galbatch.config import ModelConfig, RunConfig
from galbatch.core import sky
from galbatch.core.columns import DEC, ID, RA
from galbatch.errors import UsageError
from galbatch.objects import degrees_of, open_objects, read_table

__all__ = ["NEAREST", "TRUE", "bands_of", "placed_galaxies", "random_places", "stated_places", "true_values"]

TRUE = "true_"
"""The beginning of the names of columns of the truth."""

NEAREST = "nearest_listed_arcsec"
"""Distance to the nearest object of the user's list: the crowding of the place."""

FIRST_DRAW = 4
"""Times as many points are drawn as galaxies are wanted: a footprint fills about half of the cells about it, masks less."""

MOST_POINTS = 10_000_000
"""Points that are drawn, unless the first draw is more: a footprint with fewer places is as good as empty."""

Floats = npt.NDArray[np.float64]
Places = tuple[Floats, Floats]


def bands_of(
    networks: Sequence[ModelConfig], stated: Mapping[str, simulation.BandLight]
) -> dict[str, simulation.BandLight]:
    """Return how bright galaxies are in each band that one of the networks is fed: as stated, else by the band's name.

    Raises
    ------
    UsageError
        A band is none of g, r and i, the only ones that simulated galaxies have colors for, and nothing is stated of it; or one is
        stated that no network is fed, or that the simulation has.
    """
    fed: list[str] = []
    for network in networks:
        metadata, _ = models.read_bundle_metadata(models.bundle_path(network.bundle[0]))
        fed += network.bands or metadata.input.all_bands
    for band in stated:
        own = simulation.BandLight.of_name(band)
        if band not in fed or (own is not None and own.simulated == band):
            why = (
                "simulated galaxies have it"
                if own is not None
                else f"networks are fed {', '.join(dict.fromkeys(fed))}"
            )
            raise UsageError(f"--band {band}: {why}; leave it out")
    found = {band: stated.get(band) or simulation.BandLight.of_name(band) for band in dict.fromkeys(fed)}
    if others := [band for band, light in found.items() if light is None]:
        raise UsageError(
            f"networks are fed {', '.join(others)}: simulated galaxies have colors in g, r and i only; say how bright they "
            f"are in others, such as --band {others[0]}=i-0.2 for 0.2 mag brighter than in i, or run it with a run.toml of the networks "
            "that take g, r and i alone"
        )
    return {band: light for band, light in found.items() if light is not None}


def random_places(config: RunConfig, n_galaxies: int, *, seed: int) -> Places:
    """Return right ascensions and declinations (galaxy,), deg, distributed evenly in the footprint under its masks.

    Raises
    ------
    UsageError
        The footprint is empty, or too small a share of the cells about the tiles.
    """
    n_points = FIRST_DRAW * n_galaxies
    while True:
        points = api.area_of_run(config, n_points=n_points, seed=seed).points
        if len(points) >= n_galaxies:
            chosen = points.slice(0, n_galaxies)
            return chosen.column(RA.name).to_numpy(), chosen.column(DEC.name).to_numpy()
        if 10 * n_points > MOST_POINTS:
            raise UsageError(
                f"{len(points)} of {n_points} random points about the tiles lie in all bands, in the region and under the "
                f"masks; {n_galaxies} are needed"
            )
        n_points *= 10


def stated_places(path: str) -> Places:
    """Return the places (galaxy,), deg, in a table with the columns ra_deg and dec_deg.

    Raises
    ------
    ObjectListError
        As `read_table`; or the columns hold no positions.
    UsageError
        The table has no rows, or one of them has no position.
    """
    table = read_table(path, columns=[RA.name, DEC.name])
    ra, dec = (degrees_of(path, table, name) for name in (RA.name, DEC.name))
    (wrong,) = np.nonzero(~(np.isfinite(ra) & (np.abs(dec) <= 90)))
    if len(wrong):
        row = wrong[0]
        raise UsageError(
            f"--at {path}: row {row} has ra_deg {ra[row]:g} and dec_deg {dec[row]:g}; expected a place on the sky in each row"
        )
    if not len(ra):
        raise UsageError(f"--at {path}: has no rows; expected a place for each galaxy")
    return ra % 360, dec


def placed_galaxies(
    config: RunConfig,
    places: Places,
    *,
    bands: Mapping[str, simulation.BandLight],
    population: str,
    seed: int,
) -> tuple[pa.Table, pa.Table]:
    """Return the object list of the galaxies, and their truth in the survey's bands, with the same ids.

    The list has ids, positions, the distance to the nearest object of the user's list, and the truth in columns that begin with ``true_``;
    its magnitude is that in the first of `bands`. Ids follow from population, seed, bands and places, so that other galaxies have other ids.
    """
    ra, dec = places
    simulated = tuple(dict.fromkeys(light.simulated for light in bands.values()))
    drawn = simulation.draw_population(len(ra), bands=simulated, population=population, seed=seed)
    truth = simulation.with_survey_bands(drawn, bands)
    digest = hashlib.sha256(
        f"{population} {seed} {list(bands.items())}".encode() + ra.tobytes() + dec.tobytes()
    ).digest()
    # 41 bits of digest before 20 of numbers: below 2^61, and another injection has other ids.
    first = (int.from_bytes(digest[:8], "little") >> 23) << 20
    ids = pa.array(first + np.arange(len(ra), dtype=np.int64))
    truth = truth.set_column(truth.column_names.index("object_id"), "object_id", ids)
    columns = {
        ID.name: ids,
        RA.name: pa.array(ra),
        DEC.name: pa.array(dec),
        NEAREST: pa.array(_nearest_listed_arcsec(config, places)),
        f"{TRUE}mag": truth.column(f"mag_{next(iter(bands))}"),
        f"{TRUE}re_arcsec": truth.column("re_arcsec"),
    }
    return pa.table(columns), truth


def _nearest_listed_arcsec(config: RunConfig, places: Places) -> Floats:
    """Return the distance of each place to the nearest object of the run's list, (galaxy,) float64."""
    source = open_objects(config.objects, region=execution.region_of_run(config))
    points, nearest = sky.unit_vectors(*places), np.full(len(places[0]), np.inf)
    for chunk in range(len(source.ranges)):
        listed = source.read(chunk)
        if len(listed):
            tree = scipy.spatial.cKDTree(sky.unit_vectors(listed.ra_deg, listed.dec_deg))
            chord, _ = tree.query(points)
            nearest = np.minimum(nearest, 2 * np.degrees(np.arcsin(np.minimum(chord / 2, 1))) * 3600)
    return nearest


def true_values(truth: pa.Table, parameter: str, band: str) -> Floats | None:
    """Return the truth (galaxy,) of a network's parameter; None for one that the simulation does not have.

    Fluxes, magnitudes and bulge-to-total ratios are those in `band`, a band of the survey: components have colors of their own.
    """
    if parameter == "bt":
        parts = {part: _filled(truth, f"{part}_flux_{band}_njy") for part in ("disk", "bulge")}
        return parts["bulge"] / (parts["disk"] + parts["bulge"])
    in_band: Mapping[str, str] = {"flux_njy": f"flux_{band}_njy", "mag": f"mag_{band}"}
    name = in_band.get(parameter, parameter)
    return truth.column(name).to_numpy() if name in truth.column_names else None


def _filled(truth: pa.Table, name: str) -> Floats:
    """Return the fluxes of a component, 0 where a galaxy does not have it."""
    return np.nan_to_num(truth.column(name).to_numpy(zero_copy_only=False), nan=0.0)
