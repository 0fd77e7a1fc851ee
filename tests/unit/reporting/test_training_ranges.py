"""The ranges of the training: of one network, and of the networks of several cases."""

from dataclasses import replace

import numpy as np
import pytest

from galbatch.reporting.contents import read_contents
from galbatch.reporting.training_ranges import beyond_training, training_ranges


@pytest.fixture(scope="module")
def contents(made):
    """A catalog whose first half is of the case low, the next fifth of the case high, the rest of none."""
    found = read_contents(made[0])
    row = np.arange(len(found))
    case = np.where(row < 200, "low", np.where(row < 280, "high", "")).astype(object)
    stated = {
        "galbatch_bundle_gampen.low": "3fa1",
        "galbatch_bundle_gampen.high": "9c07",
        "galbatch_trained_gampen.low": "bt 0 0.5, re_arcsec 0.1 3",
        "galbatch_trained_gampen.high": "bt -9 9",
    }
    others = {key: value for key, value in found.properties.items() if "bundle" not in key}
    return replace(found, properties=others | stated, cases={"gampen": case})


def test_medians_are_compared_with_the_training_of_their_own_case(contents):
    trained = training_ranges(contents, "gampen")
    assert [(one.case, one.ends, int(one.is_own.sum())) for one in trained["bt"]] == [
        ("low", (0.0, 0.5), 200),
        ("high", (-9.0, 9.0), 80),
    ]
    lines = {one.title: one for one in beyond_training(contents.of_model("gampen"), trained)}
    bt, radius = (
        next(one.median for one in contents.quantities if one.parameter == name)
        for name in ("bt", "re_arcsec")
    )
    low = bt[:200][np.isfinite(bt[:200])]
    n_known = np.isfinite(bt[:280]).sum()
    line = lines["bulge-to-total ratio"]
    assert line.share == pytest.approx(((low < 0) | (low > 0.5)).sum() / n_known)
    assert 0.1 < line.share < 0.5
    assert line.ranges == "low 0 to 0.5, high -9 to 9"
    # The case high states no range of the radius: its objects do not count.
    line, own = lines["half-light radius"], radius[:200][np.isfinite(radius[:200])]
    assert line.share == pytest.approx(np.mean((own < 0.1) | (own > 3)))
    assert line.ranges == "low 0.1 to 3 arcsec"


def test_a_model_of_one_network_has_one_range_of_all_objects(contents):
    stated = {"galbatch_bundle_gampen": "3fa1", "galbatch_trained_gampen": "bt 0 1"}
    ((one,),) = training_ranges(replace(contents, properties=stated, cases={}), "gampen").values()
    assert (one.text(""), int(one.is_own.sum())) == ("0 to 1", len(contents))
    assert training_ranges(replace(contents, properties={}), "gampen") == {}
