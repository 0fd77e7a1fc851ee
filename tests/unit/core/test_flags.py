import json
import pickle
from io import BytesIO

import numpy as np
import pyarrow as pa
import pytest
from astropy.io.votable import parse

from galbatch import catalog
from galbatch.config import FlagsConfig, PosteriorConfig
from galbatch.core.columns import MODEL_FLAGS, PIXEL_FLAGS
from galbatch.core.flags import FlagClass, ModelFlag, PixelFlag, count_flags, flags_as_json
from galbatch.objects import reader_metadata

TABLES = pytest.mark.parametrize("flags", [PixelFlag, ModelFlag])


@TABLES
def test_a_row_is_a_bit_a_name_and_a_sentence(flags):
    assert [flag.bit for flag in flags] == list(range(len(flags)))
    assert all(flag.value == 1 << flag.bit for flag in flags)
    assert all(flag.text.endswith(".") and flag.text[0].isupper() for flag in flags)
    assert len({flag.text for flag in flags}) == len(flags)


def test_bits_keep_their_meaning():
    """Catalogs hold numbers: a bit that was used once is never another flag's."""
    assert {flag.name: flag.bit for flag in PixelFlag} == {
        "OUTSIDE_FOOTPRINT": 0,
        "PARTIAL_COVERAGE": 1,
        "MISSING_BAND": 2,
        "BAD_CENTER": 3,
        "SATURATED": 4,
        "BRIGHT_OBJECT": 5,
        "MOSAICKED": 6,
        "RESAMPLED": 7,
        "NEIGHBOR": 8,
        "DUPLICATE_POSITION": 9,
        "LOW_SNR": 10,
        "BLENDED": 11,
        "SATURATED_CORE": 12,
        "SKY_OFFSET": 13,
        "POINT_LIKE": 14,
        "PSF_UNLIKE": 15,
    }
    assert {flag.name: flag.bit for flag in ModelFlag} == {
        "NOT_SELECTED": 0,
        "MISSING_PIXELS": 1,
        "MODEL_FAILED": 2,
        "NOT_CONVERGED": 3,
        "EXTRAPOLATED": 4,
        "OUT_OF_DOMAIN": 5,
        "CROP_AT_LIMIT": 6,
        "NO_POSTERIOR": 7,
        "NO_MAGNITUDE": 8,
        "DOMAIN_UNKNOWN": 9,
        "NO_MOMENTS": 10,
        "INCONSISTENT": 11,
    }


def test_information_flags_say_nothing_against_a_value():
    found = [flag.name for flag in (*PixelFlag, *ModelFlag) if flag.flag_class is FlagClass.INFORMATION]
    assert found == ["MOSAICKED", "RESAMPLED", "NEIGHBOR", "NOT_SELECTED", "NO_MAGNITUDE"]


@TABLES
def test_flags_are_bits_as_those_of_any_int_flag(flags):
    first, second = list(flags)[:2]
    both = first | second
    assert list(flags(3)) == [first, second]
    assert first in both
    assert int(both) == 3
    assert pickle.loads(pickle.dumps(both)) == both
    assert pickle.loads(pickle.dumps(first)).text == first.text
    bits = np.zeros(2, np.int32)
    bits[1:] |= second
    assert bits.tolist() == [0, 2]
    assert bits.dtype == np.int32


def test_every_flags_column_has_its_bits_in_the_field_metadata_and_the_votable():
    columns = [PIXEL_FLAGS, MODEL_FLAGS.column("net")]
    schema = catalog.leaf_schema(columns, id_type=pa.int64(), kept=pa.schema([]))
    for column, flags in zip(columns, (PixelFlag, ModelFlag), strict=True):
        rows = json.loads(schema.field(column.name).metadata[b"flags"])
        assert json.dumps(rows) == flags_as_json(flags)
        assert [(row["bit"], row["value"], row["name"], row["text"], row["class"]) for row in rows] == [
            (flag.bit, flag.value, flag.name, flag.text, flag.flag_class) for flag in flags
        ]
    xml = reader_metadata(schema.empty_table())[b"IVOA.VOTable-Parquet.content"]
    fields = parse(BytesIO(xml)).get_first_table().fields
    described = {field.name: " ".join(field.description.split()) for field in fields}  # XML is wrapped
    for flag in PixelFlag:
        assert f"{flag.value} {flag.name}: {flag.text}" in described["flags"]
    for flag in ModelFlag:
        assert f"{flag.value} {flag.name}: {flag.text}" in described["net_flags"]


def test_help_texts_of_thresholds_are_those_of_the_flags():
    helps = {name: field.description for name, field in FlagsConfig.model_fields.items()}
    for key, flag in {
        "neighbor_radius_arcsec": PixelFlag.NEIGHBOR,
        "duplicate_radius_arcsec": PixelFlag.DUPLICATE_POSITION,
        "bad_planes": PixelFlag.BAD_CENTER,
        "low_snr": PixelFlag.LOW_SNR,
    }.items():
        assert helps[key].startswith(flag.help)
    assert ModelFlag.NOT_CONVERGED.name in PosteriorConfig.model_fields["tolerance"].description


def test_flags_are_counted_one_by_one():
    values = np.array([0, 1, 3, 2, -1], np.int32)
    assert count_flags(values, [PixelFlag.OUTSIDE_FOOTPRINT, PixelFlag.PARTIAL_COVERAGE, 4]) == [3, 3, 1]
    assert count_flags(values[:0], PixelFlag) == [0] * len(PixelFlag)
