"""A column as a HiPS."""

from __future__ import annotations

from pathlib import Path

import astropy.units as u
import numpy as np
import pyarrow as pa
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from galbatch import catalog
from galbatch.api.hips import mean_map, write_hips
from galbatch.errors import CatalogError, OutputError, UsageError
from tests.unit.catalog.conftest import divide, make_table, write_catalog


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, pa.Table]:
    """A finished catalog in 2 x 2 deg, and its rows."""
    path, table = str(tmp_path_factory.mktemp("hips") / "catalog"), make_table()
    partitions = divide(table)
    write_catalog(path, table, partitions)
    catalog.finish(path, partitions=partitions, properties={}, n_rows_expected=len(table))
    return path, table


def test_the_tiles_of_a_hips_have_the_column(written: tuple[str, pa.Table], tmp_path: Path) -> None:
    finished, table = written
    folder = str(tmp_path / "hips")
    n_files = write_hips(finished, "gampen_flux_njy_q500", folder, pixel_arcsec=60)
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    assert len(files) == n_files
    order = max(int(path.name.removeprefix("Norder")) for path in Path(folder).glob("Norder*"))
    there = SkyCoord(table["ra_deg"].to_numpy(), table["dec_deg"].to_numpy(), unit=u.deg)
    flux = table["gampen_flux_njy_q500"].to_numpy()
    # Tiles of 512 pixels of 0.84 arcmin; objects that share a pixel of the map have their mean.
    alone = (there.match_to_catalog_sky(there, nthneighbor=2)[1] > 2 * u.arcmin) & np.isfinite(flux)
    n_found = 0
    for path in Path(folder, f"Norder{order}").rglob("*.fits"):
        with fits.open(path) as hdus:
            wcs, image = WCS(hdus[0].header), hdus[0].data
            x, y = np.rint(wcs.world_to_pixel(there)).astype(int)
        inside = alone & (x >= 0) & (x < image.shape[1]) & (y >= 0) & (y < image.shape[0])
        # The pixels of both grids are turned to each other, so that some objects fall into the neighbor.
        n_found += np.isclose(image[y[inside], x[inside]], flux[inside], rtol=1e-5).sum()
    assert alone.sum() > 100
    assert n_found > 0.5 * alone.sum()


def test_other_hips_are_refused(written: tuple[str, pa.Table], tmp_path: Path) -> None:
    finished, _ = written
    folder = str(tmp_path / "hips")
    with pytest.raises(CatalogError, match="no column re; "):
        write_hips(finished, "re", folder, pixel_arcsec=60)
    with pytest.raises(UsageError, match="choose larger pixels"):
        write_hips(finished, "flags", folder, pixel_arcsec=0.1)
    assert not Path(folder).exists()
    Path(folder).mkdir()
    with pytest.raises(OutputError, match="hips: exists; choose another folder"):
        write_hips(finished, "flags", folder, pixel_arcsec=60)


def test_a_map_has_the_mean_of_each_pixel() -> None:
    ra, dec = np.array([10.0, 10.0, 10.02]), np.array([-30.0, -30.0, -30.0])
    image, wcs = mean_map(ra, dec, np.array([1.0, 4.0, 7.0]), pixel_deg=0.005)
    x, y = (np.rint(wcs.all_world2pix(10.0, -30.0, 0)).astype(int)).tolist()
    assert image[y, x] == 2.5
    assert np.nansum(image) == 9.5
    assert np.isfinite(image).sum() == 2
