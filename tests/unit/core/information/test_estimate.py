"""Sources whose information is known exactly: the scores are those of the true posteriors."""

import numpy as np
import pytest
from scipy import stats

from galbatch.core.information import LogScores, class_log_frequencies, information_in_bins, log_label_density
from galbatch.errors import UsageError

N = 4000


def gaussian_scores(labels, seen, noise):
    """The log posterior of labels N(0, 1) that are seen with noise: N(seen / (1 + noise^2), noise^2 / (1 + noise^2))."""
    variance = noise**2 / (1 + noise**2)
    return stats.norm(seen / (1 + noise**2), np.sqrt(variance)).logpdf(labels)


def channel(noise):
    return 0.5 * np.log(1 + 1 / noise**2)


def of_all(scores, **options):
    return next(information_in_bins(scores, {}, **options)).named()


def near(found, expected, n_sigma=4):
    """Within four bootstrap errors, and the bias of the entropy's neighbors."""
    value, error = found
    assert value == pytest.approx(expected, abs=n_sigma * error + 0.01)


def test_the_entropy_of_labels_is_that_of_their_distribution():
    rng = np.random.default_rng(1)
    labels = rng.normal(3, 0.2, N)
    assert -log_label_density(labels).mean() == pytest.approx(stats.norm(3, 0.2).entropy(), abs=0.04)
    uniform = rng.uniform(0, 0.5, N)
    assert -log_label_density(uniform).mean() == pytest.approx(np.log(0.5), abs=0.04)
    classes = np.eye(3)[rng.choice(3, N, p=[0.5, 0.3, 0.2])]
    assert -class_log_frequencies(classes).mean() == pytest.approx(
        stats.entropy(classes.mean(axis=0)), rel=1e-9
    )


def test_a_color_that_the_image_has_too_is_redundant():
    """The numbers are a noisy copy of what the image shows: I(numbers) = 1/2 ln(1 + 1 / noise^2), and nothing is theirs alone."""
    rng = np.random.default_rng(2)
    labels = rng.normal(size=N)
    image = labels + rng.normal(0, 0.3, N)
    numbers = image + rng.normal(0, 0.4, N)  # noise of 0.5 in all
    by_image = gaussian_scores(labels, image, 0.3)
    found = of_all(LogScores(by_image, gaussian_scores(labels, numbers, 0.5), by_image, labels))
    near(found["image"], channel(0.3))
    near(found["numbers"], channel(0.5))
    near(found["both"], channel(0.3))
    assert found["numbers_given_image"][0] == pytest.approx(0, abs=1e-12)
    near(found["redundancy_mmi"], channel(0.5))
    assert found["unique_numbers_mmi"][0] == pytest.approx(0, abs=1e-12)
    near(found["unique_image_mmi"], channel(0.3) - channel(0.5))
    assert found["synergy_mmi"][0] == pytest.approx(0, abs=1e-12)
    # CCS sees most of it, less where noise makes one of the changes negative.
    assert 0.8 * channel(0.5) < found["redundancy_ccs"][0] < 1.1 * channel(0.5)


def test_a_shape_that_the_numbers_lack_is_unique_to_the_image():
    rng = np.random.default_rng(3)
    labels = rng.normal(size=N)
    by_image = gaussian_scores(labels, labels + rng.normal(0, 0.3, N), 0.3)
    prior = stats.norm.logpdf(labels)
    found = of_all(LogScores(by_image, prior, by_image, labels))
    near(found["image_given_numbers"], channel(0.3))
    near(found["unique_image_mmi"], channel(0.3))
    for part in ("unique_numbers", "redundancy", "synergy"):
        near(found[f"{part}_mmi"], 0.0)
    # The density of the labels is known to 13 % at each, which CCS takes for a change that all sources share.
    assert found["unique_image_ccs"][0] == pytest.approx(channel(0.3), abs=0.1)
    assert found["redundancy_ccs"][0] == pytest.approx(0.0, abs=0.1)


def test_a_parity_of_two_bits_is_synergy_alone():
    rng = np.random.default_rng(4)
    parity = rng.integers(0, 2, N) ^ rng.integers(0, 2, N)
    half = np.full(N, np.log(0.5))
    found = of_all(LogScores(half, half, np.zeros(N), np.eye(2)[parity]))
    assert found["entropy"][0] == pytest.approx(np.log(2), abs=2e-3)
    assert found["both"][0] == pytest.approx(np.log(2), abs=2e-3)
    for measure in ("mmi", "ccs"):
        assert found[f"synergy_{measure}"][0] == pytest.approx(np.log(2), abs=4e-3)
        assert found[f"redundancy_{measure}"][0] == pytest.approx(0, abs=2e-3)
        assert found[f"unique_image_{measure}"][0] == pytest.approx(0, abs=4e-3)


def test_the_known_flaw_of_the_smaller_information_and_what_ccs_makes_of_it():
    """Two bits, one in each source: nothing is shared, and MMI says a bit is."""
    rng = np.random.default_rng(5)
    bits = rng.integers(0, 2, (N, 2))
    labels = np.eye(4)[2 * bits[:, 0] + bits[:, 1]]
    one_known = np.full(N, np.log(0.5))
    found = of_all(LogScores(one_known, one_known, np.zeros(N), labels))
    assert found["redundancy_mmi"][0] == pytest.approx(np.log(2), abs=3e-3)
    # But for the scatter of the classes' frequencies, 2 % of 1,000 objects each.
    assert found["redundancy_ccs"][0] == pytest.approx(0, abs=0.03)
    assert found["unique_image_ccs"][0] == pytest.approx(np.log(2), abs=0.03)


def test_errors_are_those_of_repeated_samples():
    values, errors = [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        labels = rng.normal(size=500)
        scores = gaussian_scores(labels, labels + rng.normal(0, 0.5, 500), 0.5)
        found = of_all(LogScores(scores, stats.norm.logpdf(labels), scores, labels))
        values.append(found["image_given_numbers"][0])
        errors.append(found["image_given_numbers"][1])
    # The scatter of 30 samples is known to 13 %.
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.4)


def test_bins_have_the_entropy_of_their_own_labels():
    """Faint objects have noisier images, and in each bin the labels are narrower than in all."""
    rng = np.random.default_rng(6)
    magnitude = rng.uniform(20, 22, 2 * N)
    center = np.where(magnitude < 21, -3.0, 3.0)
    noise = np.where(magnitude < 21, 0.2, 1.0)
    offset = rng.normal(size=2 * N)
    seen = offset + rng.normal(0, noise)
    variance = noise**2 / (1 + noise**2)
    image = stats.norm(seen / (1 + noise**2), np.sqrt(variance)).logpdf(offset)
    scores = LogScores(image, stats.norm.logpdf(offset), image, center + offset, {"magnitude": magnitude})
    bins = list(information_in_bins(scores, {"magnitude": np.array([20.0, 21.0, 22.0])}, n_bootstrap=50))
    assert bins[0].n == sum(one.n for one in bins[1:]) == 2 * N
    near(bins[1].named()["image"], channel(0.2))
    near(bins[2].named()["image"], channel(1.0))
    # Of all objects, which side a label lies on is information, too, that both sources have.
    near(bins[0].named()["numbers"], np.log(2), n_sigma=6)


def test_labels_without_a_density_are_refused():
    labels = np.repeat([0.0, 1.0], 50)
    with pytest.raises(UsageError, match=r"100 of 100 labels .* softmax"):
        of_all(LogScores(labels, labels, labels, labels))
    with pytest.raises(UsageError, match="3 objects in a bin"):
        log_label_density(np.array([0.1, 0.2, 0.3]))
