"""What a package offers is what it says, whatever was imported before."""

import importlib
import pkgutil
import subprocess
import sys
import types

import pytest

import galbatch

PACKAGES = ["galbatch", *(m.name for m in pkgutil.walk_packages(galbatch.__path__, "galbatch.") if m.ispkg)]

IMPORT_EVERYTHING = """
import importlib, pkgutil, sys, galbatch

before = {name: getattr(galbatch, name) for name in galbatch.__all__}
for module in pkgutil.walk_packages(galbatch.__path__, "galbatch."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
for name, value in before.items():
    assert getattr(galbatch, name) is value, f"galbatch.{name} was {value!r}, is {getattr(galbatch, name)!r}"
print(len(before))
"""


def test_public_names_are_the_same_after_every_submodule_was_imported():
    """Importing a folder or file binds its name in the package: it must not be that of a function."""
    command = [sys.executable, "-W", "ignore", "-c", IMPORT_EVERYTHING]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(galbatch.__all__) > 1


@pytest.mark.parametrize("name", PACKAGES)
def test_every_name_of_a_door_is_there_and_none_is_a_modules(name):
    door = importlib.import_module(name)
    modules = {module.name for module in pkgutil.iter_modules(door.__path__)}
    for public in getattr(door, "__all__", ()):
        value = getattr(door, public)
        assert public not in modules or isinstance(value, types.ModuleType), public


def test_galbatch_has_a_version_and_reads_configs():
    assert set(galbatch.__all__) >= {"__version__", "read_config"}
    assert set(galbatch.__all__) <= set(dir(galbatch)) | {"__version__"}
    assert galbatch.read_config is importlib.import_module("galbatch.config").read_config
    assert not hasattr(galbatch, "nothing")
