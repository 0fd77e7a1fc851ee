import pyarrow as pa
import pytest

from galbatch.errors import OutputError
from galbatch.objects import read_table
from galbatch.reporting.browsing.saving import save_selection


def test_no_list_replaces_an_older_one(tmp_path):
    path = str(tmp_path / "v1.2" / "bright.csv")
    (tmp_path / "v1.2").mkdir()
    names = []
    for number in range(3):
        table = pa.table({"object_id": [2**53 + 1 + number], "ra_deg": [1.5], "dec_deg": [-2.0]})
        names.append(save_selection(path, table))
    assert [name.rpartition("/")[2] for name in names] == ["bright.csv", "bright-2.csv", "bright-3.csv"]
    assert [read_table(name)["object_id"].to_pylist() for name in names] == [
        [2**53 + 1 + n] for n in range(3)
    ]


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(OutputError, match="txt"):
        save_selection(str(tmp_path / "ids.txt"), pa.table({"object_id": [1]}))
