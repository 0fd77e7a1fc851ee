"""A model of several networks, each for other objects, that fill one set of columns."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from galbatch import api, catalog, config, execution, reporting
from galbatch.core.columns import DISAGREEMENT, MODEL_FLAGS, parse_columns
from galbatch.core.flags import ModelFlag
from galbatch.errors import BundleError, ConfigError
from galbatch.execution import rates

GAMPEN = '[[models]]\nname = "gampen"\nbundle = "demo:gampen"\n'
SFNET = '[[models]]\nname = "sfnet"\nbundle = "demo:sfnet"\nwhere = "z_best > 0.1"\n'
LOW = 'bundle = "demo:gampen"\nbands = ["g"]\nwhere = "z_case < 0.2"\n'
HIGH = 'bundle = "demo:gampen_survey"\nbands = ["r"]\nwhere = "z_case >= 0.2 and z_case < 0.6"\n'
CASES = f'[[models]]\nname = "photo"\n[[models.cases]]\nname = "low"\n{LOW}[[models.cases]]\nname = "high"\n{HIGH}'
PASSES = '"adaptive"\nmin_passes = 8\nmax_passes = 24\nkeep_pass_outputs = true'


@pytest.fixture(scope="module")
def objects(survey, tmp_path_factory):
    """Forty of the survey's objects, with the column that the cases go by: some of its values are missing, some in no case."""
    table = pq.read_table(survey / "objects.parquet").slice(0, 40)
    z = np.linspace(0.0, 0.8, len(table))
    path = tmp_path_factory.mktemp("objects") / "objects.parquet"
    pq.write_table(table.append_column("z_case", pa.array(z, mask=np.arange(len(z)) == 3)), path)
    return path


@pytest.fixture(scope="module")
def write(write_run, objects):
    def write(folder, models, *, replace=()):
        changes = [
            (GAMPEN, ""),
            (SFNET, models),
            ('keep = ["z_best"]', 'keep = ["z_best", "z_case"]'),
            *replace,
        ]
        return write_run(folder, max_objects=15, passes=PASSES, objects=objects, replace=changes)

    return write


@pytest.fixture(scope="module")
def run(write, client):
    def run(folder, models, **changes):
        parsed = config.read_config(write(folder, models, **changes))
        result = execution.execute(parsed, execution.prepare(parsed), client)
        assert result.complete
        return result

    return run


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """The folder of a run of both cases, and its result."""
    folder = tmp_path_factory.mktemp("cases")
    return folder, run(folder, CASES)


@pytest.fixture(scope="module")
def low_alone(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("low")
    return folder, run(folder, f'[[models]]\nname = "photo"\n{LOW}')


@pytest.fixture(scope="module")
def high_alone(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("high")
    return folder, run(folder, f'[[models]]\nname = "photo"\n{HIGH}')


def rows(folder):
    return catalog.read_catalog(str(folder / "catalog")).sort_by("object_id").to_pandas()


def test_each_case_has_the_values_of_its_network_alone(whole, low_alone, high_alone, objects):
    found = rows(whole[0])
    z = pq.read_table(objects).to_pandas().set_index("object_id")["z_case"].loc[found["object_id"]].to_numpy()
    case = found["photo_case"].to_numpy()
    np.testing.assert_array_equal(case, np.where(z < 0.2, "low", np.where(z < 0.6, "high", "")))
    # The photometry is that of all bands of a run, and the second opinion is of it.
    names = [
        name
        for name, (model, key) in parse_columns(found.columns).items()
        if model == "photo" and key not in (DISAGREEMENT, MODEL_FLAGS)
    ]
    assert 0 < len(names) < len(found.columns)
    for alone, name in ((low_alone, "low"), (high_alone, "high")):
        there, here = rows(alone[0])[case == name], found[case == name]
        assert len(here) >= 9
        for column in (c for c in names if c in there.columns):
            np.testing.assert_array_equal(here[column], there[column], err_msg=column)
        others = ~int(ModelFlag.INCONSISTENT)
        np.testing.assert_array_equal(here["photo_flags"] & others, there["photo_flags"] & others)
        assert np.isfinite(here["photo_disagreement"]).any()
    # Objects of a row without the value, and above the last case.
    neither = found[case == ""]
    assert len(neither) == 11
    assert (neither["photo_flags"] == int(ModelFlag.NOT_SELECTED)).all()
    assert neither["photo_bt_q500"].isna().all()
    assert whole[1].n_passes == low_alone[1].n_passes + high_alone[1].n_passes


def test_columns_say_in_which_band_each_case_was_observed(whole):
    schema = catalog.read_schema(str(whole[0] / "catalog"))
    text = schema.field("photo_bt_q500").metadata[b"description"].decode()
    assert "observed in g (case low) or r (case high)" in text
    assert b"low, high" in schema.field("photo_case").metadata[b"description"]
    # A flux in two bands is of no band.
    assert schema.field("photo_flux_njy_q500").metadata[b"ucd"] == b"phot.flux.density;stat.median"


def test_the_catalog_verifies_and_says_what_each_network_was(whole):
    path = str(whole[0] / "catalog")
    assert catalog.verify(path) == []
    parsed = config.read_config(whole[0] / "run.toml")
    assert execution.verify_against(parsed, path) == []
    properties = catalog.read_properties(path)
    for case in ("low", "high"):
        assert properties[f"galbatch_engine_photo.{case}"].endswith("float32")
        assert "training galaxies" in properties[f"galbatch_prior_photo.{case}"]
        assert properties[f"galbatch_audit_photo.{case}"]
        assert catalog.trained_ranges(properties, f"photo.{case}")["bt"] == (0.0, 1.0)
    assert catalog.networks_of(properties, "photo") == ["photo.low", "photo.high"]
    reporting.report(path, whole[0] / "report.html")
    page = (whole[0] / "report.html").read_text(encoding="utf-8")
    assert re.search(r"bulge-to-total ratio \d\.\d % \(low 0 to 1, high 0 to 1\)", page)


def test_draws_are_those_of_the_object_s_own_network(whole, low_alone, high_alone):
    found = rows(whole[0])
    request = api.Request(50)
    for alone, case in ((low_alone, "low"), (high_alone, "high")):
        has = (found["photo_case"] == case) & (found["photo_passes"] > 0)
        wanted = [str(found["object_id"][has].iloc[0])]
        (here,) = api.draw(str(whole[0] / "catalog"), wanted, request)
        (there,) = api.draw(str(alone[0] / "catalog"), wanted, request)
        for name, values in there.samples.items():
            np.testing.assert_array_equal(here.samples[name], values)
        np.testing.assert_array_equal(here.log_prior, there.log_prior)
    nobody = [str(found["object_id"][found["photo_case"] == ""].iloc[0])]
    (none,) = api.draw(str(whole[0] / "catalog"), nobody, api.Request(50, model="photo"))
    assert none.reason == "no passes were run: NOT_SELECTED"


def test_a_case_that_is_added_leaves_the_other_as_it_was(run, whole, low_alone, tmp_path):
    older = low_alone[0]
    base = f'[cutouts]\nbase = "{older}/cutouts.zarr"\n[catalog]\nbase = "{older}/catalog"\n[posterior]\n'
    without = [("keep_pass_outputs = true", "keep_pass_outputs = false"), ("[posterior]\n", base)]
    result = run(tmp_path, CASES, replace=without)
    expected, found = rows(whole[0]), rows(tmp_path)
    for column in expected.columns:
        np.testing.assert_array_equal(found[column], expected[column], err_msg=column)
    assert result.n_values_taken == (expected["photo_case"] == "low").sum()
    # Passes of the other case alone were made.
    assert result.n_passes == expected["photo_passes"][expected["photo_case"] == "high"].sum()


def test_grown_from_cases_nothing_is_computed(run, whole, tmp_path):
    older = whole[0]
    base = f'[cutouts]\nbase = "{older}/cutouts.zarr"\n[catalog]\nbase = "{older}/catalog"\n[posterior]\n'
    result = run(tmp_path, CASES, replace=[("[posterior]\n", base)])
    assert (result.n_cut, result.n_passes) == (0, 0)
    found, expected = rows(tmp_path), rows(older)
    for column in expected.columns:
        np.testing.assert_array_equal(found[column], expected[column], err_msg=column)


def test_a_catalog_of_cases_is_merged_with_one_of_another_network(run, whole, tmp_path):
    base = f'[cutouts]\nbase = "{whole[0]}/cutouts.zarr"\n[posterior]\n'
    run(tmp_path, SFNET, replace=[("[posterior]\n", base)])
    output = tmp_path / "merged"
    assert api.merge([str(whole[0] / "catalog"), str(tmp_path / "catalog")], str(output)).n_rows == 40
    merged = catalog.read_catalog(str(output)).sort_by("object_id").to_pandas()
    for folder in (whole[0], tmp_path):
        own = rows(folder)
        models = {model for model, _ in parse_columns(own.columns).values()}
        for column in (name for name in own.columns if name.split("_")[0] in models):
            np.testing.assert_array_equal(merged[column], own[column], err_msg=column)
    assert catalog.verify(str(output)) == []
    # Draws and audits are those of the catalogs that were merged.
    has = (merged["photo_passes"] > 0) & (merged["sfnet_passes"] > 0)
    wanted = merged["object_id"][has].astype(str).tolist()[:3]
    properties = catalog.read_properties(str(output))
    for folder, model in ((whole[0], "photo"), (tmp_path, "sfnet")):
        request = api.Request(20, model=model)
        here, there = (
            list(api.draw(path, wanted, request)) for path in (str(output), str(folder / "catalog"))
        )
        for mine, theirs in zip(here, there, strict=True):
            for name, values in theirs.samples.items():
                np.testing.assert_array_equal(mine.samples[name], values)
        own = catalog.read_properties(str(folder / "catalog"))
        audits = {key: text for key, text in own.items() if key.startswith("galbatch_audit_")}
        assert audits
        assert audits.items() <= properties.items()


def test_memory_and_rates_are_projected_for_each_network(whole):
    parsed = config.read_config(whole[0] / "run.toml")
    plan = execution.prepare(parsed)
    assert [model.name for model in plan.models] == ["photo.low", "photo.high"]
    assert [model.n_selected for model in plan.models] == [9, 20]
    memory = rates.measure_memory(parsed, plan)
    assert memory.host_bytes > 600 * 2**20


def test_objects_in_two_cases_are_refused_with_their_number(write, tmp_path):
    parsed = config.read_config(write(tmp_path, CASES.replace("z_case >= 0.2 and", "z_case >= 0.1 and")))
    with pytest.raises(ConfigError, match=r"photo: 5 objects in both cases low \(z_case < 0.2\) and high"):
        execution.prepare(parsed)


def test_cases_with_other_parameters_are_refused(write, tmp_path):
    other = CASES.replace("demo:gampen_survey", "demo:sfnet").replace('bands = ["r"]\n', "")
    parsed = config.read_config(write(tmp_path, other))
    with pytest.raises(BundleError, match=r"\[\[models\]\] photo: its cases fill one set of columns.* bt_"):
        execution.prepare(parsed)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (
            CASES.replace('name = "photo"\n', 'name = "photo"\nbundle = "demo:gampen"\n', 1),
            "bundle: each of its",
        ),
        (CASES.replace('name = "high"', 'name = "low"'), "names of cases must differ"),
        ('[[models]]\nname = "photo"\n', "bundle: photo has none"),
        (CASES.replace('where = "z_case < 0.2"\n', ""), "where"),
        (CASES.replace('name = "high"', 'name = "a.b"'), "name"),
    ],
)
def test_sections_that_cannot_be_are_refused(write, tmp_path, models, message):
    with pytest.raises(ConfigError, match=message):
        config.read_config(write(tmp_path, models))
