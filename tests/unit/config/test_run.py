"""run.toml: every wrong key says where it stands and what was meant."""

import re
import tomllib
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import pytest

from galbatch import config, errors, models
from galbatch.config import strict
from galbatch.core.flags import MaskBit
from galbatch.ingest.layouts import LAYOUTS
from galbatch.ingest.store import PLANE_DTYPES

MINIMAL = """
[survey]
layout = "hsc"
tiles = "tiles/*.fits"
bands = ["g", "r"]
[objects]
path = "objects.parquet"
[[models]]
name = "gampen"
bundle = "demo:gampen"
"""


def write(folder, text):
    path = folder / "run.toml"
    path.write_text(text)
    return path


def refusal(tmp_path, text):
    with pytest.raises(errors.ConfigError) as caught:
        config.read_config(write(tmp_path, text))
    return str(caught.value)


def test_a_minimal_file_has_the_documented_defaults(tmp_path):
    parsed = config.read_config(write(tmp_path, MINIMAL))
    assert parsed.plan.max_bytes_per_partition == 8 * 2**30
    assert parsed.posterior.quantiles == (0.02275, 0.15865, 0.5, 0.84135, 0.97725)
    assert parsed.objects.invalid == "refuse"


def test_relative_paths_are_relative_to_the_file(tmp_path):
    parsed = config.read_config(write(tmp_path, MINIMAL))
    assert parsed.survey[0].tiles == str(tmp_path / "tiles/*.fits")
    assert parsed.catalog.path == str(tmp_path / "catalog")
    assert parsed.models[0].bundle == ("demo:gampen",)


def test_s3_paths_stay(tmp_path):
    text = MINIMAL.replace('"tiles/*.fits"', '"s3://bucket/**/calexp-*.fits"')
    assert config.read_config(write(tmp_path, text)).survey[0].tiles == "s3://bucket/**/calexp-*.fits"


def test_unknown_key_names_the_nearest_and_the_file(tmp_path):
    text = MINIMAL + "[posterior]\npassess = 64\n"
    assert refusal(tmp_path, text) == "run.toml: [posterior] passess: unknown key; did you mean passes?"


def test_unknown_key_in_a_list_of_tables(tmp_path):
    text = MINIMAL + 'wher = "z_best < 0.25"\n'
    assert refusal(tmp_path, text) == "run.toml: [models] wher: unknown key; did you mean where?"


def test_a_key_that_was_renamed_is_refused_with_its_new_name(tmp_path):
    text = MINIMAL + 'columns = ["ebv"]\n'
    assert refusal(tmp_path, text) == "run.toml: [models] columns: renamed; write auxiliary_inputs"


def test_unknown_section(tmp_path):
    assert (
        refusal(tmp_path, MINIMAL + "[catalogue]\n")
        == "run.toml: catalogue: unknown key; did you mean catalog?"
    )


def test_a_renamed_key_names_the_new_one(tmp_path, monkeypatch):
    monkeypatch.setattr(
        strict, "RENAMED_KEYS", {("posterior", "rounds"): "passes", ("models", "net"): "bundle"}
    )
    assert refusal(tmp_path, MINIMAL + 'net = "a.pt"\n[posterior]\nrounds = 64\n') == (
        "run.toml: [models] net: renamed; write bundle\nrun.toml: [posterior] rounds: renamed; write passes"
    )


def test_renamed_keys_lead_to_keys_that_there_are():
    sections = {name: section_class(info) for name, info in config.RunConfig.model_fields.items()}
    for (section, old), new in strict.RENAMED_KEYS.items():
        if section in sections:  # the others are of settings of a training and descriptions of a network
            assert new in sections[section].model_fields
            assert old not in sections[section].model_fields


def test_missing_key(tmp_path):
    assert refusal(tmp_path, MINIMAL.replace('layout = "hsc"\n', "")) == (
        "run.toml: [survey] layout: missing; it has no default"
    )


def test_all_mistakes_are_told_at_once(tmp_path):
    message = refusal(
        tmp_path, MINIMAL + '[plan]\nmax_objects_per_partition = 0\nmax_bytes_per_partition = "8 giraffes"\n'
    )
    assert "max_objects_per_partition: Input should be greater than or equal to 1 (found 0)" in message
    assert "'8 giraffes' is no size" in message


@pytest.mark.parametrize("quantiles", ["[]", "[0.0, 0.5]", "[0.5, 0.2]", "[0.1, 0.9]", "[0.5, 0.5]"])
def test_quantiles_must_rise_between_0_and_1_with_the_median(tmp_path, quantiles):
    assert "quantiles must" in refusal(tmp_path, MINIMAL + f"[posterior]\nquantiles = {quantiles}\n")


def test_psf_columns_are_of_the_runs_bands(tmp_path):
    text = MINIMAL.replace("[[models]]", 'psf_fwhm_arcsec = {g = "g_seeing", z = "z_seeing"}\n[[models]]')
    assert "[objects] psf_fwhm_arcsec: z: no such band; there are g, r" in refusal(tmp_path, text)
    parsed = config.read_config(write(tmp_path, text.replace(", z = ", ", r = ")))
    assert parsed.objects.psf_fwhm_arcsec == {"g": "g_seeing", "r": "z_seeing"}


def test_model_names_must_differ(tmp_path):
    text = MINIMAL + '[[models]]\nname = "gampen"\nbundle = "x.pt"\n'
    assert "names must differ" in refusal(tmp_path, text)


def test_image_plane_must_be_stored(tmp_path):
    assert "planes must name image" in refusal(tmp_path, MINIMAL + '[cutouts]\nplanes = ["mask"]\n')


def test_no_such_file(tmp_path):
    with pytest.raises(errors.ConfigError, match=r"absent\.toml: cannot be read: No such file"):
        config.read_config(tmp_path / "absent.toml")


def test_no_toml(tmp_path):
    assert "is no TOML" in refusal(tmp_path, "[survey\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8 GiB", 8 * 2**30),
        ("500 MB", 500 * 10**6),
        (1024, 1024),
        ("1.5 KiB", 1536),
        ("7", 7),
        ("2_000", 2000),
    ],
)
def test_sizes(text, expected):
    assert config.parse_bytes(text) == expected


def test_workers_can_be_overridden(tmp_path):
    parsed = config.read_config(write(tmp_path, MINIMAL))
    assert parsed.with_cluster(workers=3).cluster.workers == 3
    assert parsed.with_cluster().cluster == parsed.cluster
    with pytest.raises(errors.ConfigError, match=r"--cluster schedular: .*did you mean scheduler"):
        parsed.with_cluster(kind="schedular")
    with pytest.raises(
        errors.ConfigError, match="--scheduler tcp://a:1 joins a running scheduler, --cluster local"
    ):
        parsed.with_cluster(kind="local", scheduler="tcp://a:1")


def test_an_address_is_joined_and_what_belongs_to_another_kind_is_left_behind(tmp_path):
    parsed = config.read_config(write(tmp_path, MINIMAL + "[cluster]\nworkers = 3\nretries = 5\n"))
    joined = parsed.with_cluster(scheduler="tcp://a:1")
    assert (joined.cluster.kind, joined.cluster.scheduler, joined.cluster.device) == (
        "scheduler",
        "tcp://a:1",
        "cpu",
    )
    assert (joined.cluster.workers, joined.cluster.retries) == (3, 5)
    assert joined.with_cluster(kind="scheduler", scheduler="tcp://b:2").cluster.scheduler == "tcp://b:2"
    text = MINIMAL + '[cluster]\nkind = "scheduler"\nscheduler = "tcp://a:1"\ndevice = "cuda"\n'
    parsed = config.read_config(write(tmp_path, text))
    assert parsed.with_cluster(scheduler="tcp://b:2").cluster.device == "cuda"
    here = parsed.with_cluster(kind="local").cluster
    assert (here.kind, here.scheduler, here.device) == ("local", None, "cpu")


def test_keys_of_one_kind_are_left_behind_whatever_they_are():
    """A key that a new kind brings is dropped with it, as other kinds may refuse it."""
    shared = {"workers": 3, "wait_s": 7.0, "retries": 5, "dashboard_address": "127.0.0.1:0"}
    mine = config.ClusterConfig(kind="scheduler", scheduler="tcp://a:1", device="cuda", **shared)
    assert mine.override(kind="local").model_dump() == config.ClusterConfig(**shared).model_dump()
    on_gpus = config.ClusterConfig(kind="local-cuda", device="cuda")
    assert on_gpus.override(scheduler="tcp://a:1").device == "cuda"
    assert on_gpus.override(kind="local").device == "cpu"


def section_class(info):
    """The class of a section, whether it stands once or is a list."""
    return info.annotation if isinstance(info.annotation, type) else info.annotation.__args__[0]


def choices(section, key):
    """The names that a key of a section takes, whether it takes one or a list."""
    kind = section.model_fields[key].annotation
    return set(get_args(get_args(kind)[0] if get_origin(kind) is tuple else kind))


def test_every_name_in_the_schema_is_one_that_a_registry_has():
    assert choices(config.SurveyConfig, "layout") == set(LAYOUTS)
    assert choices(config.FlagsConfig, "bad_planes") <= set(MaskBit.__members__)
    assert choices(config.CutoutsConfig, "planes") == set(PLANE_DTYPES)
    fields = get_type_hints(models.Engine)
    assert choices(config.PosteriorConfig, "engine") == {"auto", *get_args(fields["kind"])}
    assert choices(config.PosteriorConfig, "precision") == {"auto", *get_args(fields["precision"])}


def test_every_key_has_help():
    for section in config.RunConfig.model_fields.values():
        kind = section_class(section)
        for name, field in kind.model_fields.items():
            assert field.description, f"{kind.__name__}.{name}"


def test_the_examples_of_the_reference_are_valid():
    """Every [survey] in the TOML blocks of docs/reference/layouts.md."""
    prose = (Path(__file__).parents[3] / "docs" / "reference" / "layouts.md").read_text(encoding="utf-8")
    blocks = [tomllib.loads(block) for block in re.findall(r"```toml\n(.*?)```", prose, re.DOTALL)]
    surveys = [block["survey"] for block in blocks if "survey" in block]
    assert {survey["layout"] for survey in surveys} >= {"generic", "stamps", "galaxiesml"}
    for survey in surveys:
        assert config.parse_strictly(config.SurveyConfig, survey, "docs").zero_point_mag is not None


def test_the_catalog_of_stamps_is_relative_to_the_file_and_not_in_the_fingerprint(tmp_path):
    text = MINIMAL.replace("[objects]", '[survey.stamps]\ncatalog = "info.csv"\n[objects]')
    text = text.replace('"hsc"', '"stamps"')
    survey = config.read_config(write(tmp_path, text)).survey[0]
    assert survey.stamps.catalog == str(tmp_path / "info.csv")
    assert "catalog" not in survey.model_dump()["stamps"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("psf_fwhm_arcsec = {q = 0.8}", "[survey] psf_fwhm_arcsec: q: no such band; bands has g, r"),
        ("zero_point_mag = {g = 27.0, R = 27.0}", "[survey] zero_point_mag: R: no such band"),
        ("psf_fwhm_arcsec = {g = -0.8}", "should be greater than or equal to 0.0001 (found -0.8)"),
        ("psf_fwhm_arcsec = {g = inf}", "should be a finite number"),
        ("zero_point_mag = nan", "should be a finite number"),
        (
            "[survey.generic]\nimage = 1",
            "[survey.generic] is read for layout generic only, here layout is hsc",
        ),
        ('[survey.stamps]\nband = "g"', "[survey.stamps] is read for layout stamps only"),
        (
            "[survey.galaxiesml]\npixel_scale_arcsec = 0.2",
            "[survey.galaxiesml] is read for layout galaxiesml",
        ),
        (
            "[survey.generic]\nmask_planes = {SAT = 1}",
            "the bits of a mask, but none is read: give mask or mask_replace",
        ),
        (
            '[survey.generic]\nweight_kind = "inverse_variance"',
            "describes a weight, but none is read: give weight",
        ),
        ("[survey.generic]\naxis = {g = 0, r = -1}", "greater than or equal to 0 (found -1)"),
    ],
)
def test_what_a_survey_would_ignore_is_refused(tmp_path, lines, message):
    assert message in refusal(tmp_path, MINIMAL.replace("[objects]", f"{lines}\n[objects]"))


def test_mistakes_between_sections_are_told_with_the_files_name(tmp_path):
    text = MINIMAL.replace("[survey]", "[[survey]]").replace(
        "[objects]", MINIMAL.split("[objects]")[0].replace("[survey]", "[[survey]]") + "[objects]"
    )
    assert refusal(tmp_path, text).startswith("run.toml: [survey] bands must differ, named twice: g, r; ")


def test_bands_that_differ_only_in_case_are_told_apart_by_the_name_of_a_survey(tmp_path):
    section, rest = MINIMAL.replace("[survey]", "[[survey]]").split("[objects]")
    both = section + section.replace('["g", "r"]', '["G", "z"]')
    assert refusal(tmp_path, f"{both}[objects]{rest}").startswith(
        "run.toml: [survey] bands must differ in more than their case, found G, g: readers of the catalog"
    )
    (tmp_path / "run.toml").write_text(f'{both}name = "vista"\n[objects]{rest}')
    assert config.read_config(tmp_path / "run.toml").bands == ("g", "r", "vista_G", "vista_z")


def test_a_bundle_is_one_or_a_list(tmp_path):
    for written, expected in (
        ('"a.pt"', ("a.pt",)),
        ('["a.pt", "demo:gampen"]', ("a.pt", "demo:gampen")),
    ):
        (tmp_path / "run.toml").write_text(
            f"""
            [survey]
            layout = "hsc"
            tiles = "t"
            bands = ["g"]
            [objects]
            path = "o.parquet"
            [[models]]
            name = "m"
            bundle = {written}
            auxiliary_inputs = ["ebv"]
            calibrated = false
            """
        )
        model = config.read_config(tmp_path / "run.toml").models[0]
        resolved = tuple(name if ":" in name else str(tmp_path / name) for name in expected)
        assert model.bundle == resolved
        assert model.auxiliary_inputs == ("ebv",)
        assert model.calibrated is False
    for wrong in ([], 3):
        with pytest.raises(errors.ConfigError, match="bundle: "):
            config.parse_strictly(config.ModelConfig, {"name": "m", "bundle": wrong}, "run.toml")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            '"tiles/*.fits"',
            '"ftp://anna:PLANTED@host/*.fits"',
            "survey.tiles: ftp://anna:***@host/*.fits: the URL holds",
        ),
        (
            '"tiles/*.fits"',
            '"x"\nsecret = "https://h?sig=PLANTED"',
            "survey.secret: https://h?sig=***: the URL holds",
        ),
        ('"tiles/*.fits"', '"x"\nsecret_key = "PLANTED"', "[survey] secret_key: unknown key"),
        ('["g"', '["../g"', "[survey.bands]"),
        ('["g"', r'["g\u0000"', "survey.bands: holds control characters"),
        ('"demo:gampen"', r'"a\u0000.pt"', "models.bundle: holds control characters"),
        ('"gampen"', '"../gampen"', "[models] name: String should match pattern"),
        ('"gampen"', f'"{"g" * 65}"', "[models] name: String should have at most 64 characters"),
        (
            "[[models]]",
            '[catalog]\nname = "a\\nhats_nrows=1"\n[[models]]',
            "[catalog] name: String should match",
        ),
    ],
)
def test_names_and_paths_hold_no_credentials_control_characters_or_ways_out(tmp_path, old, new, told):
    text = MINIMAL.replace(old, new, 1)
    assert text != MINIMAL
    found = refusal(tmp_path, text)
    assert told in found
    assert "PLANTED" not in found
