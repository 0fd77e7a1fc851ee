import numpy as np
import pytest
from scipy.stats import kstest

from galbatch.models.networks import draw_keys, is_audited, normal_draws
from galbatch.models.networks.keys import mix


def keys(ids, passes=range(3), seed=1, sha="ff"):
    return draw_keys(ids, seed=seed, bundle_sha256=sha, passes=np.asarray(passes))


def test_key_depends_on_object_and_pass_alone():
    ids = np.array([7, -3, 10**16], dtype=np.int64)
    whole = keys(ids, range(5))
    assert whole.shape == (3, 5)
    assert whole.dtype == np.int64
    np.testing.assert_array_equal(keys(ids[::-1], [4, 2]), whole[::-1][:, [4, 2]])


def test_seed_bundle_object_and_pass_all_count():
    base = keys(np.array([5]))
    for other in (keys(np.array([5]), seed=2), keys(np.array([5]), sha="fe"), keys(np.array([6]))):
        assert not np.isin(other, base).any()
    assert len(np.unique(base)) == 3


def test_no_two_keys_of_many_are_equal():
    assert len(np.unique(keys(np.arange(20_000), range(16)))) == 320_000


def test_bits_are_balanced():
    bits = np.unpackbits(keys(np.arange(4000), range(4)).view(np.uint8)).mean()
    assert bits == pytest.approx(0.5, abs=0.002)


def test_text_ids_work_and_differ_from_numbers():
    text = keys(np.array(["7", "a much longer name", "7"], dtype=object))
    np.testing.assert_array_equal(text[0], text[2])
    assert not np.isin(text, keys(np.array([7]))).any()
    np.testing.assert_array_equal(text, keys(np.array(["7", "a much longer name", "7"])))


def test_mix_is_splitmix64():
    # Reference: splitmix64 seeded with 0 gives 0xe220a8397b1dcdaf first.
    assert mix(np.array([0x9E3779B97F4A7C15], dtype=np.uint64))[0] == 0xE220A8397B1DCDAF


def test_normal_draws_are_standard_normal_and_independent():
    draws = normal_draws(keys(np.arange(500), range(20)), 3)
    assert draws.shape == (500, 20, 3)
    assert kstest(draws.ravel(), "norm").pvalue > 1e-3
    correlation = np.corrcoef(draws.reshape(-1, 3).T)
    assert np.abs(correlation - np.eye(3)).max() < 0.04
    np.testing.assert_array_equal(draws[3:4, 2:3], normal_draws(keys(np.array([3]), [2]), 3))


def test_one_object_in_a_thousand_is_audited():
    ids = np.arange(300_000, dtype=np.int64) + 10**16
    audited = is_audited(ids, seed=1)
    assert audited.sum() == pytest.approx(300, abs=5 * np.sqrt(300))
    np.testing.assert_array_equal(is_audited(ids[::-7], seed=1), audited[::-7])
    assert (is_audited(ids, seed=2) & audited).sum() < 10
    text = is_audited(ids.astype(str).astype(object), seed=1)
    assert text.sum() == pytest.approx(300, abs=5 * np.sqrt(300))
