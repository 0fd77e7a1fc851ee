"""Densities of a catalog as an ensemble of qp."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats
from typer.testing import CliRunner

from galbatch import api, catalog
from galbatch.cli.app import app
from galbatch.core import sky
from galbatch.core.columns import MODEL_FLAGS, PIXEL_FLAGS, ColumnKey, Statistic
from galbatch.core.pixels import Partition
from galbatch.errors import UsageError

EDGES = np.linspace(0.0, 2.0, 201)
MEDIAN = ColumnKey(Statistic.QUANTILE, "z", level=0.5)


def density(quantity):
    plain = ColumnKey(Statistic.DENSITY, quantity).column("net", what="z", n_bins=200, low=0.0, high=2.0)
    return dataclasses.replace(plain, length=200, grid=(0.0, 2.0))


COLUMNS = (
    PIXEL_FLAGS,
    MEDIAN.column("net", what="z"),
    ColumnKey(Statistic.MODE, "z").column("net", what="z"),
    density("z"),
    MODEL_FLAGS.column("net"),
)


def write_catalog(path, ids, columns=COLUMNS):
    """Normal densities at 0.5 and 1.1; the third object has none."""
    ra, dec = np.array([150.1, 150.101, 150.1]), np.array([-2.2, -2.2, -2.25])
    values = {column.name: column.empty(3) for column in columns}
    values[MEDIAN.name("net")][:2] = values["net_z_mode"][:2] = [0.5, 1.1]
    normal = stats.norm([[0.5], [1.1]], 0.1)
    values["net_z_density"][:2] = np.diff(normal.cdf(EDGES), axis=1) / 0.01
    index = sky.healpix_29(ra, dec)
    schema = catalog.leaf_schema(columns, id_type=pa.array(ids).type, kept=pa.schema([]))
    arrays = [pa.array(index), pa.array(ids), pa.array(ra), pa.array(dec)]
    arrays += [column.as_arrow(values[column.name]) for column in columns]
    partition = Partition(4, int(sky.pixel_of(index, 4)[0]), 0, 3)
    table = pa.table(arrays, schema=schema).take(np.argsort(index))
    catalog.write_leaf(str(path), partition, table, footer={})
    catalog.finish(str(path), partitions=[partition], properties={}, n_rows_expected=3)
    return str(path)


@pytest.mark.parametrize("ids", [[7, 8, 9], ["a", "bb", "ccc"]], ids=["integers", "text"])
def test_qp_reads_the_densities_back(ids, tmp_path):
    qp = pytest.importorskip("qp", reason="qp is not installed")
    path = write_catalog(tmp_path / "catalog", ids)
    output = str(tmp_path / "z.hdf5")
    done = CliRunner().invoke(app, ["catalog", "qp", path, "-o", output])
    assert done.exit_code == 0, done.output
    assert "net_z_density of 2 objects, 1 object without one left out" in " ".join(done.output.split())
    ensemble = qp.read(output)
    assert ensemble.npdf == 2
    found = [one.decode().strip() if isinstance(one, bytes) else one for one in ensemble.ancil["object_id"]]
    order = [found.index(one) for one in ids[:2]]
    np.testing.assert_allclose(ensemble.ancil["zmode"][order], [0.5, 1.1], rtol=1e-6)
    np.testing.assert_allclose(ensemble.ancil["median"][order], [0.5, 1.1], rtol=1e-6)
    # The densities themselves: CDF and standard deviation of what was written.
    normal = stats.norm([[0.5], [1.1]], 0.1)
    points = np.array([0.3, 0.5, 0.72, 1.1, 1.23])
    np.testing.assert_allclose(ensemble.cdf(points)[order], normal.cdf(points), atol=2e-4)
    np.testing.assert_allclose(ensemble.pdf(points + 0.005)[order], normal.pdf(points + 0.005), atol=2e-2)
    np.testing.assert_allclose(ensemble.median()[order].ravel(), [0.5, 1.1], atol=2e-3)


def test_a_catalog_without_densities_or_with_several_is_refused(tmp_path):
    none = [column for column in COLUMNS if not column.length]
    several = (
        *COLUMNS[:-1],
        ColumnKey(Statistic.QUANTILE, "y", level=0.5).column("net", what="y"),
        ColumnKey(Statistic.MODE, "y").column("net", what="y"),
        density("y"),
        COLUMNS[-1],
    )
    with pytest.raises(UsageError, match=r"no column of densities; .* \[\[models.densities\]\]"):
        api.write_qp(_without_values(tmp_path / "none", none), str(tmp_path / "z.hdf5"))
    path = write_catalog(tmp_path / "several", [1, 2, 3], several)
    with pytest.raises(UsageError, match=r"which of its densities.*net_z_density, net_y_density"):
        api.write_qp(path, str(tmp_path / "z.hdf5"))
    with pytest.raises(UsageError, match="none of 3 objects has a density in net_y_density"):
        api.write_qp(path, str(tmp_path / "z.hdf5"), column="net_y_density")
    with pytest.raises(UsageError, match=r"z.txt: the name of an ensemble ends in .hdf5"):
        api.write_qp(path, str(tmp_path / "z.txt"))
    assert [one.name for one in api.density_columns(catalog.read_schema(path))] == [
        "net_z_density",
        "net_y_density",
    ]


def _without_values(path, columns):
    schema = catalog.leaf_schema(columns, id_type=pa.int64(), kept=pa.schema([]))
    index = sky.healpix_29(np.array([150.0]), np.array([2.0]))
    arrays = [pa.array(index), pa.array([1]), pa.array([150.0]), pa.array([2.0])]
    arrays += [column.as_arrow(column.empty(1)) for column in columns]
    partition = Partition(4, int(sky.pixel_of(index, 4)[0]), 0, 1)
    catalog.write_leaf(str(path), partition, pa.table(arrays, schema=schema), footer={})
    catalog.finish(str(path), partitions=[partition], properties={}, n_rows_expected=1)
    return str(path)
