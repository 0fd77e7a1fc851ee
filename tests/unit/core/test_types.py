"""The values that rooms exchange."""

import pickle

import numpy as np
import pyarrow as pa
import pytest

from galbatch.core.columns import Column
from galbatch.core.flags import MaskBit, ModelFlag, PixelFlag
from galbatch.core.types import Grid, ObjectTable, ab_mag, njy_per_unit


def test_hsc_counts_in_nanojansky():
    assert njy_per_unit(27.0) == pytest.approx(57.544, abs=1e-3)


def test_one_nanojansky_is_31_4():
    np.testing.assert_allclose(ab_mag([1.0, 100.0]), [31.4, 26.4])
    assert np.isnan(ab_mag([0.0, -1.0])).all()


def test_grid_label_and_center():
    grid = Grid(96, 0.168)
    assert grid.label == "96px_0.168arcsec"
    assert grid.center_px == 48
    assert Grid(239, 0.168).center_px == 119
    near = Grid(96, float(np.float32(0.168)))
    assert near != grid
    assert near.label != grid.label


@pytest.mark.parametrize("flags", [PixelFlag, ModelFlag, MaskBit])
def test_bits_are_distinct_and_fit(flags):
    values = [int(bit) for bit in flags]
    assert len(set(values)) == len(values)
    assert all(value & (value - 1) == 0 for value in values)
    assert max(values) < (2**16 if flags is MaskBit else 2**31)


def test_object_table_takes_rows_and_slices_alike():
    table = ObjectTable(
        np.arange(5),
        np.arange(5.0),
        -np.arange(5.0),
        np.arange(5),
        pa.table({"z_best": [0.1, 0.2, 0.3, 0.4, 0.5]}),
    )
    by_slice, by_index = table.take(slice(1, 3)), table.take(np.array([1, 2]))
    assert by_slice.object_id.tolist() == by_index.object_id.tolist() == [1, 2]
    assert by_slice.kept.equals(by_index.kept)
    assert table.take(slice(3, None)).kept.column("z_best").to_pylist() == [0.4, 0.5]


def test_psf_widths_are_taken_along_and_travel():
    widths = {"g": np.array([0.8, 0.9, np.nan], np.float32)}
    table = ObjectTable(
        np.arange(3), np.zeros(3), np.zeros(3), np.arange(3), pa.table({"n": [0, 1, 2]}), widths
    )
    assert table.take(slice(1, None)).psf_fwhm_arcsec["g"][0] == np.float32(0.9)
    back = pickle.loads(pickle.dumps(table.take(np.array([1, 0]))))
    assert back.psf_fwhm_arcsec["g"].tolist() == [np.float32(0.9), np.float32(0.8)]


def test_column_types():
    assert Column("a", "float32", "", "").arrow_type == pa.float32()
    assert Column("a", "string", "", "").arrow_type == pa.string()
