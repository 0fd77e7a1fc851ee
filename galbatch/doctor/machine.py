"""Versions, cores, memory and GPUs of this machine."""

from __future__ import annotations

import importlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version

from galbatch import __version__, cluster, models
from galbatch.doctor.findings import Finding
from galbatch.errors import ClusterError

__all__ = ["gpus", "machine"]

GIB = 2**30
PACKAGES = ("torch", "dask", "distributed", "dask-cuda", "numpy", "zarr", "pyarrow", "astropy")


def machine() -> Finding:
    """Return versions, cores and memory."""
    versions = {name: _version(name) for name in PACKAGES}
    there = {name: found for name, found in versions.items() if found}
    try:
        n_cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        n_cores = os.cpu_count() or 1
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    rows = (
        (
            "galbatch",
            f"{__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}",
        ),
        ("packages", ", ".join(f"{name} {found}" for name, found in there.items())),
        ("not installed", ", ".join(sorted(set(versions) - set(there))) or "nothing of these"),
        ("cores", f"{n_cores} of {os.cpu_count()} hardware threads are for this process"),
        ("memory", f"{memory_bytes / GIB:.1f} GiB"),
    )
    data = {
        "galbatch": __version__,
        "python": platform.python_version(),
        "packages": versions,
        "n_threads": os.cpu_count(),
        "n_threads_allowed": n_cores,
        "memory_bytes": memory_bytes,
    }
    return Finding(rows, data)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def gpus() -> Finding:
    """Return the GPUs that the driver knows, what torch was built for, and whether dask-cuda can be loaded."""
    try:
        found, problem = cluster.gpus_of_machine(), ""
    except ClusterError as error:
        found, problem = [], str(error)
    dask_cuda = _import_problem("dask_cuda")
    cuda = models.torch_cuda()
    rows = [
        (
            f"GPU {gpu.number}",
            f"{gpu.model}, {gpu.memory_bytes / GIB:.0f} GiB, {gpu.uuid}, compute mode {gpu.mode}"
            + (f", used by {len(gpu.processes)} processes" if gpu.processes else ""),
        )
        for gpu in found
    ]
    if not found:
        # The message is one of a run: it begins with a line of a config that nobody has written here.
        rows.append(("GPUs", f"none known: {problem.partition(': ')[2]}" if problem else "none"))
    if _version("dask-cuda") is None:
        loaded = "not installed: runs on NVIDIA GPUs alone need it"
    else:
        loaded = f"cannot be loaded: {dask_cuda}" if dask_cuda else "can be loaded"
    rows += [
        ("torch", f"built for CUDA {cuda}" if cuda else "built without CUDA: it computes on the CPU alone"),
        ("dask-cuda", loaded),
    ]
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        rows.append(("CUDA_VISIBLE_DEVICES", listed or "empty: no GPU may be used"))
    data = {
        "gpus": [
            {"number": one.number, "name": one.name, "uuid": one.uuid, "model": one.model}
            | {"memory_bytes": one.memory_bytes, "compute_mode": one.mode, "n_processes": len(one.processes)}
            for one in found
        ],
        "problem": problem,
        "torch_cuda": cuda,
        "dask_cuda_problem": dask_cuda,
        "cuda_visible_devices": listed,
    }
    return Finding(tuple(rows), data)


def _import_problem(module: str) -> str:
    """Return why a module cannot be imported; "" if it can."""
    try:
        importlib.import_module(module)
    except ImportError as error:
        return str(error)
    return ""
