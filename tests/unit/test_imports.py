"""The import contracts of pyproject.toml hold, and each of them fails by its name when an import breaks it.

Processes import no more than they need, as start-up is most of the time of a short run.
"""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import galbatch

ROOT = Path(__file__).parents[2]
PACKAGE = Path(galbatch.__file__).parent

CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
    "contracts"
]

# Of each contract: a file of the package and the import that breaks this contract and no other.
PLANTED = {
    "Imports go one way": ("galbatch/core/__init__.py", "import galbatch.config"),
    "Imports go one way inside models": (
        "galbatch/models/posterior/__init__.py",
        "import galbatch.models.training",
    ),
    "Imports go one way inside ingest": ("galbatch/ingest/pixels/__init__.py", "import galbatch.ingest.cut"),
    "Only models imports torch": ("galbatch/catalog/__init__.py", "import torch"),
    "Only storage imports fsspec": ("galbatch/objects/__init__.py", "import fsspec"),
    "Only execution, cluster and dashboard import distributed": (
        "galbatch/planning/__init__.py",
        "import distributed",
    ),
}


@pytest.fixture
def copied(tmp_path):
    """A folder with a copy of the package and its contracts."""
    shutil.copytree(PACKAGE, tmp_path / "galbatch", ignore=shutil.ignore_patterns("__pycache__", "*.pt"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def verdicts(folder):
    """Exit code of lint-imports, and name of a contract -> KEPT or BROKEN."""
    script = (
        "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command as run; run()"
    )
    command = [sys.executable, "-c", script, "--no-cache"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    return done.returncode, dict(re.findall(r"^(.+?) (KEPT|BROKEN)\b", done.stdout, re.MULTILINE))


def test_a_planted_import_is_stated_for_every_contract():
    assert {contract["name"] for contract in CONTRACTS} == set(PLANTED)


def test_the_package_keeps_them(copied):
    assert verdicts(copied) == (0, dict.fromkeys(PLANTED, "KEPT"))


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_import_breaks_its_contract(copied, name):
    path, line = PLANTED[name]
    module = copied / path
    module.write_text(module.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")
    code, found = verdicts(copied)
    assert code == 1
    assert [contract for contract, verdict in found.items() if verdict == "BROKEN"] == [name]


HEAVY = [
    "torch",
    "galsim",
    "hats",
    "pandas",
    "aiohttp",
    "bokeh",
    "matplotlib",
    "mocpy",
    "h5py",
    "reproject",
    "scipy.spatial",
    "scipy.special",
]
"""Packages that take 0.1 s and more to import."""

OF_OTHER_STEPS = [
    "galbatch.planning.planner",
    "galbatch.objects.checking",
    "galbatch.objects.selection",
    "galbatch.execution.networks",
    "galbatch.execution.tasks.inferring",
    "galbatch.catalog.pass_outputs",
]
"""Modules with which lists are read, runs planned and networks run."""

HELP = """
sys.argv = ["galbatch", "--help"]
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    from galbatch.cli.app import main
    main()
"""

PLAN = """
from galbatch import execution, ingest
from galbatch.config import read_config
from galbatch.execution import tasks
from galbatch.execution.submission import boundary
config = read_config("run.toml")
plan = execution.prepare(config)
part = plan.partitions[0]
task = tasks.ingest_task(plan, part, cutouts=config.cutouts, flags=config.flags)
grids = [grid.grid for grid in plan.grids]
ingest.create_groups(config.cutouts.store, attributes={}, partitions=[part.partition.pixel], grids=grids)
with open("task", "wb") as file:
    file.write(boundary.packed(tasks.ingest_partition, task))
"""

CUT = """
from galbatch.execution.submission import boundary
with open("task", "rb") as file:
    result = boundary.run_packed(file.read())
assert result.n_cutouts > 0, result
"""


def loaded(script, folder):
    """Return the packages of HEAVY, and a few more, that a new process has loaded after a script."""
    heavy = [*HEAVY, *OF_OTHER_STEPS, "numpy", "astropy", "distributed", "pyarrow"]
    text = (
        "import contextlib, io, sys\n"
        + script
        + f"\nprint(*[name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=folder, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_help_loads_no_array_library(tmp_path):
    assert loaded(HELP, tmp_path) == set()


def test_a_plan_and_a_worker_that_cuts_load_what_they_need(tmp_path, write_run):
    write_run(tmp_path)
    # A plan loads the networks to check them, searches the tiles with trees of scipy, and pyarrow makes arrays with pandas.
    assert loaded(PLAN, tmp_path) & set(HEAVY) <= {"torch", "pandas", "scipy.spatial", "scipy.special"}
    assert loaded(CUT, tmp_path) & {*HEAVY, *OF_OTHER_STEPS} == set()
