"""What a task gives the dashboard: counts of flags, and some objects with pictures and values."""

import io

import numpy as np
import pytest
from PIL import Image

from galbatch import api
from galbatch.core.columns import MODEL_FLAGS, PIXEL_FLAGS, ColumnKey, Statistic
from galbatch.core.flags import ModelFlag, PixelFlag
from galbatch.core.types import Grid
from galbatch.dashboard import samples
from tests.clocks import replace_clock
from tests.conftest import _noise_block

MEAN, STD = (
    ColumnKey(one, "bt").column("net", what="bulge over total") for one in (Statistic.MEAN, Statistic.STD)
)
COLUMNS = [PIXEL_FLAGS, MEAN, STD, MODEL_FLAGS.column("net")]


def values(n=300):
    both = PixelFlag.SATURATED | PixelFlag.LOW_SNR
    return {
        "flags": np.where(np.arange(n) < 10, int(both), 0).astype(np.int32),
        "net_bt_mean": np.where(np.arange(n) == 1, np.nan, 0.4217).astype(np.float32),
        "net_bt_std": np.where(np.arange(n) == 1, np.nan, 0.0521).astype(np.float32),
        "net_flags": np.where(np.arange(n) == 0, int(ModelFlag.EXTRAPOLATED), 0).astype(np.int32),
    }


def test_objects_are_counted_by_column_and_flag():
    assert samples.flag_counts(COLUMNS, values()) == {
        "flags SATURATED": 10,
        "flags LOW_SNR": 10,
        "net_flags EXTRAPOLATED": 1,
    }


def test_values_are_mean_and_std_in_short():
    assert samples.value_texts(COLUMNS, values(), 0) == (("net bt", "0.422 ± 0.052"),)
    assert samples.value_texts(COLUMNS, values(), 1) == (("net bt", "no value"),)


@pytest.mark.parametrize(
    ("mean", "std", "text"),
    [
        (17_712.3, 310.2, "17,712 ± 310"),
        (0.5, 0.00123, "0.5000 ± 0.0012"),
        (18.25, 0.0, "18.2"),
        (1.5, np.nan, "1.5"),
    ],
)
def test_a_std_has_two_digits(mean, std, text):
    given = values() | {"net_bt_mean": np.array([mean]), "net_bt_std": np.array([std])}
    assert samples.value_texts(COLUMNS, given, 0)[0][1] == text


@pytest.fixture
def now(monkeypatch):
    time = [1000.0]
    replace_clock(monkeypatch, "galbatch.dashboard.samples", monotonic=lambda: time[0])
    monkeypatch.setattr(samples.Sampler, "_last_s", -1.0)
    return time


@pytest.mark.parametrize(("size_px", "drawn_px"), [(95, 95), (96, 96), (239, 79)])
def test_pictures_have_at_most_96_px_a_side(now, size_px, drawn_px):
    sampler = samples.Sampler(api.thumbnail_png)
    block = _noise_block(Grid(size_px, 0.168), 1)
    sampler.look(block, np.arange(256), COLUMNS, values())
    (one,) = sampler.kept()
    assert Image.open(io.BytesIO(one.png)).size == (drawn_px, drawn_px)
    assert one.object_id == "256"
    assert one.flags == ("SATURATED", "LOW_SNR", "EXTRAPOLATED")


def test_pictures_are_a_second_apart_and_nine_are_kept(now):
    sampler, block = samples.Sampler(api.thumbnail_png), _noise_block(Grid(8, 0.168), 0)
    for tenth in range(200):
        now[0] = 1000.0 + tenth / 10
        sampler.look(block, np.arange(256), COLUMNS, values())
        if tenth == 19:
            assert len(sampler.kept()) == 2
    assert len(sampler.kept()) == 9
    # The next partition of the same process waits for its turn, too.
    other = samples.Sampler(api.thumbnail_png)
    other.look(block, np.arange(256), COLUMNS, values())
    assert other.kept() == ()


def test_an_empty_block_and_one_without_pixels_are_no_fault(now):
    sampler, block = samples.Sampler(api.thumbnail_png), _noise_block(Grid(8, 0.168), 0)
    block.image[:] = np.nan
    block.sky_sigma_njy[:] = np.nan
    sampler.look(block, np.arange(0), COLUMNS, values())
    assert sampler.kept() == ()
    sampler.look(block, np.arange(256), COLUMNS, values())
    assert len(sampler.kept()) == 1
