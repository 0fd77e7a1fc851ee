"""A HATS catalog as object list gives the catalog that the same rows in one file give."""

import pandas as pd
import pyarrow.parquet as pq
import pytest

from galbatch import catalog, config, errors, execution


def finished(run_toml, client):
    parsed = config.read_config(run_toml)
    plan = execution.prepare(parsed)
    result = execution.execute(parsed, plan, client)
    assert result.failed == {}
    assert result.complete
    return parsed, plan


@pytest.fixture(scope="module")
def in_pixels(survey, write_hats, tmp_path_factory):
    """The survey's objects as a HATS catalog of pixels of at most 15 objects, fewer than a partition may hold."""
    folder = tmp_path_factory.mktemp("list") / "hats"
    return write_hats(folder, pq.read_table(survey / "objects.parquet"), max_rows=15)


@pytest.fixture(scope="module")
def both(in_pixels, write_run, client, tmp_path_factory):
    """Runs on the list and on the HATS catalog, whose pixels are in part smaller, in part larger than partitions."""
    folder = tmp_path_factory.mktemp("runs")
    return [
        finished(write_run(folder / name, max_objects=12, **changes), client)
        for name, changes in (("list", {}), ("hats", {"objects": in_pixels}))
    ]


def test_plans_are_the_same(both):
    (_, whole), (_, chunked) = both
    assert len(chunked.objects.source.ranges) > 8
    assert len(chunked.objects) == len(whole.objects)
    assert [part.partition for part in chunked.partitions] == [part.partition for part in whole.partitions]
    assert [part.projection for part in chunked.partitions] == [part.projection for part in whole.partitions]
    assert [part.leaf.digest for part in chunked.partitions] == [
        part.leaf.digest for part in whole.partitions
    ]
    orders = {part.partition.healpix_order for part in chunked.partitions}
    assert len(orders) > 1


def test_catalogs_are_the_same(both):
    a, b = (catalog.read_catalog(parsed.catalog.path) for parsed, _ in both)
    assert a.schema == b.schema
    pd.testing.assert_frame_equal(a.to_pandas(), b.to_pandas(), check_exact=True)
    assert len(a) > 100


def test_it_verifies_against_the_list(both):
    parsed, _ = both[1]
    assert catalog.verify(parsed.catalog.path) == []
    assert execution.verify_against(parsed, parsed.catalog.path) == []


def test_another_row_is_noticed(both, in_pixels, write_hats, survey, tmp_path, write_run):
    parsed, _ = both[1]
    fewer = pq.read_table(survey / "objects.parquet").slice(1)
    changed = config.read_config(
        write_run(tmp_path / "run", max_objects=12, objects=write_hats(tmp_path / "hats", fewer, max_rows=15))
    )
    problems = execution.verify_against(changed, parsed.catalog.path)
    assert "0 objects of the list are missing, 1 are not in the list, 0 stand twice" in problems[-1]
    with pytest.raises(errors.FingerprintError):
        execution.read_progress(
            parsed.model_copy(update={"objects": changed.objects}),
            execution.prepare(parsed.model_copy(update={"objects": changed.objects})),
        )
