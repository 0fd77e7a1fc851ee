"""Packages of extras: where each is needed, its absence is said with the command that installs it."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from galbatch import reporting
from galbatch.core.process import EXTRAS, OptionalPackage, how_to_install, require
from galbatch.errors import ClusterError, MissingPackage
from galbatch.ingest.pixels import open_hdf5
from galbatch.objects import read_table
from galbatch.simulation import simulate_survey

ROOT = Path(__file__).parents[4]
EXTRAS_OF_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]


class Hiding:
    """An import hook in the place of another one, for which packages are not installed."""

    def __init__(self, finder: Any, packages: list[str]) -> None:
        self.finder, self.packages = finder, packages

    def __getattr__(self, name):
        # Finders also list the installed distributions.
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in self.packages else self.finder.find_spec(name, path, target)


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch):
    """Hide a package, also one that was imported."""

    def hidden(package: str) -> str:
        for name in [*sys.modules]:
            if name.partition(".")[0] == package:
                monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(sys, "meta_path", [Hiding(finder, [package]) for finder in sys.meta_path])
        return rf"{re.escape(package)}, which is not installed: {re.escape(how_to_install(package))}"

    return hidden


def test_each_extra_installs_the_package_that_it_is_named_for() -> None:
    for package, extra in EXTRAS.items():
        listed = [re.split(r"[\[<>=]", one)[0].replace("-", "_") for one in EXTRAS_OF_PROJECT[extra.name]]
        assert (extra.distribution or package) in listed, extra
    # Every other extra is for those who work on galbatch, sums up, or is for an older CUDA.
    assert set(EXTRAS_OF_PROJECT) == {extra.name for extra in EXTRAS.values()} | {
        "all",
        "cuda12",
        "docs",
        "dev",
    }
    # The pair of cuda's pins would bind everybody, pymangle is under the GPL and compiled when it is installed, and timm imports torchvision, which
    # must be that of torch's release.
    together = EXTRAS_OF_PROJECT["all"][0]
    assert (
        together
        == f"galbatch[{','.join(sorted({e.name for e in EXTRAS.values()} - {'cuda', 'mangle', 'timm'}))}]"
    )


@pytest.mark.parametrize("package", EXTRAS)
def test_a_package_that_is_missing_is_named_with_its_extra(hide, package: str) -> None:
    said = hide(package)
    with pytest.raises(MissingPackage, match=f"a.h5: .* need {said}"):
        require(package, where="a.h5")
    with pytest.raises(MissingPackage, match=said):
        _ = OptionalPackage(package).anything


def test_a_package_that_cannot_be_loaded_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ImportError("libhdf5.so.310: cannot open shared object file", name="h5py._errors")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(
        MissingPackage, match=r"h5py, which cannot be loaded \(libhdf5.so.310: .*\): pip install"
    ):
        require("h5py")


def test_a_package_whose_own_package_is_of_another_release_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm imports torchvision, which raises a RuntimeError beside a torch that it was not built for."""

    def broken(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(importlib, "import_module", broken)
    said = r"encoder resnet18: encoders of timm need timm, which cannot be loaded \(operator torchvision::nms does not exist\): pip install"
    with pytest.raises(MissingPackage, match=said):
        require("timm", where="encoder resnet18")


def test_a_package_that_is_there_is_the_package_itself() -> None:
    import h5py

    assert require("h5py") is h5py
    assert OptionalPackage("h5py").File is h5py.File


def test_hdf5_files_say_it(hide, tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n")
    said = hide("h5py")
    with pytest.raises(MissingPackage, match=f"a.hdf5: HDF5 files need {said}"), open_hdf5(str(path)):
        pass
    with pytest.raises(MissingPackage, match=f"a.hdf5: HDF5 files need {said}"):
        read_table(str(path))
    with pytest.raises(MissingPackage, match=f"layout galaxiesml: HDF5 files need {said}"):
        simulate_survey(str(tmp_path / "out"), n_objects=1, patches=1, layout="galaxiesml", processes=1)
    assert not (tmp_path / "out").exists()


def test_corner_plots_say_it_before_anything_is_drawn(hide) -> None:
    said = hide("corner")
    with pytest.raises(MissingPackage, match=f"x.png: corner plots need {said}"):
        reporting.check_corner("x.png", 1000)


def test_gpu_clusters_say_it(hide) -> None:
    from galbatch.cluster.kinds import local_cuda

    hide("dask_cuda")
    with pytest.raises(
        ClusterError, match=rf"dask-cuda is not installed here: {re.escape(how_to_install('dask_cuda'))}"
    ):
        local_cuda._cluster_class()


HIDE_ALL = """
import importlib, pkgutil, sys

{hook}

sys.meta_path = [Hiding(finder, {packages!r}) for finder in sys.meta_path]
import galbatch
from galbatch.errors import MissingPackage
for module in pkgutil.walk_packages(galbatch.__path__, "galbatch."):
    if module.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(module.name)
    except MissingPackage:
        # This one derives classes from those of a package.
        assert module.name == "galbatch.cluster.kinds.slurm.jobs", module.name
print(len(sys.modules))
"""


def test_every_module_is_imported_without_any_extra() -> None:
    hook = inspect.getsource(Hiding).replace(": Any", "")
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        HIDE_ALL.format(hook=hook, packages=[*EXTRAS, "botocore", "s3fs", "reproject"]),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
