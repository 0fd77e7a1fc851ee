"""`import galbatch` is light, its names are those it promises, and a user's script type-checks against them."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import galbatch

NAMES = {
    "Bundle", "Catalog", "CatalogObject", "ComparisonOptions", "GalbatchError", "RunConfig", "RunPlan", "RunResult", "Store",
    "SimulatedSurvey", "UsageError", "Verification", "__version__", "compare", "load_bundle", "open_catalog", "open_store", "plan",
    "read_config", "report", "run", "simulate", "verify",
}  # fmt: skip

HEAVY = (
    "torch",
    "pandas",
    "astropy",
    "numpy",
    "pyarrow",
    "dask",
    "distributed",
    "zarr",
    "hats",
    "matplotlib",
)

SCRIPT = """
import astropy.units as u
from astropy.coordinates import SkyCoord

import galbatch


def nearest(path: str) -> int | str:
    catalog: galbatch.Catalog = galbatch.open_catalog(path, store="cutouts.zarr")
    near = catalog.cone(SkyCoord(150.1, -2.2, unit="deg"), 10 * u.arcsec).good().where("z_best > 0.1")
    print(len(near), near.columns, near.to_pandas(["object_id"]), near.table(where="flags == 0"))
    one: galbatch.CatalogObject = catalog.object(40004200000000007)
    print(one.flags["flags"][0].name, one.cutout("g"), one.draws(100, seed=1), one.interval("re_arcsec", 0.68))
    print(len(galbatch.open_store("cutouts.zarr")), galbatch.load_bundle("demo:gampen").bands)
    return one.id


def main() -> None:
    config = galbatch.read_config("run.toml").with_cluster(workers=2)
    plan: galbatch.RunPlan = galbatch.plan(config)
    print(plan.rows, plan.notes)
    result: galbatch.RunResult = galbatch.run(config, stage="all")
    print(result.failed)
    found: galbatch.Verification = galbatch.verify(config.catalog.path, against=config)
    print(found.is_good, found.problems, galbatch.report(config.catalog.path, "report.html").upper())
    survey: galbatch.SimulatedSurvey = galbatch.simulate("survey", n_objects=50, bands="gr")
    print(survey.run_toml)
    nearest(config.catalog.path)
"""


def test_names_are_those_that_are_promised():
    assert set(galbatch.__all__) == NAMES
    assert len(galbatch.__all__) == len(NAMES)
    for name in NAMES:
        assert getattr(galbatch, name) is not None


@pytest.mark.parametrize("name", sorted(NAMES - {"__version__", "RunResult"}))
def test_each_says_what_it_is_for(name):
    assert len(inspect.getdoc(getattr(galbatch, name)).splitlines()[0]) > 20


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import galbatch; dir(galbatch)", HEAVY),
        ("import galbatch; galbatch.__version__", HEAVY),
        # A table is read without a network.
        (
            "import galbatch; galbatch.open_catalog; galbatch.open_store",
            ("torch", "distributed", "hats", "bokeh"),
        ),
    ],
)
def test_names_are_loaded_when_they_are_used(code, absent):
    script = f"import sys\n{code}\nprint([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.slow  # mypy reads all of the package: half a minute.
@pytest.mark.timeout(900)
def test_a_script_of_a_user_type_checks(tmp_path):
    path = tmp_path / "script.py"
    wrong = tmp_path / "wrong.py"
    path.write_text(SCRIPT)
    wrong.write_text(
        SCRIPT.replace("-> int | str:\n    catalog", "-> bytes:\n    catalog").replace(
            "workers=2", "workers='2'"
        )
    )
    # As a user's project that says nothing about galbatch; packages without types are the user's own affair.
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--ignore-missing-imports",
        "--config-file=",
        "--follow-imports=silent",
    ]
    root = Path(galbatch.__file__).parents[1]
    for script, problems in ((path, 0), (wrong, 2)):
        done = subprocess.run([*command, str(script)], capture_output=True, text=True, cwd=root, timeout=800)
        assert done.stdout.count("error:") == problems, done.stdout
