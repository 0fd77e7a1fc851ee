"""Columns that maps of the sky give: E(B-V), dereddened magnitudes, masks; the default cut; the area of the footprint."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from astropy.io import fits
from astropy_healpix import HEALPix
from torch import Tensor, nn
from typer.testing import CliRunner

from galbatch import api, catalog, config, execution
from galbatch.cli.app import app
from galbatch.core.sky import separation_arcsec
from galbatch.errors import ConfigError
from galbatch.models import (
    AuxiliaryInput,
    BundleMetadata,
    HeadInfo,
    InputInfo,
    ParameterInfo,
    load_bundle,
    rewrite_bundle,
    save_bundle,
    script_of,
)

GAMPEN = '[[models]]\nname = "gampen"\nbundle = "demo:gampen"\n'
MAPS = """
[extinction]
map = "ebv.fits"
a_b = {{ g = 3.5, r = 2.5 }}
[[masks]]
name = "in_circle"
path = "circle.reg"
good = "inside"
[posterior]
"""


class Fed(nn.Module):
    """A network whose one parameter is the auxiliary input."""

    @torch.jit.export
    def prefix(self, images: Tensor, auxiliary: Tensor) -> Tensor:
        return auxiliary + 0.0 * images[:, 0, 0, :1]

    @torch.jit.export
    def sample(self, features: Tensor, keys: Tensor) -> Tensor:
        return torch.cat([features, torch.full_like(features, -2.0)], dim=1)


def save_toy(path):
    given = InputInfo(("g",), 16, 0.168, "nJy", 31.4, auxiliary_inputs=(AuxiliaryInput("ebv", "mag"),))
    parameter = ParameterInfo("dust", "mag", "E(B-V)", "identity")
    save_bundle(
        str(path),
        script_of(Fed()),
        BundleMetadata("toy", "1", "toy", given, HeadInfo("gaussian"), (parameter,), dropout_rate=0.0),
    )
    return path


@pytest.fixture(scope="module")
def objects(survey, tmp_path_factory):
    """Forty objects, of which every fourth is not primary, in a column that LSST's lists have."""
    table = pq.read_table(survey / "objects.parquet").slice(0, 40)
    path = tmp_path_factory.mktemp("objects") / "objects.parquet"
    pq.write_table(table.append_column("detect_isPrimary", pa.array(np.arange(40) % 4 != 0)), path)
    return path


@pytest.fixture(scope="module")
def center(objects):
    """The middle of the objects, deg, and the radius in arcsec of a circle about it that holds half of them."""
    table = pq.read_table(objects)
    ra, dec = table["ra_deg"].to_numpy().mean(), table["dec_deg"].to_numpy().mean()
    distance = separation_arcsec(table["ra_deg"].to_numpy(), table["dec_deg"].to_numpy(), ra, dec)
    return ra, dec, float(np.median(distance))


@pytest.fixture(scope="module")
def write(write_run, objects, center):
    def write(folder, *, maps=MAPS, replace=()):
        ra, dec, radius = center
        folder.mkdir(exist_ok=True)
        (folder / "circle.reg").write_text(f'icrs\ncircle({ra},{dec},{radius}")\n')
        grid = HEALPix(32, order="ring", frame="galactic")
        values = np.linspace(0.0, 4.0, grid.npix).astype("f4")
        hdu = fits.BinTableHDU.from_columns([fits.Column("EBV", "E", array=values)])
        hdu.header.update({"PIXTYPE": "HEALPIX", "NSIDE": 32, "ORDERING": "RING", "COORDSYS": "G"})
        hdu.writeto(folder / "ebv.fits", overwrite=True)
        changes = [("[posterior]\n", maps.replace("{{", "{").replace("}}", "}")), *replace]
        return write_run(folder, max_objects=15, passes=8, objects=objects, replace=changes)

    return write


@pytest.fixture(scope="module")
def runs(write, client, tmp_path_factory):
    """Folders of a run without maps, and of one with them that grew from it; and the results."""
    plain, mapped = tmp_path_factory.mktemp("plain"), tmp_path_factory.mktemp("mapped")
    base = f'[cutouts]\nbase = "{plain}/cutouts.zarr"\n[catalog]\nbase = "{plain}/catalog"\n[posterior]\n'
    results = []
    for path in (write(plain, maps="[posterior]\n"), write(mapped, replace=[("[posterior]\n", base)])):
        parsed = config.read_config(path)
        results.append(execution.execute(parsed, execution.prepare(parsed), client))
        assert results[-1].complete
    return plain, mapped, results


def rows(folder):
    return catalog.read_catalog(str(folder / "catalog")).sort_by("object_id").to_pandas()


def test_maps_compute_no_value_again_and_change_none(runs):
    plain, mapped, (_, grown) = runs
    assert (grown.n_cut, grown.n_passes) == (0, 0)
    before, after = rows(plain), rows(mapped)
    for column in before.columns:
        np.testing.assert_array_equal(after[column], before[column], err_msg=column)
    new = [name for name in after.columns if name not in before.columns]
    assert new[:2] == ["ebv", "in_circle"]
    assert all("_dered_mag" in name for name in new[2:])
    assert catalog.verify(str(mapped / "catalog")) == []


def test_magnitudes_are_dereddened_in_their_own_band(runs):
    found = rows(runs[1])
    ebv = found["ebv"].to_numpy()
    assert 0.1 < ebv.min() < ebv.max() < 4
    names = [name for name in found.columns if "dered_" in name]
    # gampen has a magnitude in g, sfnet one in r and a color, which is not dereddened.
    assert len(names) == 2 * len([name for name in names if name.startswith("gampen")]) > 10
    for name in names:
        a_b = 3.5 if name.startswith("gampen") else 2.5
        expected = found[name.replace("dered_", "")].to_numpy() - np.float32(a_b) * ebv
        np.testing.assert_allclose(found[name], expected, rtol=1e-6)
    assert found["gampen_dered_mag_q500"].notna().sum() > 20
    schema = catalog.read_schema(str(runs[1] / "catalog"))
    text = schema.field("gampen_dered_mag_q500").metadata[b"description"].decode()
    assert "corrected for Galactic extinction by 3.5 E(B-V) in g" in text
    assert b"ebv.fits, bilinear" in schema.field("ebv").metadata[b"description"]


def test_masks_and_primary_rows_are_in_the_default_cut(runs, center):
    plain, mapped, _ = runs
    found = rows(mapped)
    distance = separation_arcsec(found["ra_deg"], found["dec_deg"], *center[:2])
    np.testing.assert_array_equal(found["in_circle"], distance <= center[2])
    primary = found["detect_isPrimary"].to_numpy()
    assert (~primary).sum() == 10
    opened = api.open_catalog(str(mapped / "catalog")).good()
    kept = set(opened.to_pandas()["object_id"])
    others = api.open_catalog(str(plain / "catalog")).good().to_pandas()
    assert others["detect_isPrimary"].all()
    wanted = set(others["object_id"]) & set(found["object_id"][found["in_circle"]])
    assert kept == wanted
    assert 0 < len(kept) < len(others)


def test_networks_may_be_selected_and_fed_by_maps(write, tmp_path):
    # Only what the network is fed matters to the plan, not what it computes.
    toy = save_toy(tmp_path / "toy.pt")
    where = f'[[models]]\nname = "toy"\nbundle = "{toy}"\nwhere = "in_circle and ebv > 0"\n'
    plan = execution.prepare(config.read_config(write(tmp_path, replace=[(GAMPEN, where)])))
    assert plan.models[0].n_selected == 20
    table = plan.take(plan.partitions[0].partition).table
    np.testing.assert_array_equal(table.inputs["ebv"], table.kept["ebv"].to_numpy())


@pytest.mark.parametrize(("trained", "stated"), [(True, "false"), (False, "true")])
def test_networks_trained_on_the_other_kind_of_fluxes_are_refused(write, tmp_path, trained, stated):
    metadata = load_bundle("demo:gampen").metadata
    other = dataclasses.replace(metadata, input=dataclasses.replace(metadata.input, dereddened=trained))
    rewrite_bundle("demo:gampen", str(tmp_path / "other.pt"), other)
    replace = [("demo:gampen", "other.pt"), ('layout = "hsc"\n', f'layout = "hsc"\ndereddened = {stated}\n')]
    parsed = config.read_config(write(tmp_path, replace=replace))
    with pytest.raises(
        ConfigError, match=rf"gampen: was trained on fluxes .*\[survey\] dereddened = {stated}"
    ):
        execution.prepare(parsed)
    right = [(old, new.replace(stated, str(trained).lower())) for old, new in replace]
    assert execution.prepare(config.read_config(write(tmp_path, replace=right))).models[0].n_selected == 40


def test_the_area_under_a_mask_is_that_of_the_circle(write, tmp_path, center):
    path = write(tmp_path)
    done = CliRunner().invoke(
        app, ["area", str(path), "-o", str(tmp_path / "r.parquet"), "--points", "200000"]
    )
    assert done.exit_code == 0, done.output
    radius = np.radians(center[2] / 3600)
    right = 2 * np.pi * (1 - np.cos(radius)) * (180 / np.pi) ** 2
    points = pq.read_table(tmp_path / "r.parquet")
    metadata = points.schema.metadata
    area, error = float(metadata[b"area_square_deg"]), float(metadata[b"area_error_square_deg"])
    assert area == pytest.approx(right, abs=4 * error)
    assert error < 0.02 * right
    assert f"area: {area:.6g} +-" in done.output
    # Evenly distributed: half of the area lies within the radius over the square root of two.
    distance = separation_arcsec(points["ra_deg"].to_numpy(), points["dec_deg"].to_numpy(), *center[:2])
    assert distance.max() <= center[2]
    share = (distance <= center[2] / np.sqrt(2)).mean()
    assert share == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(len(points)))
    assert points["in_circle"].to_numpy(zero_copy_only=False).all()
    assert points.column_names == ["ra_deg", "dec_deg", "ebv", "in_circle"]


def test_the_area_without_masks_is_that_of_the_tiles(write, tmp_path, survey):
    parsed = config.read_config(write(tmp_path, maps="[posterior]\n"))
    found = api.area_of_run(parsed, n_points=100_000, seed=3)
    tiles = execution.tiles_of_run(parsed)
    # The union of tiles that overlap: points in any of the boxes of their common tangential plane.
    corners = np.array([tile.corners_deg for tile in tiles if tile.band == "g"])
    assert found.square_deg == found.unmasked_square_deg
    sides = [
        separation_arcsec(*tile[0], *tile[1]) * separation_arcsec(*tile[1], *tile[2]) / 3600**2
        for tile in corners
    ]
    assert max(sides) < found.square_deg < sum(sides) * 1.001
    if len(sides) == 1:
        assert found.square_deg == pytest.approx(sides[0], abs=4 * found.error_square_deg)


def test_bands_and_names_that_cannot_be_are_refused(write, tmp_path):
    with pytest.raises(ConfigError, match=r"\[extinction\] a_b: z: no such band"):
        config.read_config(write(tmp_path, maps=MAPS.replace("r = 2.5", "z = 2.5")))
    twice = MAPS.replace("[posterior]", '[[masks]]\nname = "in_circle"\npath = "circle.reg"\n[posterior]')
    with pytest.raises(ConfigError, match=r"\[\[masks\]\] names must differ"):
        config.read_config(write(tmp_path, maps=twice))
    clash = MAPS.replace("in_circle", "z_best")
    with pytest.raises(ConfigError, match=r"keep has a column z_best, and so does a map of the sky"):
        execution.prepare(config.read_config(write(tmp_path, maps=clash)))
