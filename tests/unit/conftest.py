"""Tiles without files, for what is worked out from their place on the sky alone; HATS catalogs written by hand."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from galbatch import sky
from galbatch.types import FileIdentity, Partition, Plane, Tile


def _tile_at(
    ra_deg, dec_deg, *, size_deg=0.196, band="g", name=None, angle_deg=0.0, root="/survey", compressed=False
):
    """A square tile of 4200 x 4200 px with image, mask and variance, as HSC's patches are 0.196 deg wide."""
    name = name or f"{ra_deg:.4f},{dec_deg:.4f}"
    path = f"{root}/{band}/{name}.fits"
    ra, dec = np.radians([ra_deg, dec_deg])
    center = np.array([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
    east = np.array([-np.sin(ra), np.cos(ra), 0.0])
    north = np.array([-np.sin(dec) * np.cos(ra), -np.sin(dec) * np.sin(ra), np.cos(dec)])
    half = np.tan(np.radians(size_deg / 2))
    turn = np.radians(angle_deg)
    corners = []
    for x, y in ((-half, -half), (half, -half), (half, half), (-half, half)):
        u, v = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
        vector = center + u * east + v * north
        vector /= np.linalg.norm(vector)
        corners.append(
            (
                float(np.degrees(np.arctan2(vector[1], vector[0])) % 360.0),
                float(np.degrees(np.arcsin(vector[2]))),
            )
        )
    packed = {"block_px": (1, 4200), "stored_bytes": 20_000_000} if compressed else {}
    return Tile(
        tile_id=name,
        band=band,
        image=Plane(path, 1, **packed),
        shape_px=(4200, 4200),
        wcs_header="",
        grid_key="tract",
        njy_per_unit=57.544,
        pixel_scale_arcsec=0.168,
        corners_deg=tuple(corners),
        mask=Plane(path, 2, **packed),
        weight=Plane(path, 3, **packed),
        identity=FileIdentity(211_680_000, "1"),
    )


@pytest.fixture(scope="session")
def tile_at():
    return _tile_at


def _write_hats(folder, table, *, max_rows=50, order=None, **properties):
    """A HATS catalog of `table`, whose pixels hold `max_rows` at most, or are all of one `order`."""
    ra, dec = table["ra_deg"].to_numpy(), table["dec_deg"].to_numpy()
    index = sky.healpix_29(np.nan_to_num(ra) % 360.0, np.nan_to_num(dec))
    table = table.take(np.argsort(index, kind="stable"))
    index = np.sort(index)
    pending = [(0, pixel) for pixel in range(12)]
    while pending:
        pixel = pending.pop()
        start, stop = np.searchsorted(index, sky.pixel_range(*pixel))
        if start == stop:
            continue
        if pixel[0] < (0 if order is None else order) or (order is None and stop - start > max_rows):
            pending += [(pixel[0] + 1, 4 * pixel[1] + child) for child in range(4)]
            continue
        rows = table.slice(start, stop - start).append_column("_healpix_29", pa.array(index[start:stop]))
        path = folder / "dataset" / (Partition(*pixel, 0, 0).path + ".parquet")
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows, path)
    known = {"obs_collection": "list", "hats_col_ra": "ra_deg", "hats_col_dec": "dec_deg"}
    known |= {"dataproduct_type": "object", "hats_nrows": str(len(table)), **properties}
    text = "".join(f"{key}={value}\n" for key, value in known.items())
    (folder / "hats.properties").write_text("#HATS catalog\n" + text)
    return folder


@pytest.fixture(scope="session")
def write_hats():
    return _write_hats
