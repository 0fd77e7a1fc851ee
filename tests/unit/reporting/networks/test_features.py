import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from galbatch.reporting.contents import Features, Quantity
from galbatch.reporting.networks import features as heat_maps
from galbatch.reporting.networks.features import MOST_FEATURES, feature_panels, summarize_features


def made(n_objects=60):
    """Feature 7 fires in all objects, 3 in every second, 5 in every third that has not 3; in the last object none fires."""
    rng = np.random.default_rng(2)
    index = np.full((n_objects, 2), -1)
    index[:-1, 0] = 7
    index[:-1:2, 1] = 3
    index[3:-1:6, 1] = 5
    activation = np.where(index >= 0, rng.uniform(1, 2, index.shape), np.nan)
    # The strongest activation is not in the column of rank 0 only: ranks may be in any order here.
    activation[4, 1] = 9.0
    radius = np.full((n_objects, 1), np.nan)
    radius[:-1, 0] = activation[:-1, 0] ** 3
    return Features(index, activation), [Quantity("sfnet", "re_arcsec", "arcsec", (0.5,), radius)]


def test_numbers_of_features():
    features, quantities = made()
    found = summarize_features(features, quantities)
    assert found.number.tolist() == [7, 3, 5]
    assert found.n_objects.tolist() == [59, 30, 10]
    np.testing.assert_allclose(found.share, [1.0, 30 / 59, 10 / 59])
    # All objects of 3 and 5 have 7; 3 and 5 never meet.
    np.testing.assert_allclose(found.together, [[1, 30 / 59, 10 / 59], [1, 1, 0], [1, 0, 1]])
    assert found.strongest[1, 0] == 4
    # The others by their activation, in order; feature 3 is in rank 1 of every second object.
    order = np.arange(0, 60, 2)[np.argsort(-features.activation[:-1:2, 1])]
    assert found.strongest[1].tolist() == order[:3].tolist()
    # The radius grows with the activation of feature 7; with that of 3 it has nothing to do, but for chance.
    expected = spearmanr(features.activation[:-1:2, 1], quantities[0].median[:-1:2]).statistic
    np.testing.assert_allclose(found.correlation[:2, 0], [1.0, expected])
    assert found.median_activation[0] == pytest.approx(np.median(features.activation[:-1, 0]))


def test_few_objects_and_values_that_do_not_vary_have_no_correlation():
    features, quantities = made(21)
    found = summarize_features(features, quantities)
    assert found.n_objects.tolist() == [20, 10, 3]
    assert np.isnan(found.correlation[2, 0])
    flat = [Quantity("sfnet", "z", "", (0.5,), np.ones((21, 1)))]
    assert np.isnan(summarize_features(features, flat).correlation).all()


def test_correlations_of_many_objects_are_those_of_a_sample(monkeypatch):
    features, quantities = made(300)
    whole = summarize_features(features, quantities)
    monkeypatch.setattr(heat_maps, "MOST_RANKED", 100)
    found = summarize_features(features, quantities)
    np.testing.assert_array_equal(found.n_objects, whole.n_objects)
    assert found.correlation[0, 0] == pytest.approx(1.0)
    # Of 50 objects with feature 3 instead of 150: the standard error is 0.14.
    assert found.correlation[1, 0] != whole.correlation[1, 0]
    assert found.correlation[1, 0] == pytest.approx(whole.correlation[1, 0], abs=0.45)


def test_nothing_fired():
    features = Features(np.full((5, 2), -1), np.full((5, 2), np.nan))
    assert summarize_features(features, []) is None


def test_objects_in_which_a_feature_is_strongest_are_fewer_than_three():
    features = Features(np.array([[5, -1], [5, 8]]), np.array([[1.0, np.nan], [2.0, 0.5]]))
    found = summarize_features(features, [])
    assert found.number.tolist() == [5, 8]
    assert found.strongest.tolist() == [[1, 0, -1], [1, -1, -1]]


def test_the_most_frequent_are_shown():
    index = np.arange(40).reshape(20, 2)
    index[:10, 0] = 30
    found = summarize_features(Features(index, np.ones(index.shape)), [])
    assert len(found.number) == MOST_FEATURES
    assert found.number[0] == 30
    assert feature_panels(found, []).startswith(b"\x89PNG")


@pytest.mark.parametrize(("color_map", "lowest"), [("Blues", 0.0), ("RdBu_r", -1.0)])
def test_numbers_can_be_read_on_every_color(color_map, lowest):
    values = np.linspace(lowest, 1.0, 41)[None]
    axes = Figure().subplots()
    heat_maps._heat_map(axes, values, ["0"] * 41, color_map=color_map, lowest=lowest)
    (image,) = axes.get_images()
    luminance = heat_maps._luminance(image.to_rgba(values))[0]
    for text, cell in zip(axes.texts, luminance, strict=True):
        light, dark = {"white": 1.0, "black": 0.0}[text.get_color()] + 0.05, cell + 0.05
        assert max(light, dark) / min(light, dark) >= 4.5
