import numpy as np
import pyarrow as pa
import pytest

from galbatch import catalog
from galbatch.config import PosteriorConfig
from galbatch.core import sky
from galbatch.core.columns import PIXEL_FLAGS
from galbatch.core.pixels import Partition
from galbatch.models import bundle_path, load_bundle, result_columns
from galbatch.reporting.contents import read_contents

ROWS = 4
MODELS = ("gampen", "gampen_survey")


@pytest.fixture(scope="module")
def alike(tmp_path_factory):
    """A catalog of two models whose names begin alike, with the columns of an older catalog kept."""
    path = str(tmp_path_factory.mktemp("contents") / "catalog")
    ra, dec = np.full(ROWS, 150.0), np.full(ROWS, 2.0)
    index = sky.healpix_29(ra, dec)
    columns = [
        column
        for name in MODELS
        for column in result_columns(
            load_bundle(bundle_path(f"demo:{name}")).metadata,
            name=name,
            quantiles=PosteriorConfig().quantiles,
        )
    ]
    kept = pa.schema([("sfnet_mag_r_q500", pa.float32()), ("sfnet_flags", pa.int32())])
    schema = catalog.leaf_schema([PIXEL_FLAGS, *columns], id_type=pa.int64(), kept=kept)
    values = {"_healpix_29": index, "object_id": np.arange(ROWS), "ra_deg": ra, "dec_deg": dec}
    values |= {field.name: np.ones(ROWS) for field in kept}
    values |= {column.name: column.empty(ROWS) for column in [PIXEL_FLAGS, *columns]}
    for number, model in enumerate(MODELS):
        values[f"{model}_bt_q500"] = np.full(ROWS, 0.25 * (number + 1))
    values["gampen_survey_flags"] = np.zeros(ROWS)
    arrays = [
        pa.array(values[field.name], from_pandas=field.type == pa.string()).cast(field.type)
        for field in schema
    ]
    partition = Partition(5, int(sky.pixel_of(index[:1], 5)[0]), 0, ROWS)
    catalog.write_leaf(path, partition, pa.Table.from_arrays(arrays, schema=schema), footer={})
    catalog.finish(path, partitions=[partition], properties={}, n_rows_expected=ROWS)
    return path


def test_models_whose_names_begin_alike_have_each_their_own_quantities(alike):
    contents = read_contents(alike)
    assert list(contents.model_flags) == list(contents.passes) == list(MODELS)
    found = [(quantity.model, quantity.parameter) for quantity in contents.quantities]
    assert found == [(model, name) for model in MODELS for name in ("bt", "re_arcsec", "flux_njy", "mag")]
    for number, model in enumerate(MODELS):
        first = contents.of_model(model)[0]
        assert (first.median == 0.25 * (number + 1)).all()
        assert first.levels == PosteriorConfig().quantiles
    assert [quantity.unit for quantity in contents.of_model("gampen")] == ["", "arcsec", "nJy", "mag"]


def test_verify_asks_the_flags_of_a_quantitys_own_model(alike):
    """Of gampen the flags say why values are missing, of gampen_survey they say nothing."""
    problems = [problem for problem in catalog.verify(alike) if "no flag that says why" in problem]
    assert len(problems) == 4
    assert all("4 rows have no value of gampen_survey_" in problem for problem in problems)
