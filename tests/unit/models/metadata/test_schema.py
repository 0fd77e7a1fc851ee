import dataclasses
import json

import pytest

from galbatch.errors import BundleError
from galbatch.models import AuxiliaryInput, CalibrationInfo, DomainInfo
from galbatch.models.heads import HEADS, outputs_per_pass, read_metadata
from galbatch.models.metadata import write_metadata


def test_survives_json(make):
    metadata = make.gampen_metadata(
        domain=DomainInfo(
            features_mean=(1.0,), features_covariance=((2.0,),), distance_limit=3.0, crop_limits=(0.1, 1.0)
        )
    )
    assert read_metadata(write_metadata(metadata), "x.pt") == metadata


def test_a_ucd_survives_json_and_none_is_not_written(make):
    metadata = make.gampen_metadata()
    assert "ucd" not in write_metadata(metadata)
    text = changed(metadata, lambda d: d["parameters"][1].update(ucd="phys.angSize;src"))
    assert read_metadata(text, "x.pt").parameters[1].ucd == "phys.angSize;src"
    assert '"ucd": "phys.angSize;src"' in write_metadata(read_metadata(text, "x.pt"))


def changed(metadata, edit):
    data = json.loads(write_metadata(metadata))
    edit(data)
    return json.dumps(data)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda d: d.update(dropout_rat=0.1),
            r"x\.pt: galbatch\.json: dropout_rat: unknown key; did you mean dropout_rate",
        ),
        (lambda d: d["input"].update(sizepx=3), r"\[input\] sizepx: unknown key; did you mean size_px"),
        (lambda d: d.pop("head"), r"head: missing"),
        (
            lambda d: d["head"].update(kind="gauss"),
            rf"head gauss: not known; known are {', '.join(HEADS)}",
        ),
        (lambda d: d.update(dropout_rate=1.0), r"dropout_rate must lie in \[0, 1\), found 1\.0"),
        (lambda d: d.update(format=2), r"format 2 is not known"),
        (lambda d: d.update(parameters=[]), r"one or more parameters are needed"),
        (lambda d: d["parameters"][0].update(limits=None), r"parameter bt: logit needs limits"),
        (lambda d: d["parameters"][0].update(limits=[0.9, 0.1]), r"parameter bt: limits must rise"),
        (lambda d: d["parameters"][1].update(scale=0), r"parameter re_arcsec: scale must be above 0"),
        (lambda d: d["parameters"][1].update(magnitude="m"), r"a magnitude is derived from nJy only"),
        (
            lambda d: d["parameters"][1].update(ucd="phys.angsize;x"),
            r"parameter re_arcsec: ucd 'phys.angsize;x': Unknown word 'x'",
        ),
        (lambda d: d["parameters"][1].update(ucd="stat.median"), r"not valid as a primary word"),
        (
            lambda d: d["domain"].update(sky_sigma_njy=[[1, 2], [1, 2]]),
            r"sky_sigma_njy has 2 ranges for 1 bands",
        ),
        (lambda d: d["domain"].update(features_mean=[1.0]), r"go together"),
        (
            lambda d: d.update(calibration={"inflation_factors": []}),
            r"calibration: 3 inflation_factors above 0",
        ),
        (
            lambda d: d["domain"].update(features_mean=[1.0], features_covariance=[[1, 2]], distance_limit=3),
            r"features_covariance is not 1 x 1",
        ),
        (
            lambda d: d["domain"].update(
                features_mean=[1.0, 1.0], features_covariance=[[1.0, 2.0], [2.0, 1.0]], distance_limit=3
            ),
            "features_covariance is not positive definite",
        ),
    ],
)
def test_refuses_what_is_wrong_and_says_where(make, edit, message):
    with pytest.raises(BundleError, match=message):
        read_metadata(changed(make.gampen_metadata(), edit), "x.pt")


def test_refuses_what_is_no_json():
    with pytest.raises(BundleError, match=r"x\.pt: galbatch\.json is no JSON"):
        read_metadata("{", "x.pt")


def test_number_of_outputs(make):
    metadata = make.gampen_metadata()
    assert outputs_per_pass(metadata) == 9
    assert outputs_per_pass(make.sfnet_metadata()) == 5
    assert (
        outputs_per_pass(dataclasses.replace(metadata, head=dataclasses.replace(metadata.head, kind="point")))
        == 3
    )


def test_bundles_of_before_are_read_under_the_names_of_now(make):
    metadata = make.gampen_metadata(calibration=CalibrationInfo(inflation_factors=(1.0, 2.0, 3.0)))
    data = json.loads(write_metadata(metadata))
    data["calibration"]["spread_factors"] = data["calibration"].pop("inflation_factors")
    data["input"].pop("auxiliary_inputs")
    data["input"]["columns"] = [{"name": "ebv", "unit": "mag"}]
    # As conversions recorded them: of SFNet, and of a foreign network.
    data["origin"] = {"stretch": "colors", "preprocessing": {"stretch": "arsinh", "channels": 3}}
    found = read_metadata(json.dumps(data), "old.pt")
    assert found.calibration == metadata.calibration
    assert found.input.auxiliary_inputs == (AuxiliaryInput("ebv", "mag"),)
    assert found.origin == {
        "intensity_stretch": "colors",
        "preprocessing": {"intensity_stretch": "arsinh", "channels": 3},
    }
    written = write_metadata(found)
    assert "inflation_factors" in written
    assert "spread_factors" not in written
    assert "columns" not in json.loads(written)["input"]


def test_both_names_of_a_field_contradict_each_other(make):
    data = json.loads(write_metadata(make.gampen_metadata()))
    data["input"]["columns"] = []
    with pytest.raises(BundleError, match=r"\[input\] columns: renamed; write auxiliary_inputs"):
        read_metadata(json.dumps(data), "x.pt")
