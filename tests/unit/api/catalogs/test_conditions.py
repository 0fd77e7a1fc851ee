from __future__ import annotations

import json

import astropy.units as u
import numpy as np
import pyarrow as pa
import pytest

from galbatch.api.catalogs.conditions import Good, Ids, Where, bits_against, box_of
from galbatch.core import sky
from galbatch.core.flags import FLAGS_KEY, FlagClass, ModelFlag, PixelFlag, flags_as_json
from galbatch.core.pixels import HealpixPixel


@pytest.mark.parametrize("ra", [(10, 30), (350, 20), (0, 360)])
@pytest.mark.parametrize("dec", [(-5, 40), (60, 90), (-90, -80)])
@pytest.mark.parametrize("healpix_order", [0, 3, 7])
def test_no_pixel_with_a_position_in_a_box_is_passed_over(
    ra: tuple[float, float], dec: tuple[float, float], healpix_order: int
) -> None:
    random = np.random.default_rng(3)
    x, y = random.uniform(0, 360, 3000), np.degrees(np.arcsin(random.uniform(-1, 1, 3000)))
    box = box_of(ra * u.deg, dec * u.deg)
    inside = box.holds(pa.table({"ra_deg": x, "dec_deg": y}))
    pixels = sky.pixel_of(sky.healpix_29(x, y), healpix_order)
    needed = np.unique(pixels[inside]).tolist()
    assert len(needed) > 0
    ranges = {pixel: HealpixPixel(healpix_order, pixel).index_range for pixel in np.unique(pixels).tolist()}
    read = [
        pixel for pixel, (start, stop) in ranges.items() if box.may_hold({"_healpix_29": (start, stop - 1)})
    ]
    assert set(needed) <= set(read)
    # Small pixels that are far away are left out.
    assert healpix_order < 7 or len(read) < len(needed) + 0.1 * len(ranges)


def test_limits_of_positions_exclude_rows() -> None:
    box = box_of((10, 20) * u.deg, (0, 1) * u.deg)
    assert box.may_hold({"ra_deg": (5.0, 11.0)})
    assert not box.may_hold({"ra_deg": (21.0, 22.0)})
    assert not box.may_hold({"dec_deg": (1.1, 2.0)})


@pytest.mark.parametrize("ids", [(7, 3, 11), ("b", "a", "d")])
def test_ids_outside_the_limits_are_not_looked_for(ids: tuple[int | str, ...]) -> None:
    condition = Ids(ids)
    low, high = (1, 2) if isinstance(ids[0], int) else ("A", "B")
    assert not condition.may_hold({"object_id": (low, high)})
    assert condition.may_hold({"object_id": (ids[1], ids[1])})
    assert condition.may_hold({})
    column = pa.chunked_array([[ids[2], ids[0]]])
    # Rows of ids that are not there are left out.
    assert list(condition.order(column)) == [1, 0]
    assert condition.holds(pa.table({"object_id": column})).tolist() == [True, True]


def test_null_makes_no_expression_true() -> None:
    rows = pa.table({"a": pa.array([1.0, None, 3.0]), "b c": pa.array([1, 1, 0])})
    condition = Where("not a > 2 and `b c` == 1")
    assert condition.columns == ("a", "b c")
    assert condition.holds(rows).tolist() == [True, False, False]
    assert not condition.may_hold({"b c": (2, 9)})


NOT_SELECTED, EXTRAPOLATED = int(ModelFlag.NOT_SELECTED), int(ModelFlag.EXTRAPOLATED)


@pytest.mark.parametrize(
    ("pixels", "first", "second", "good"),
    [
        (0, 0, 0, True),
        (int(PixelFlag.NEIGHBOR | PixelFlag.MOSAICKED), 0, int(ModelFlag.NO_MAGNITUDE), True),
        (int(PixelFlag.SATURATED), 0, 0, False),
        (0, 0, EXTRAPOLATED, False),
        # A model that was not meant for the object says nothing about it; but one must have values.
        (0, 0, NOT_SELECTED, True),
        (0, NOT_SELECTED, NOT_SELECTED, False),
    ],
)
def test_the_default_cut(pixels: int, first: int, second: int, good: bool) -> None:
    fields = {"flags": PixelFlag, "a_flags": ModelFlag, "b_flags": ModelFlag}
    bits = {
        name: bits_against(pa.field(name, pa.int32(), metadata={FLAGS_KEY: flags_as_json(kind)}))
        for name, kind in fields.items()
    }
    rows = pa.table({"flags": [pixels], "a_flags": [first], "b_flags": [second]})
    assert Good(tuple(bits.items())).holds(rows).tolist() == [good]


def test_flags_of_class_quality_count_against_an_object_and_no_others() -> None:
    field = pa.field("flags", pa.int32(), metadata={FLAGS_KEY: flags_as_json(PixelFlag)})
    quality = [flag for flag in PixelFlag if flag.flag_class is FlagClass.QUALITY]
    assert bits_against(field) == sum(quality)
    # The catalog's own table decides, not that of this version.
    own = json.dumps([{"value": 4, "name": "X", "class": "quality", "text": "x"}])
    assert bits_against(pa.field("flags", pa.int32(), metadata={FLAGS_KEY: own})) == 4
