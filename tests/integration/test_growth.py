"""Catalogs that grow and are merged: what is unchanged is taken, and the result equals a run from nothing byte for byte."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from galbatch import api, catalog, config, execution, ingest
from galbatch.catalog import pass_outputs
from galbatch.core.columns import parse_columns
from galbatch.core.flags import ModelFlag
from galbatch.errors import CatalogError, ConfigError, UsageError

GAMPEN = '[[models]]\nname = "gampen"\nbundle = "demo:gampen"\n'
SFNET = '[[models]]\nname = "sfnet"\nbundle = "demo:sfnet"\nwhere = "z_best > 0.1"\n'
ARRAYS = (
    "object_id",
    "image",
    "crpix",
    "cd",
    "flags",
    "tile",
    "coverage",
    "sky_sigma_njy",
    "n_tiles",
    "band_key",
    "pixel_digest",
)


def base(folder):
    """Return the replacement in run.toml that names the outputs in `folder` as the base."""
    named = f'[cutouts]\nbase = "{folder}/cutouts.zarr"\n[catalog]\nbase = "{folder}/catalog"\n'
    return ("[cluster]", f"{named}[cluster]")


@pytest.fixture(scope="module")
def run(write_run, client):
    """Run a run.toml, of which keywords replace parts, and return the result."""

    def run(folder, **changes):
        parsed = config.read_config(write_run(folder, **changes))
        result = execution.execute(parsed, execution.prepare(parsed), client)
        assert result.complete
        return result

    return run


@pytest.fixture(scope="module")
def lists(survey, tmp_path_factory):
    """The first 70 of the survey's objects, and the others."""
    folder, table = tmp_path_factory.mktemp("lists"), pq.read_table(survey / "objects.parquet")
    pq.write_table(table.slice(0, 70), folder / "first.parquet")
    pq.write_table(table.slice(70), folder / "rest.parquet")
    return folder


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """The folder of a run of all objects with both networks from nothing, and its result."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder)


def rows(folder, name="catalog"):
    """All rows of a catalog in the order of their ids, as the division of the sky may differ."""
    return catalog.read_catalog(str(folder / name)).sort_by("object_id")


def cutouts(folder):
    """The arrays of all cutouts, (object, ..) in the order of their ids, by grid and name."""
    found = {}
    for pixel, grid in ingest.list_done(str(folder / "cutouts.zarr")):
        for block in ingest.read_blocks(str(folder / "cutouts.zarr"), pixel, grid):
            for name in ARRAYS:
                found.setdefault((grid, name), []).append(getattr(block, name))
    joined = {key: np.concatenate(values) for key, values in found.items()}
    order = {grid: np.argsort(ids) for (grid, name), ids in joined.items() if name == "object_id"}
    return {(grid, name): values[order[grid]] for (grid, name), values in joined.items()}


def assert_equal_rows(found, expected, *, but=()):
    assert found.schema.names == expected.schema.names
    for name in found.schema.names:
        if name not in but:
            assert found.column(name).combine_chunks().equals(expected.column(name).combine_chunks()), name


def assert_equal_cutouts(here, expected):
    found, wanted = cutouts(here), cutouts(expected)
    assert found.keys() == wanted.keys()
    for key, values in wanted.items():
        assert found[key].dtype == values.dtype
        assert found[key].tobytes() == values.tobytes(), key


def columns_of(table, model):
    return [name for name, (one, _) in parse_columns(table.column_names).items() if one == model]


def test_more_objects_and_one_more_network(run, whole, lists, tmp_path):
    expected, from_nothing = whole
    older = tmp_path / "older"
    run(older, objects=lists / "first.parquet", replace=[(SFNET, "")])
    before = {path: path.stat().st_mtime_ns for path in older.rglob("*") if path.is_file()}
    result = run(tmp_path / "new", max_objects=31, replace=[base(older)])
    found = rows(tmp_path / "new")
    assert_equal_rows(found, rows(expected))
    assert_equal_cutouts(tmp_path / "new", expected)
    # sfnet has band r in addition, so all is cut; gampen is computed for the objects that are new.
    assert (result.n_cut, result.n_cutouts_taken) == (len(found), 0)
    assert result.n_values_taken == 70
    passes = np.isin(found["object_id"].to_numpy(), rows(older)["object_id"].to_numpy())
    assert result.n_passes == from_nothing.n_passes - found["gampen_passes"].to_numpy()[passes].sum()
    assert {path: path.stat().st_mtime_ns for path in older.rglob("*") if path.is_file()} == before


def test_more_objects(run, whole, lists, tmp_path):
    expected, from_nothing = whole
    result = run(
        tmp_path / "older", objects=lists / "first.parquet", max_objects=50, replace=[base(expected)]
    )
    assert (result.n_cut, result.n_passes) == (0, 0)
    result = run(tmp_path / "new", replace=[base(tmp_path / "older")])
    assert_equal_rows(rows(tmp_path / "new"), rows(expected))
    assert_equal_cutouts(tmp_path / "new", expected)
    assert (result.n_cut, result.n_cutouts_taken) == (from_nothing.n_cut - 70, 70)
    assert 0 < result.n_passes < from_nothing.n_passes


def test_other_kept_columns_and_another_division_compute_nothing(run, survey, whole, tmp_path):
    expected, _ = whole
    objects = pq.read_table(survey / "objects.parquet")
    wider = objects.append_column("field", pa.array([f"field {row % 3}" for row in range(len(objects))]))
    pq.write_table(wider, tmp_path / "objects.parquet")
    keep = ('keep = ["z_best"]', 'keep = ["z_best", "field"]')
    result = run(
        tmp_path, objects=tmp_path / "objects.parquet", max_objects=31, replace=[keep, base(expected)]
    )
    assert (result.n_cut, result.n_passes) == (0, 0)
    found = rows(tmp_path)
    assert_equal_rows(found.drop_columns(["field"]), rows(expected))
    assert_equal_cutouts(tmp_path, expected)
    assert catalog.verify(str(tmp_path / "catalog")) == []


def test_a_new_bundle_of_one_network_computes_that_alone(run, whole, tmp_path):
    expected, _ = whole
    other = ('bundle = "demo:gampen"', 'bundle = "demo:gampen_survey"')
    from_nothing = run(tmp_path / "nothing", replace=[other])
    result = run(tmp_path / "new", replace=[other, base(expected)])
    found = rows(tmp_path / "new")
    assert_equal_rows(found, rows(tmp_path / "nothing"))
    assert_equal_cutouts(tmp_path / "new", tmp_path / "nothing")
    sfnet = np.maximum(found["sfnet_passes"].to_numpy(), 0).sum()
    assert result.n_passes == from_nothing.n_passes - sfnet > 0
    assert result.n_values_taken == np.count_nonzero(found["sfnet_identity"].to_numpy())


def test_a_replaced_tile_cuts_and_computes_what_it_touches(run, survey, whole, tmp_path):
    expected, from_nothing = whole
    shutil.copytree(survey, tmp_path / "survey")
    tile = sorted((tmp_path / "survey").rglob("calexp-HSC-R-*.fits"))[0]
    with fits.open(tile, mode="update") as hdus:
        hdus[1].data += 0.01
    run(tmp_path / "nothing", survey=tmp_path / "survey")
    result = run(tmp_path / "new", survey=tmp_path / "survey", replace=[base(expected)])
    assert_equal_rows(rows(tmp_path / "new"), rows(tmp_path / "nothing"))
    assert_equal_cutouts(tmp_path / "new", tmp_path / "nothing")
    assert result.n_cut + result.n_cutouts_taken == from_nothing.n_cut
    # One tile of eight was replaced, in a band that one of the networks takes. Cutouts that others filled before it are taken.
    assert 0 < result.n_cut < from_nothing.n_cut / 2
    changed = (
        rows(tmp_path / "new")["sfnet_identity"].to_numpy() != rows(expected)["sfnet_identity"].to_numpy()
    )
    passes = rows(tmp_path / "new")["sfnet_passes"].to_numpy()
    assert result.n_passes >= passes[changed].sum() > 0


def test_a_survey_that_moved_computes_nothing(run, survey, whole, tmp_path):
    expected, from_nothing = whole
    # Copied with its times, as rsync does, the files are those that were.
    shutil.copytree(survey, tmp_path / "kept")
    result = run(tmp_path / "first", survey=tmp_path / "kept", replace=[base(expected)])
    assert (result.n_cut, result.n_passes) == (0, 0)
    # With other times pixels are cut once more; they prove to be the same, so that no network runs.
    shutil.copytree(survey, tmp_path / "touched", copy_function=shutil.copyfile)
    result = run(tmp_path / "second", survey=tmp_path / "touched", replace=[base(expected)])
    assert (result.n_cut, result.n_passes) == (from_nothing.n_cut, 0)
    for name in ("first", "second"):
        assert_equal_rows(rows(tmp_path / name), rows(expected))
    # A card that is added to a header makes another version of the tile with the same pixels.
    tile = sorted((tmp_path / "kept").rglob("calexp-HSC-G-*.fits"))[0]
    with fits.open(tile, mode="update") as hdus:
        hdus[0].header["HISTORY"] = "seen again"
    result = run(tmp_path / "third", survey=tmp_path / "kept", replace=[base(expected)])
    assert 0 < result.n_cut < from_nothing.n_cut
    assert result.n_passes == 0


def test_kept_pass_outputs_are_taken_with_the_values(run, whole, tmp_path):
    expected, from_nothing = whole
    keeps = ("seed = 1", "seed = 1\nkeep_pass_outputs = true")
    # Without pass outputs in the base all values are computed, and the same.
    result = run(tmp_path / "first", replace=[keeps, base(expected)])
    assert (result.n_values_taken, result.n_passes) == (0, from_nothing.n_passes)
    result = run(tmp_path / "second", replace=[keeps, base(tmp_path / "first")])
    assert (result.n_cut, result.n_passes) == (0, 0)
    first, second = (str(tmp_path / name / "catalog") for name in ("first", "second"))
    n_rows = 0
    for pixel, model in pass_outputs.list_done(first):
        fingerprint = pass_outputs.read_done(first, pixel, model)["fingerprint"]
        kept, taken = (
            pass_outputs.open_pass_outputs(path, pixel, model, fingerprint=fingerprint)
            for path in (first, second)
        )
        assert np.array_equal(kept.offset, taken.offset)
        for one in kept.object_id.tolist():
            (outputs,), (others,) = kept.outputs(one), taken.outputs(one)
            assert outputs.tobytes() == others.tobytes()
            n_rows += len(outputs)
    assert n_rows == from_nothing.n_passes


def test_bases_that_cannot_be_are_refused(write_run, tmp_path):
    for old, message in (
        (tmp_path / "none", "no cutouts there; give the store of an older run"),
        (tmp_path / "own", "the base is not changed: give store another path"),
    ):
        parsed = config.read_config(write_run(tmp_path / "own", replace=[base(old)]))
        with pytest.raises(ConfigError, match=message):
            execution.prepare(parsed)


def test_a_plan_says_in_words_what_differs_from_the_base(write_run, whole, tmp_path):
    expected, _ = whole
    parsed = config.read_config(write_run(tmp_path, seed=2, replace=[base(expected)]))
    assert any("posterior seed: 1 there, 2 here" in note for note in execution.prepare(parsed).notes)
    # Of a network that only one of the two has, no more is said than that.
    parsed = config.read_config(write_run(tmp_path, replace=[(SFNET, ""), base(expected)]))
    known, told = [note for note in execution.prepare(parsed).notes if note.startswith("base ")]
    assert "values and cutouts are taken from it where they would be the same" in known
    _, _, differences = told.partition("/catalog: ")
    assert differences == (
        "grids: 96px_0.168arcsec g+r there, 96px_0.168arcsec g here; models: gampen sfnet there, gampen here"
    )


def test_merged_catalogs_equal_one_run(run, whole, lists, tmp_path):
    expected, _ = whole
    parts = {
        "first": {"objects": lists / "first.parquet"},
        "rest": {"objects": lists / "rest.parquet"},
        "gampen": {"replace": [(SFNET, "")]},
        "sfnet": {"replace": [(GAMPEN, "")]},
    }
    for name, changes in parts.items():
        replace = [*changes.pop("replace", []), base(expected)]
        run(tmp_path / name, replace=replace, **changes)
    for pair in (("first", "rest"), ("gampen", "sfnet")):
        output = tmp_path / "_".join(pair)
        merged = api.merge([str(tmp_path / name / "catalog") for name in pair], str(output / "catalog"))
        assert merged == api.Merged(126)
        # Neighbors beyond the own list are unknown to each of two lists; objects that sfnet leaves out were not cut in r, and are
        # measured in g alone.
        in_r = [f"{name}_r" for name in ("coverage", "psf_fwhm_arcsec", "sky_sigma_njy", "sky_source")]
        in_r += [f"{name}_r" for name in ("sky_level_njy", "sky_level_err_njy")]
        measured = [name for name in rows(expected).schema.names if name.startswith("phot_")]
        # The second opinion is of the photometry, which also decides one of the networks' flags.
        opinion = [f"{model}_{what}" for model in ("gampen", "sfnet") for what in ("disagreement", "flags")]
        but = ["flags"] if "first" in pair else [*in_r, *measured, *opinion]
        assert_equal_rows(rows(output), rows(expected), but=but)
        for model in ("gampen", "sfnet"):
            found, wanted = (
                rows(one).column(f"{model}_flags").to_numpy() & ~int(ModelFlag.INCONSISTENT)
                for one in (output, expected)
            )
            np.testing.assert_array_equal(found, wanted)
        assert catalog.verify(str(output / "catalog")) == []
    with pytest.raises(UsageError, match="70 objects in several of them, such as"):
        api.merge([str(tmp_path / name / "catalog") for name in ("first", "sfnet")], str(tmp_path / "no"))
    refused = _refused_merges(run, expected, lists, tmp_path)
    for pair, message in refused.items():
        with pytest.raises((UsageError, CatalogError), match=message):
            api.merge([str(tmp_path / name / "catalog") for name in pair], str(tmp_path / "no"))
    with pytest.raises(UsageError, match="holds a catalog already; choose another -o"):
        api.merge(
            [str(tmp_path / name / "catalog") for name in ("first", "rest")],
            str(tmp_path / "first_rest" / "catalog"),
        )
    assert not (tmp_path / "no").exists()


def _refused_merges(run, expected, lists, tmp_path):
    """Make catalogs that contradict those of the test, and return pairs with the error that is expected of each."""
    rest, taken = lists / "rest.parquet", base(expected)
    run(tmp_path / "narrow", objects=rest, replace=[(SFNET, ""), taken])
    other_bundle = ('bundle = "demo:gampen"', 'bundle = "demo:gampen_survey"')
    run(tmp_path / "bundle", objects=rest, replace=[other_bundle, taken])
    # The same objects with another value of a kept column, by which sfnet is not selected here.
    table = pa.concat_tables([pq.read_table(lists / name) for name in ("first.parquet", "rest.parquet")])
    at = table.column_names.index("z_best")
    pq.write_table(
        table.set_column(at, "z_best", pa.array(np.arange(len(table)) + 0.5)), tmp_path / "z.parquet"
    )
    run(tmp_path / "values", objects=tmp_path / "z.parquet", replace=[(SFNET, ""), taken])
    shutil.copytree(tmp_path / "rest" / "catalog", tmp_path / "unfinished" / "catalog")
    for name in ("hats.properties", "properties"):
        path = tmp_path / "unfinished" / "catalog" / name
        path.write_text(path.read_text().replace("galbatch_complete=true", "galbatch_complete=false"))
    return {
        ("first",): "give two catalogs or more",
        ("first", "narrow"): "no object in common and other columns: coverage_r",
        ("first", "bundle"): "was written with bundle gampen",
        ("values", "sfnet"): "z_best of object",
        ("first", "unfinished"): "is not complete; run galbatch run until it is",
    }


def test_a_damaged_base_gives_what_is_whole(run, whole, tmp_path):
    expected, _ = whole
    older = tmp_path / "older"
    for name in ("catalog", "cutouts.zarr"):
        shutil.copytree(expected / name, older / name)
    # One leaf is cut short, one is zeros of its length, and one partition's group of cutouts has a file that is not as written.
    short, zeros, _, *_ = leaves = sorted((older / "catalog" / "dataset").rglob("*.parquet"))
    lost = sum(pq.read_metadata(path).num_rows for path in (short, zeros))
    short.write_bytes(short.read_bytes()[:-200])
    zeros.write_bytes(bytes(zeros.stat().st_size))
    pixel, grid = sorted(ingest.list_done(str(older / "cutouts.zarr")))[-1]
    n_damaged = len(ingest.read_object_ids(str(older / "cutouts.zarr"), pixel, grid))
    shards = [
        p for p in (older / "cutouts.zarr" / pixel.path).rglob("*") if p.is_file() and "/image/c/" in str(p)
    ]
    shards[0].write_bytes(shards[0].read_bytes()[: shards[0].stat().st_size // 2])
    result = run(tmp_path / "new", replace=[base(older)])
    assert len(leaves) > 4
    assert_equal_rows(rows(tmp_path / "new"), rows(expected))
    assert_equal_cutouts(tmp_path / "new", expected)
    n_all = len(rows(expected))
    assert n_damaged > 0
    # gampen takes all objects; those of two leaves, and those that were cut again on the grid, are the only ones made anew.
    assert 0 < result.n_cut <= n_damaged
    assert result.n_cutouts_taken > 0
    made = n_all - lost
    assert result.n_values_taken >= made
    assert result.n_passes > 0
