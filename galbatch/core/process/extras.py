"""Packages that only some uses need: the extra of galbatch that installs each, and the error where it is missing."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from galbatch.errors import MissingPackage

__all__ = ["EXTRAS", "OptionalPackage", "how_to_install", "require"]


@dataclass(frozen=True, slots=True)
class Extra:
    """An extra of galbatch: its name in pyproject.toml, what needs its package, and the package's name in registries if that is another."""

    name: str
    use: str
    distribution: str = ""


EXTRAS: Mapping[str, Extra] = MappingProxyType(
    {
        "corner": Extra("corner", "corner plots"),
        "dask_cuda": Extra("cuda", 'clusters of the kind "local-cuda"'),
        "dask_jobqueue": Extra("slurm", 'clusters of the kind "slurm"'),
        "dask_kubernetes": Extra("kubernetes", 'clusters of the kind "kubernetes"'),
        "healsparse": Extra("healsparse", "HealSparse maps"),
        "h5py": Extra("hdf5", "HDF5 files"),
        "hats_import": Extra("lsdb", "margins"),
        "lsdb": Extra("lsdb", "LSDB catalogs"),
        "pymangle": Extra("mangle", "polygons of mangle"),
        "qp": Extra("qp", "ensembles of qp", "qp_prob"),
        "timm": Extra("timm", "encoders of timm"),
    }
)
"""The extras, by the module that is imported."""


def how_to_install(package: str) -> str:
    """Return the command that installs the extra of a package: ``pip install "galbatch[hdf5]"``."""
    return f'pip install "galbatch[{EXTRAS[package].name}]"'


def require(package: str, *, module: str = "", where: str = "") -> Any:
    """Import a package of an extra, or a module of it, and return it.

    Parameters
    ----------
    package : str
        A key of `EXTRAS`.
    module : str
        The module to return, such as ``hats_import.margin_cache``; "" for the package itself.
    where : str
        The file, key or option that asks for it, with which the error message begins; "" for none.

    Raises
    ------
    MissingPackage
        The package is not installed or cannot be loaded; the message says which extra to install.
    """
    try:
        return importlib.import_module(module or package)
    # Libraries that lack or are of another release raise OSError; torchvision of another torch than this one, which timm imports, a
    # RuntimeError ("operator torchvision::nms does not exist").
    except (ImportError, OSError, RuntimeError) as error:
        is_absent = isinstance(error, ModuleNotFoundError) and error.name == package
        found = "is not installed" if is_absent else f"cannot be loaded ({error})"
        place = f"{where}: " if where else ""
        raise MissingPackage(
            f"{place}{EXTRAS[package].use} need {package}, which {found}: {how_to_install(package)}"
        ) from None


class OptionalPackage:
    """A package of an extra that is imported when something of it is used, so that modules load without it.

    Its attributes are those of the package; the first use raises `MissingPackage` as `require` does.
    """

    def __init__(self, package: str) -> None:
        self._package = package

    def __getattr__(self, name: str) -> Any:
        return getattr(require(self._package), name)
