"""The import contracts of pyproject.toml hold, and each of them fails by its name when an import breaks it."""

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
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
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
