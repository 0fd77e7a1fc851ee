"""The division of the sky, and what it says a run takes."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galbatch.config import CutoutsConfig, RunConfig
from galbatch.core import sky
from galbatch.core.types import Grid, ObjectTable
from galbatch.errors import ConfigError
from galbatch.ingest import cutting_cost
from galbatch.objects import ListCounts, ListSource
from galbatch.planning import MAX_HEALPIX_ORDER, ModelPlan, divide, make_plan


def sorted_sky(ra_deg, dec_deg):
    return np.sort(sky.healpix_29(np.asarray(ra_deg, float), np.asarray(dec_deg, float)))


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.floats(0, 359.99), st.floats(-90, 90)), min_size=1, max_size=200),
    st.integers(1, 20),
)
def test_each_object_is_in_one_partition_and_in_its_pixel(positions, max_objects):
    healpix = sorted_sky(*zip(*positions, strict=True))
    partitions = divide(healpix, max_objects=max_objects, max_bytes=1)
    assert [p.start for p in partitions] == [0, *[p.stop for p in partitions[:-1]]]
    assert partitions[-1].stop == len(healpix)
    for p in partitions:
        pixels = sky.pixel_of(healpix[p.start : p.stop], p.healpix_order)
        assert (pixels == p.healpix_pixel).all()
        assert p.n_objects <= max_objects or p.healpix_order == MAX_HEALPIX_ORDER


def test_it_splits_for_objects_and_for_bytes():
    rng = np.random.default_rng(1)
    healpix = sorted_sky(rng.uniform(10, 12, 1000), rng.uniform(-1, 1, 1000))
    whole = divide(healpix, max_objects=10**6, max_bytes=1)
    by_count = divide(healpix, max_objects=100, max_bytes=1)
    by_bytes = divide(
        healpix, max_objects=10**6, max_bytes=5000, bytes_of=lambda start, stop: 50 * (stop - start)
    )
    assert len(whole) < 12
    assert max(p.n_objects for p in by_count) <= 100
    assert max(p.n_objects for p in by_bytes) <= 100
    assert [p.path for p in by_count] == [p.path for p in by_bytes]


def test_it_stops_at_the_finest_order_and_at_one_object():
    crowd = sorted_sky(np.full(50, 10.0), np.full(50, 5.0))
    (partition,) = divide(crowd, max_objects=10, max_bytes=1)
    assert partition.healpix_order == MAX_HEALPIX_ORDER
    assert partition.n_objects == 50
    (single,) = divide(
        sorted_sky([10.0], [5.0]), max_objects=1, max_bytes=1, bytes_of=lambda start, stop: 10**9
    )
    assert single.healpix_order == 0


def test_no_objects_no_partitions():
    assert divide(np.zeros(0, np.int64), max_objects=10, max_bytes=1) == []


GIB = 2**30
GRID = Grid(239, 0.168)
SPACING_DEG = 4100 * 0.168 / 3600


def list_of(ra_deg, dec_deg, **kept):
    healpix = sky.healpix_29(ra_deg, dec_deg)
    rank = np.argsort(healpix)
    table = ObjectTable(
        np.arange(len(rank)) + 36411452835238206,
        np.asarray(ra_deg)[rank],
        np.asarray(dec_deg)[rank],
        healpix[rank],
        pa.table({name: np.asarray(values)[rank] for name, values in kept.items()} or {"n": rank}),
    )
    return ListSource(
        table, pa.table({"object_id": pa.array([], pa.int64())}), ListCounts(len(rank), len(rank), len(rank))
    )


def config_of(bands, *, survey=(), **plan):
    return RunConfig(
        survey=survey or {"layout": "hsc", "tiles": "tiles", "bands": list(bands)},
        objects={"path": "objects.parquet"},
        models=[{"name": "gampen", "bundle": "gampen.pt"}],
        plan=plan,
    )


def model_of(bands, *, name="gampen", grid=GRID, **changes):
    return ModelPlan(
        name, changes.pop("where", None), (f"{name}.pt",), ("0" * 64,), grid, tuple(bands), **changes
    )


@pytest.fixture(scope="module")
def patches(tile_at):
    """40 x 30 patches of 4200 x 4200 px that overlap by 100 px, as in a tract of HSC, with three planes."""

    def make(bands, root, n_x=40, n_y=30, **changes):
        return [
            tile_at(
                150 + SPACING_DEG * x / np.cos(np.radians(SPACING_DEG * y)),
                SPACING_DEG * y,
                band=band,
                root=root,
                **changes,
            )
            for x in range(n_x)
            for y in range(n_y)
            for band in bands
        ]

    return make


def spread_over(rng, n_objects, n_x=40, n_y=30):
    dec = rng.uniform(-0.08, SPACING_DEG * (n_y - 1) + 0.08, n_objects)
    return 150 + rng.uniform(-0.08, SPACING_DEG * (n_x - 1) + 0.08, n_objects) / np.cos(np.radians(dec)), dec


@pytest.mark.parametrize("root", ["/survey", "s3://survey"])
def test_a_sparse_sample_over_1200_tiles_becomes_many_partitions(patches, root):
    tiles = patches("grizy", root)
    assert len(tiles) == 6000
    source = list_of(*spread_over(np.random.default_rng(1), 6000))
    plan = make_plan(config_of("grizy"), source, tiles, [model_of("grizy")])
    # By number alone this is one partition or two; 5 bands of 3 planes at 239 px are 3 MB an object to read.
    assert len(divide(source.objects.healpix_29, max_objects=20_000, max_bytes=1)) <= 4
    assert 6 <= len(plan.partitions) <= 60
    assert all(part.projection.total_bytes <= 8 * GIB for part in plan.partitions)
    assert plan.oversize == ()
    total = plan.projection
    assert total.n_cutouts == (6000,)
    assert total.window_bytes == pytest.approx(6000 * 15 * 239 * 239 * 4, rel=1e-3)
    assert total.write_bytes == pytest.approx(6000 * 5 * 239 * 239 * 4, rel=1e-3)
    assert 1.0 < plan.read_amplification < (2.0 if root.startswith("s3") else 6.0)
    if root.startswith("s3"):
        assert total.requests > 6000 * 15
    else:
        assert total.requests == 0


def test_bytes_and_requests_are_those_of_every_tile_with_its_windows(patches):
    tiles = patches("gr", "s3://survey", n_x=4, n_y=3) + patches(
        "i", "s3://survey", n_x=3, n_y=3, compressed=True
    )
    centers = {tile.tile_id: np.mean(tile.corners_deg, axis=0) for tile in tiles}
    # Objects in the middle of tiles: which tile covers them is beyond doubt.
    rng = np.random.default_rng(2)
    names = rng.choice(sorted(centers), 300)
    ra, dec = np.array([centers[name] for name in names]).T + rng.uniform(-0.03, 0.03, (2, 300))
    source = list_of(ra, dec, name=names)
    plan = make_plan(config_of("gri", max_objects_per_partition=100), source, tiles, [model_of("gri")])
    assert len(plan.partitions) > 3
    for part in plan.partitions:
        rows = slice(part.partition.start, part.partition.stop)
        inside = source.objects.kept.column("name").to_numpy(zero_copy_only=False)[rows]
        costs = [
            cutting_cost(tile, n_windows=int((inside == tile.tile_id).sum()), size_px=239) for tile in tiles
        ]
        assert part.projection.read_bytes == sum(cost.bytes_ for cost in costs)
        assert part.projection.requests == sum(cost.requests for cost in costs)


def test_a_dense_list_reads_each_tile_about_once(patches):
    tiles = patches("g", "s3://survey", n_x=2, n_y=2)
    source = list_of(*spread_over(np.random.default_rng(3), 40_000, 2, 2))
    plan = make_plan(config_of("g"), source, tiles, [model_of("g")])
    assert 2 <= len(plan.partitions) <= 20
    file_bytes = 3 * 4200 * 4200 * 4
    touched = sum(len(part.tiles) for part in plan.partitions)
    assert 4 * file_bytes < plan.projection.read_bytes < 1.01 * touched * file_bytes
    assert plan.read_amplification < 0.2


def test_the_plan_does_not_depend_on_the_workers(patches):
    tiles = patches("g", "/survey", n_x=2, n_y=2)
    source = list_of(*spread_over(np.random.default_rng(3), 300, 2, 2))
    config = config_of("g", max_objects_per_partition=20)
    plans = [make_plan(config.with_cluster(workers=n), source, tiles, [model_of("g")]) for n in (1, 64)]
    assert plans[0].partitions == plans[1].partitions
    assert len(plans[0].partitions) > 15


def test_other_psf_widths_of_the_list_are_another_store(patches):
    tiles = patches("g", "/survey", n_x=2, n_y=2)
    source = list_of(*spread_over(np.random.default_rng(3), 60, 2, 2))
    widths = np.full(60, 0.8, np.float32)
    changed = np.where(np.arange(60) == 59, np.float32(0.9), widths)
    found = []
    for psf in ({}, {"g": widths}, {"g": changed}, {"r": widths}):
        table = dataclasses.replace(source.objects, psf_fwhm_arcsec=psf)
        listed = dataclasses.replace(source, objects=table)
        plan = make_plan(config_of("g", max_objects_per_partition=20), listed, tiles, [model_of("g")])
        found.append([part.ingest.digest for part in plan.partitions])
    none, same, other, band = found
    assert len(none) > 2
    assert all(a != b for a, b in zip(none, same, strict=True))
    assert all(a != b for a, b in zip(same, band, strict=True))
    # Only the last object has another width: only its partition is another.
    assert [a != b for a, b in zip(same, other, strict=True)] == [False] * (len(none) - 1) + [True]


def test_only_selected_pairs_of_object_and_grid_are_cut(patches):
    tiles = patches("gr", "/survey", n_x=2, n_y=2)
    rng = np.random.default_rng(4)
    source = list_of(*spread_over(rng, 300, 2, 2), z=rng.uniform(0, 1, 300))
    models = [
        model_of("g", name="near", where="z < 0.2"),
        model_of("r", name="mid", where="z < 0.4"),
        model_of("r", name="far", where="z > 0.7", grid=Grid(96, 0.168)),
    ]
    config = config_of("gr", max_objects_per_partition=50)
    plan = make_plan(config, source, tiles, models)
    z = source.objects.kept.column("z").to_numpy()
    assert [model.n_selected for model in plan.models] == [(z < 0.2).sum(), (z < 0.4).sum(), (z > 0.7).sum()]
    small, large = plan.grids
    assert (small.bands, large.bands) == (("r",), ("g", "r"))
    assert (small.n_cutouts, large.n_cutouts) == ((z > 0.7).sum(), (z < 0.4).sum())
    assert plan.projection.n_cutouts == (small.n_cutouts, large.n_cutouts)
    part = plan.partitions[1].partition
    taken = plan.take(part)
    np.testing.assert_array_equal(large.needed(taken.selected), z[part.start : part.stop] < 0.4)
    assert plan.projection.window_bytes == 12 * (96**2 * small.n_cutouts + 2 * 239**2 * large.n_cutouts)


class TestNotes:
    def test_objects_outside_every_tile_are_counted(self, patches):
        tiles = patches("g", "/survey", n_x=2, n_y=2)
        source = list_of([150.0, 150.05, 200.0, 10.0], [0.0, 0.05, 0.0, -80.0])
        plan = make_plan(config_of("g"), source, tiles, [model_of("g")])
        (note,) = plan.notes
        assert note.startswith("outside every tile: 2 of 4 objects;")
        assert plan.projection.read_bytes > 0

    def test_a_survey_of_another_release_or_background(self, patches):
        tiles = [
            dataclasses.replace(tile, release="pdr3", background="local sky: per visit")
            for tile in patches("gr", "/survey", n_x=1, n_y=1)
        ]
        source = list_of([150.0], [0.0])

        def notes(**trained):
            return make_plan(config_of("gr"), source, tiles, [model_of("gr", **trained)]).notes

        assert notes() == ()
        assert notes(release="PDR3", background="Local sky") == ()
        assert notes(release="pdr2", background="global sky") == (
            "[[models]] gampen was trained on release 'pdr2'; the tiles in g, r are of 'pdr3'",
            "[[models]] gampen was trained on background 'global sky'; the tiles in g, r are of "
            "'local sky: per visit'",
        )

    def test_a_selection_of_nothing(self, patches):
        tiles = patches("g", "/survey", n_x=1, n_y=1)
        source = list_of([150.0, 150.01], [0.0, 0.0], z=[0.1, 0.2])
        models = [model_of("g"), model_of("g", name="other", where="z > 1")]
        plan = make_plan(config_of("g"), source, tiles, models)
        assert plan.notes == ("[[models]] other: where = 'z > 1' selects no object",)
        with pytest.raises(ConfigError, match=r"no network is for any of the 2 objects: .* where = 'z > 1'"):
            make_plan(config_of("g"), source, tiles, models[1:])


def test_two_surveys_are_read_side_by_side(tile_at):
    """Each object costs a window of both surveys, whose tiles are no neighbors of one lattice."""
    tiles = [
        dataclasses.replace(tile_at(150.0, 2.0, root="/des"), band="des_g", pixel_scale_arcsec=0.263),
        dataclasses.replace(tile_at(150.01, 2.0, root="/ps1"), band="ps1_g", pixel_scale_arcsec=0.25),
    ]
    survey = [{"layout": "generic", "name": name, "tiles": name, "bands": ["g"]} for name in ("des", "ps1")]
    config = config_of((), survey=survey)
    source = list_of([150.0, 150.002], [2.0, 2.001])
    plan = make_plan(config, source, tiles, [model_of(("des_g", "ps1_g"), grid=Grid(100, 0.263))])
    # 100 px of 0.263 arcsec are 105.2 px of 0.25.
    assert plan.projection.window_bytes == 2 * 12 * (100**2 + 106**2)


@pytest.mark.parametrize("stated", [{"psf_fwhm_arcsec": 0.9}, {"njy_per_unit": 60.0}])
def test_what_a_table_of_tiles_states_is_in_the_fingerprint(patches, stated):
    """Such a table changes no file of the tiles, and is no part of run.toml."""
    tiles = patches("g", "/survey", n_x=1, n_y=1)
    changed = [dataclasses.replace(tile, **stated) for tile in tiles]
    source = list_of([150.0], [0.0])
    parts = [
        make_plan(config_of("g"), source, t, [model_of("g")]).partitions[0] for t in (tiles, tiles, changed)
    ]
    assert parts[0].ingest.digest == parts[1].ingest.digest != parts[2].ingest.digest
    assert parts[0].leaf.digest != parts[2].leaf.digest


def test_a_method_of_resampling_is_in_the_fingerprint_but_for_the_default(patches):
    tiles, source = patches("g", "/survey", n_x=1, n_y=1), list_of([150.0], [0.0])

    def ingest_parts(**cutouts):
        config = config_of("g").model_copy(update={"cutouts": CutoutsConfig(**cutouts)})
        plan = make_plan(config, source, tiles, [model_of("g")])
        return plan.partitions[0].ingest.parts

    assert "resampling" not in ingest_parts()
    assert ingest_parts(resampling="low_pass") == ingest_parts()
    assert ingest_parts(resampling="exact") == {**ingest_parts(), "resampling": "exact"}


def test_another_shipped_second_opinion_is_another_catalog_with_the_same_values(patches):
    """A file beside the bundle is not covered by the bundle's hash."""
    tiles, source = patches("g", "/survey", n_x=1, n_y=1), list_of([150.0], [0.0])

    def plan(**changes):
        return make_plan(config_of("g"), source, tiles, [model_of("g", **changes)])

    without, first, second = plan(), plan(opinion="a"), plan(opinion="b")
    parts = [one.partitions[0].leaf.parts for one in (without, first, second)]
    assert parts[1] == {**parts[0], "second opinion of gampen": "a"}
    assert parts[2] == {**parts[0], "second opinion of gampen": "b"}
    # What a network's values follow from is the same, so they are taken from an older catalog.
    assert len({one.models[0].settings for one in (without, first, second)}) == 1
