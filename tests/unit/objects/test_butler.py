"""`galbatch objects from-butler` against a Butler that plays the part of lsst.daf.butler."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from galbatch.cli.app import app
from galbatch.config import ObjectsConfig
from galbatch.errors import GalbatchError, OutputError, UsageError
from galbatch.objects import objects_from_butler, open_objects
from tests.unit.fake_butler import Butler, ref


def write_tract(path, first):
    columns = {
        "objectId": [first, first + 1],
        "coord_ra": [53.0, 53.1],
        "coord_dec": [-28.0, -28.1],
        "i_extendedness": [1.0, 0.0],
        "deblend_nChild": [0, 0],
    }
    pq.write_table(pa.table(columns), path)
    return f"file://{path}"


@pytest.fixture
def two_tracts(daf_butler, tmp_path):
    # Older Butlers name the files .parq.
    uris = [write_tract(tmp_path / f"{tract}.parq", 10**15 * tract) for tract in (5063, 4849)]
    daf_butler(*(ref(uri, tract=tract) for uri, tract in zip(uris, (5063, 4849), strict=True)))
    return tmp_path / "out"


def copied(output, **changes):
    asked = {
        "collections": ["LSSTComCam/DP1"],
        "dataset_type": "object",
        "columns": ["objectId", "coord_ra", "coord_dec"],
    }
    return objects_from_butler("dp1", str(output), **asked | changes)


def test_the_command_makes_a_list_of_the_columns(two_tracts):
    arguments = [
        "dp1",
        str(two_tracts),
        "--collections",
        "LSSTComCam/DP1",
        "--where",
        "tract IN (5063, 4849)",
    ]
    columns = ["--columns", "objectId,coord_ra,coord_dec,i_extendedness"]
    done = CliRunner().invoke(app, ["objects", "from-butler", *arguments, *columns])
    assert (done.exit_code, done.output) == (0, f"4 objects of 2 tables: {two_tracts}\n")
    assert Butler.asked[1:] == ("object", ["LSSTComCam/DP1"], "tract IN (5063, 4849)")
    config = ObjectsConfig(
        path=str(two_tracts), id="objectId", ra="coord_ra", dec="coord_dec", where="i_extendedness > 0.5"
    )
    source = open_objects(config)
    assert sorted(source.read(0).object_id.tolist()) == [10**15 * 4849, 10**15 * 5063]
    assert source.listed.n_listed == 4
    assert sorted(path.name for path in two_tracts.iterdir()) == [
        "00000_tract_4849.parquet",
        "00001_tract_5063.parquet",
    ]
    assert pq.read_schema(next(two_tracts.iterdir())).names == [
        "objectId",
        "coord_ra",
        "coord_dec",
        "i_extendedness",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": ["objectId", "coord_raa"]}, "no column coord_raa; the nearest is coord_ra"),
        ({"dataset_type": "deep_coad"}, "the Butler says: dataset type deep_coad does not exist"),
    ],
)
def test_nothing_is_left_of_a_list_that_is_not_whole(two_tracts, changes, message):
    with pytest.raises(UsageError, match=message):
        copied(two_tracts, **changes)
    assert not two_tracts.exists()
    assert not list(two_tracts.parent.glob("*.partial*"))


def test_a_folder_that_exists_is_not_written_into(two_tracts):
    two_tracts.mkdir()
    with pytest.raises(OutputError, match="exists; it is not written into; name a new folder"):
        copied(two_tracts)
    with pytest.raises(OutputError, match="is no folder of this machine"):
        copied("s3://bucket/out")


def test_tables_without_tracts_and_damaged_ones_are_told(daf_butler, tmp_path):
    daf_butler(ref("file:///x", data_id={"visit": 1}))
    with pytest.raises(UsageError, match="its datasets have no 'tract'; datasets with tract are needed"):
        copied(tmp_path / "out")
    (tmp_path / "a.parq").write_bytes(b"PAR1 cut off")
    daf_butler(ref(f"file://{tmp_path}/a.parq"))
    with pytest.raises(GalbatchError, match=r"a\.parq: cannot be read as Parquet"):
        copied(tmp_path / "out")
