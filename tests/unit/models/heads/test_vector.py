"""Vectors: numbers that are no posterior, which only converted networks give."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from galbatch.core.columns import ColumnKey, Statistic
from galbatch.errors import BundleError, ConfigError
from galbatch.models import (
    AuxiliaryInput,
    BundleMetadata,
    HeadInfo,
    InputInfo,
    ParameterInfo,
    check_candidates,
    parse_settings,
)
from galbatch.models.heads import has_posterior, head_problems, loss_of
from galbatch.models.inference.summaries import all_finite

HEAD = HeadInfo("vector", length=3)
SPECTRUM = ParameterInfo("flux", "nJy", "flux of a spectrum", "identity")


def bundle_of(**changes):
    """A bundle of which only the metadata are read."""
    given = InputInfo(auxiliary_inputs=(AuxiliaryInput("latents", length=4),))
    metadata = BundleMetadata("sed", "1", "mlp", given, HEAD, (SPECTRUM,), **changes)
    return SimpleNamespace(metadata=metadata)


def test_vectors_are_neither_transformed_nor_without_a_length():
    assert head_problems(HEAD, (SPECTRUM,)) == []
    (problem,) = head_problems(HeadInfo("vector"), (SPECTRUM,))
    assert "length: how many numbers the vector has" in problem
    (problem,) = head_problems(HEAD, (dataclasses.replace(SPECTRUM, scale=2.0),))
    assert "flux: a vector has transform identity" in problem
    (problem,) = head_problems(HEAD, (SPECTRUM, dataclasses.replace(SPECTRUM, name="z")))
    assert "the vector is one parameter, found 2" in problem
    (problem,) = head_problems(HeadInfo("gaussian", length=3), (SPECTRUM,))
    assert "length belongs to head vector" in problem


@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_a_vector_has_no_posterior_and_is_not_calibrated(rate):
    bundle = bundle_of(dropout_rate=rate)
    assert not has_posterior([bundle])
    with pytest.raises(BundleError, match="sed: gives a vector, which has no intervals"):
        check_candidates([bundle])


def test_a_vector_is_not_trained():
    settings = {
        "name": "sed",
        "architecture": "mlp",
        "head": "vector",
        "length": 3,
        "parameters": [{"name": "flux", "unit": "nJy", "description": "", "transform": "identity"}],
        "auxiliary_inputs": [{"name": "latents", "length": 4}],
    }
    with pytest.raises(ConfigError, match="head: vector is of converted networks and is not trained"):
        parse_settings(settings, source="train.toml")
    with pytest.raises(BundleError, match="has no loss"):
        loss_of(HEAD, (SPECTRUM,))


def test_one_number_that_is_none_spoils_the_vector():
    values = np.zeros((4, 3))
    values[1, 2], values[2, 0], values[3, 1] = np.nan, np.inf, 1e39
    found = {ColumnKey(Statistic.VECTOR, "flux"): values}
    assert all_finite(found).tolist() == [True, False, False, False]
