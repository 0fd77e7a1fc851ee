"""Galaxies of known truth in a survey's own pixels: the light is what the simulation draws, and what becomes of it agrees with it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from typer.testing import CliRunner

from galbatch import catalog, config, ingest, reporting
from galbatch.cli.app import app
from galbatch.core.sky import separation_arcsec
from galbatch.errors import UsageError
from galbatch.reporting.contents import quantities_of
from galbatch.reporting.injection import evidence_rows, inject
from galbatch.simulation.light.camera import PSF_FWHM_ARCSEC
from galbatch.simulation.light.noise import add_noise

SFNET = '[[models]]\nname = "sfnet"\nbundle = "demo:sfnet"\nwhere = "z_best > 0.1"\n'
# Eight passes leave errors that would flag most objects NOT_CONVERGED.
TOLERANT = ("seed = 1\n", "seed = 1\ntolerance = 1.0\n")
ADU_NJY = 57.54399  # HSC's zero point of 27.0 mag
# The simulation's HSC files do not say how wide the PSF is, which varies by some percent about these widths.
WIDTHS = (
    'bands = ["g", "r"]\n',
    f'bands = ["g", "r"]\npsf_fwhm_arcsec = {{g = {PSF_FWHM_ARCSEC["g"]}, r = {PSF_FWHM_ARCSEC["r"]}}}\n',
)


@pytest.fixture(scope="module")
def blank(survey, tmp_path_factory):
    """The simulated survey without its galaxies: its own noise alone, and no masks."""
    folder = tmp_path_factory.mktemp("blank")
    for number, path in enumerate(sorted(Path(survey).glob("deepCoadd-results/**/calexp-*.fits"))):
        copy = folder / path.relative_to(survey)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
        with fits.open(copy, mode="update") as file:
            band = "g" if "HSC-G" in str(path) else "r"
            noise, variance, *_ = add_noise(
                np.zeros(file[1].data.shape), band, np.random.default_rng(number), correlate=True
            )
            file[1].data = (noise / ADU_NJY).astype("f4")
            file[2].data[:] = 0
            file[3].data[:] = np.asarray(variance, "f4") / ADU_NJY**2
    return folder


@pytest.fixture(scope="module")
def injected(blank, write_run, tmp_path_factory):
    """A run.toml on the blank survey, the folder of 60 galaxies injected by the command, and its output."""
    folder = tmp_path_factory.mktemp("run")
    path = write_run(folder, survey=blank, passes=8, replace=[(SFNET, ""), TOLERANT, WIDTHS])
    done = CliRunner().invoke(app, ["inject", str(path), "--galaxies", "60", "--population", "paper"])
    assert done.exit_code == 0, done.output
    return path, folder / "catalog_injection", done.output


def cutouts(store):
    blocks = [
        block
        for pixel, grid in ingest.list_done(str(store))
        for block in ingest.read_blocks(str(store), pixel, grid)
    ]
    ids = np.concatenate([block.object_id for block in blocks])
    images = np.concatenate([block.image for block in blocks])
    widths = np.concatenate([block.psf_fwhm_arcsec for block in blocks])
    order = np.argsort(ids)
    return ids[order], images[order], widths[order]


def test_the_light_is_the_simulation_s_with_the_tile_s_psf(injected):
    _, folder, _ = injected
    truth = pq.read_table(folder / "truth.parquet").sort_by("object_id").to_pandas()
    ids, images, widths = cutouts(folder / "cutouts.zarr")
    np.testing.assert_array_equal(ids, truth["object_id"])
    assert ((widths > 0.4) & (widths < 1.5)).all()
    # The sum over a cutout is the flux, less what lies outside of it: small galaxies are whole.
    small = (truth["re_arcsec"] < 1.0) & (truth["bt"] < 0.3) & np.isfinite(images).all(axis=(1, 2, 3))
    assert small.sum() >= 3
    sums = images[small, 0].sum(axis=(1, 2))
    np.testing.assert_allclose(sums, truth["flux_g_njy"][small], rtol=0.05)
    # It peaks at the central pixel or beside it.
    size = images.shape[-1]
    bright = small & (truth["flux_g_njy"] > 1e5)
    for image in images[bright, 0]:
        y, x = np.unravel_index(image.argmax(), image.shape)
        assert abs(y - size // 2) <= 1
        assert abs(x - size // 2) <= 1


def test_numbers_agree_with_those_of_the_simulated_survey(injected, survey, write_run, client, tmp_path):
    from galbatch import execution

    _, folder, _ = injected
    parsed = config.read_config(write_run(tmp_path, passes=8, replace=[(SFNET, ""), TOLERANT]))
    assert execution.execute(parsed, execution.prepare(parsed), client).complete
    table = catalog.read_catalog(str(tmp_path / "catalog")).sort_by("object_id")
    truth = pq.read_table(survey / "truth.parquet").sort_by("object_id")
    # Strays of the list are no galaxies.
    table = table.filter(pc.is_in(table["object_id"], truth["object_id"].combine_chunks()))
    index = pa.array(np.searchsorted(truth["object_id"].to_numpy(), table["object_id"].to_numpy()))
    assert truth.take(index)["object_id"].equals(table["object_id"])
    there = truth.take(index)
    columns = {
        name: table[name].to_numpy(zero_copy_only=False) for name in ("flags", "tile_id", "gampen_flags")
    }
    columns |= {"true_mag": there["mag_g"].to_numpy(), "true_re_arcsec": there["re_arcsec"].to_numpy()}
    columns["nearest_listed_arcsec"] = np.full(len(table), 99.0)
    evidence = reporting.read_evidence(str(folder.parent / "catalog"))
    own = {row.parameter: row for row in evidence.all_galaxies}
    assert set(own) == {"bt", "re_arcsec", "flux_njy", "mag"}
    compared = {"re_arcsec": "re_arcsec", "mag": "mag_g", "bt": "bt"}
    for quantity in quantities_of(table):
        if quantity.parameter not in compared:
            continue
        right = next(iter(evidence_rows(quantity, there[compared[quantity.parameter]].to_numpy(), columns)))
        found = own[quantity.parameter]
        error = np.hypot(right.scatter / np.sqrt(right.n_usable), found.scatter / np.sqrt(found.n_usable))
        # Medians of skewed residuals: four standard errors of a mean, times 1.25 for a median.
        assert abs(found.bias - right.bias) < 5 * error, quantity.parameter
        assert 0.4 < found.scatter / right.scatter < 2.5, quantity.parameter
        assert abs(found.coverage68 - right.coverage68) < 0.3, quantity.parameter


def test_evidence_is_in_the_properties_and_on_the_report_s_first_page(injected, client, tmp_path):
    from galbatch import execution

    path, folder, output = injected
    evidence = reporting.read_evidence(str(folder.parent / "catalog"))
    assert evidence.n_galaxies == 60
    assert {row.binned_by for row in evidence.rows} == {"", "magnitude", "size", "crowding", "tract"}
    whole = {row.parameter: row for row in evidence.all_galaxies}["mag"]
    assert whole.completeness > 0.5
    assert f"{whole.bias:.3g}" in output
    # The simulation's headers state no gain.
    assert evidence.without_photon_noise == ("g",)
    assert "without photon noise of the galaxies in g: the tiles state no GAIN" in " ".join(output.split())
    parsed = config.read_config(path)
    assert execution.execute(parsed, execution.prepare(parsed), client).complete
    properties = catalog.read_properties(parsed.catalog.path)
    assert properties["galbatch_injection"] == evidence.text()
    assert catalog.verify(parsed.catalog.path) == []
    page = Path(reporting.report(parsed.catalog.path, tmp_path / "report.html")).read_text()
    assert "60 galaxies of known truth (population paper" in page
    assert "photon noise is not in g: no gain was known" in page
    assert page.index('id="evidence"') < page.index('id="catalog"')
    # Written again beside a finished catalog, the property follows.
    kept = json.loads(Path(catalog.evidence_path(parsed.catalog.path)).read_text())
    reporting.injection.write_evidence(parsed.catalog.path, evidence)
    assert json.loads(Path(catalog.evidence_path(parsed.catalog.path)).read_text()) == kept
    assert catalog.read_properties(parsed.catalog.path)["galbatch_injection"] == evidence.text()


def test_places_of_a_table_and_crowding_by_the_user_s_list(injected, survey, tmp_path):
    path, _, _ = injected
    listed = pq.read_table(survey / "objects.parquet").slice(0, 12)
    pq.write_table(
        pa.table({"ra_deg": listed["ra_deg"], "dec_deg": pa.array(listed["dec_deg"].to_numpy() + 2 / 3600)}),
        tmp_path / "places.parquet",
    )
    settings = reporting.InjectionSettings(population="paper", places=str(tmp_path / "places.parquet"))
    evidence = inject(config.read_config(path), settings, folder=tmp_path / "here")
    assert evidence.n_galaxies == 12
    found = pq.read_table(tmp_path / "here" / "galaxies.parquet")
    assert found["nearest_listed_arcsec"].to_numpy() == pytest.approx(2.0, abs=0.01)
    apart = separation_arcsec(
        found["ra_deg"].to_numpy(),
        found["dec_deg"].to_numpy(),
        listed["ra_deg"].to_numpy(),
        listed["dec_deg"].to_numpy(),
    )
    np.testing.assert_allclose(apart, 2.0, atol=1e-6)
    # The evidence beside the catalog is that of the last injection.
    assert reporting.read_evidence(config.read_config(path).catalog.path).n_galaxies == 12


def test_what_cannot_be_injected_is_refused(injected, tmp_path):
    path, _, _ = injected
    parsed = config.read_config(path)
    network = parsed.models[0].model_copy(update={"bands": ("z",)})
    other = parsed.model_copy(update={"models": (network,)})
    with pytest.raises(
        UsageError, match="networks are fed z: simulated galaxies have colors in g, r and i only"
    ):
        inject(other, reporting.InjectionSettings(10), folder=tmp_path / "here")
    with pytest.raises(UsageError, match="--electrons-per-njy i: networks are fed g; leave it out"):
        inject(
            parsed, reporting.InjectionSettings(10, electrons_per_njy={"i": 60.0}), folder=tmp_path / "here"
        )
    for option, value, message in (
        ("--band", "y", "--band y: expected BAND=LIKE, such as y=i-0.2"),
        ("--band", "y=z", "--band: 'z': expected one of g, r, i"),
        ("--electrons-per-njy", "g=-3", "'-3': expected a number above 0"),
    ):
        run = CliRunner().invoke(app, ["inject", str(path), option, value])
        assert isinstance(run.exception, UsageError)
        assert message in str(run.exception)
    assert not (tmp_path / "here").exists()


@pytest.mark.slow
def test_on_real_pixels(realdata, tmp_path):
    example = Path(__file__).parents[2] / "examples" / "decals_dr9"
    shutil.copytree(realdata / "decals_dr9", tmp_path / "data")
    text = (example / "run.toml").read_text()
    (tmp_path / "run.toml").write_text(text)
    parsed = config.read_config(tmp_path / "run.toml")
    evidence = inject(parsed, reporting.InjectionSettings(60, "paper"), folder=tmp_path / "here")
    found = {(row.model, row.parameter): row for row in evidence.all_galaxies}
    assert evidence.n_galaxies == 60
    row = found["gampen", "mag"]
    # Bright galaxies on real pixels: what the network says follows what was put in.
    table = catalog.read_catalog(str(tmp_path / "here" / "catalog")).to_pandas()
    has_value = table["gampen_mag_q500"].notna()
    assert has_value.sum() >= 30
    rank = table.loc[has_value, ["true_mag", "gampen_mag_q500"]].corr("spearman").iloc[0, 1]
    assert rank > 0.8
    assert 0 <= row.completeness <= 1
