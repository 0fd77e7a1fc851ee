import ast
import math
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import galbatch
from galbatch.config import PosteriorConfig
from galbatch.core.columns import (
    GRID_STATISTICS,
    MODEL_FLAGS,
    PASSES,
    PIXEL_FLAGS,
    Column,
    ColumnKey,
    Scope,
    Statistic,
    flag_columns,
    parse_column,
    parse_columns,
    quantile_suffix,
)
from galbatch.core.flags import ModelFlag
from galbatch.models import bundle_path, load_bundle, result_columns

DEMO = ("gampen", "gampen_survey", "sfnet")


def columns_of(*, names=DEMO):
    """Result columns of networks of the demo, by their names in a run."""
    return [
        column
        for name, spec in zip(names, DEMO, strict=False)
        for column in result_columns(
            load_bundle(bundle_path(f"demo:{spec}")).metadata,
            name=name,
            quantiles=PosteriorConfig().quantiles,
        )
    ]


def catalog_names(columns, kept=()):
    return ["_healpix_29", "object_id", "ra_deg", "dec_deg", *kept, "flags", *(c.name for c in columns)]


@pytest.mark.parametrize(
    ("level", "suffix"),
    [
        (0.5, "q500"),
        (0.15865, "q15865"),
        (0.02275, "q02275"),
        (0.84135, "q84135"),
        (0.1, "q100"),
        (0.001, "q001"),
    ],
)
def test_a_level_is_named_by_its_digits_and_read_from_them(level, suffix):
    assert quantile_suffix(level) == suffix
    key = ColumnKey(Statistic.QUANTILE, "bt", level=level)
    assert key.name("net") == f"net_bt_{suffix}"
    assert parse_column(f"net_bt_{suffix}", ["net"]) == ("net", key)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (ColumnKey(Statistic.EPISTEMIC_STD, "re_arcsec"), "net_re_arcsec_epistemic_std"),
        (ColumnKey(Statistic.STD, "re_arcsec"), "net_re_arcsec_std"),
        (ColumnKey(Statistic.LABEL, "bt"), "net_bt_label"),
        (ColumnKey(Statistic.CORRELATION, "bt", "re_arcsec"), "net_corr_bt_re_arcsec"),
        (ColumnKey(Statistic.FEATURE, rank=11), "net_feature_11"),
        (PASSES, "net_passes"),
        (MODEL_FLAGS, "net_flags"),
    ],
)
def test_names_are_made_and_parsed(key, name):
    assert key.name("net") == name
    assert parse_column(name, ["net", "other"], quantities=["bt", "re_arcsec"]) == ("net", key)


@pytest.mark.parametrize(
    "name", ["flags", "netflags", "net_", "net_bt", "other_bt_mean", "net_feature_x", "net_q500"]
)
def test_other_names_are_no_result_columns(name):
    assert parse_column(name, ["net"], quantities=["bt"]) is None


def test_every_column_of_the_demo_is_read_back():
    columns = columns_of()
    found = parse_columns(catalog_names(columns))
    assert found == {column.name: (column.model, column.key) for column in columns}
    # Vectors and cases are in a catalog only where they are asked for, the second opinion where a bundle has one.
    asked_for = {
        Statistic.EMBEDDING,
        Statistic.VECTOR,
        *GRID_STATISTICS,
        Statistic.CASE,
        Statistic.DISAGREEMENT,
    }
    everywhere = {s for s in Statistic if s.scope is not Scope.RANK} - asked_for
    assert {key.statistic for _, key in found.values()} >= everywhere


def test_models_whose_names_begin_alike_are_told_apart():
    columns = columns_of()
    found = parse_columns(catalog_names(columns))
    for model in DEMO:
        own = {column.name for column in columns if column.model == model}
        assert {name for name, (whose, _) in found.items() if whose == model} == own
    assert parse_column("gampen_survey_bt_q500", DEMO)[0] == "gampen_survey"


def test_even_where_a_parameter_is_called_like_the_rest_of_another_models_name():
    """`gampen` has a parameter survey_bt, `gampen_survey` has none called bt: the longest name would be wrong."""
    names = ["flags", "gampen_survey_bt_q500", "gampen_flags", "gampen_survey_re_q500", "gampen_survey_flags"]
    found = parse_columns(names)
    assert found["gampen_survey_bt_q500"] == ("gampen", ColumnKey(Statistic.QUANTILE, "survey_bt", level=0.5))
    assert found["gampen_survey_re_q500"][0] == "gampen_survey"


def test_a_parameter_may_be_called_like_a_statistic():
    names = ["flags", "m_flags_q500", "m_flags_mean", "m_bt_q500", "m_corr_bt_flags", "m_flags"]
    found = parse_columns(names)
    assert found["m_corr_bt_flags"] == ("m", ColumnKey(Statistic.CORRELATION, "bt", "flags"))
    assert found["m_flags_mean"] == ("m", ColumnKey(Statistic.MEAN, "flags"))
    assert flag_columns(names) == ["flags", "m_flags"]


def test_kept_columns_of_an_older_catalog_are_not_the_runs():
    columns = columns_of(names=("net",))
    kept = ["gampen_bt_q500", "gampen_passes", "gampen_flags", "net_old_q500", "hsc_flags"]
    assert set(parse_columns(catalog_names(columns, kept))) == {column.name for column in columns}
    assert flag_columns(catalog_names(columns, kept)) == ["flags", "net_flags"]


def test_one_missing_value_of_each_column():
    for column in [PIXEL_FLAGS, *columns_of()]:
        missing = column.empty(3)
        assert missing.shape == (3,)
        if column.dtype == "string":
            assert missing.dtype == object
            assert missing.tolist() == [""] * 3
            continue
        assert missing.dtype == np.dtype(column.dtype)
        assert column.arrow_type == pa.from_numpy_dtype(missing.dtype)
        if missing.dtype.kind == "f":
            assert np.isnan(missing).all()
    assert MODEL_FLAGS.column("net").empty(1)[0] == ModelFlag.NOT_SELECTED
    assert PASSES.column("net").empty(1)[0] == 0
    assert ColumnKey(Statistic.FEATURE, rank=0).column("net", n_features=4).empty(1)[0] == -1
    assert PIXEL_FLAGS.empty(1)[0] == 0
    assert Column("z", "float64", "", "", missing=math.nan).empty(2).dtype == np.float64


def test_ucds_units_and_texts_of_columns():
    median = ColumnKey(Statistic.QUANTILE, "bt", level=0.5).column("net", unit="mag", what="light")
    assert (median.name, median.unit, median.ucd) == ("net_bt_q500", "mag", "phot.mag;stat.median")
    assert median.description == "posterior quantile 0.5 of light; null: no value, the flags say why"
    outer = ColumnKey(Statistic.QUANTILE, "bt", level=0.84135).column("net", what="light")
    assert outer.ucd == "src.morph.param;stat.percentile"
    assert MODEL_FLAGS.column("net").flags is ModelFlag


def lines_of_code(text):
    """The lines that belong to no docstring: examples there have names of columns, as users write them."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    documented = [
        node.body[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, kinds) and ast.get_docstring(node)
    ]
    left_out = {number for node in documented for number in range(node.lineno, node.end_lineno + 1)}
    return [line for number, line in enumerate(text.splitlines(), 1) if number not in left_out]


def test_no_name_of_a_column_is_made_or_taken_apart_elsewhere():
    """Words of `Statistic` stand in no string of another module that puts a model's name before them."""
    words = "|".join(re.escape(statistic.word) for statistic in Statistic if statistic.word != "q")
    taken_apart = re.compile(
        rf"""\}}_(?:{words})(?:_\{{|["'])|(?:ends|starts)with\(\(?f?["']_?(?:{words})|_q500|remove(?:suf|pre)fix\(f?["']_?(?:{words})"""
    )
    folder = Path(galbatch.__file__).parent
    found = [
        f"{path.relative_to(folder)}: {line.strip()}"
        for path in folder.rglob("*.py")
        if path.parent != folder / "core" / "columns"
        for line in lines_of_code(path.read_text(encoding="utf-8"))
        if taken_apart.search(line)
    ]
    assert found == []
