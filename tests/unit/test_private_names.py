"""Private names of torch, dask, distributed and zarr that the package uses: each stands here, and fails here when it is gone."""

import ast
import importlib
import re
from pathlib import Path

import pytest

import galbatch

PACKAGE = Path(galbatch.__file__).parent
OTHERS = ("torch", "dask", "distributed", "zarr")

# File, module, name; and why no public name does.
USED = [
    # Else Dask imports pandas into the run's own process and names other modules to be imported ahead.
    ("cluster/kinds/forking.py", "distributed.utils", "_forkserver_preload_set"),
    # torch.cpu.get_capabilities() came after torch 2.6, the oldest that galbatch runs with.
    ("models/engines/choice.py", "torch.cpu", "_is_avx512_bf16_supported"),
    ("models/engines/choice.py", "torch.cpu", "_is_amx_tile_supported"),
    # The profiler that torch.profiler offers takes 5 s to start, and writes to stderr.
    ("models/inference/memory.py", "torch._C._autograd", "_disable_profiler_legacy"),
    ("models/inference/memory.py", "torch._C._autograd", "_enable_profiler_legacy"),
    ("models/inference/memory.py", "torch._C._profiler", "ProfilerConfig"),
    ("models/inference/memory.py", "torch._C._profiler", "ProfilerState"),
    ("models/inference/memory.py", "torch._C._profiler", "_ExperimentalConfig"),
]


@pytest.mark.parametrize(("file", "module", "name"), USED)
def test_the_name_is_still_there(file, module, name):
    assert name in (PACKAGE / file).read_text(), (
        f"{file} no longer uses {module}.{name}: remove it from this table"
    )
    assert hasattr(importlib.import_module(module), name), f"{module}.{name} is gone, which {file} uses"


def is_private(dotted):
    return any(re.match(r"_(?!_)", part) for part in dotted.split(".")) or dotted.startswith("zarr.core")


def private_names(source):
    """(module, name) of what a file imports, names after a dot, or in a string that looks like a private name of torch."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Attribute):
            module, _, name = ast.unparse(node).rpartition(".")
            if re.fullmatch(r"[\w.]+", module):
                yield module, name
        elif isinstance(node, ast.Constant) and re.fullmatch(r"_is_\w+_supported", str(node.value)):
            yield "torch.cpu", node.value


def test_no_other_private_name_is_used():
    known, found = {(file, name) for file, _, name in USED}, set()
    for path in sorted(PACKAGE.rglob("*.py")):
        file = path.relative_to(PACKAGE).as_posix()
        for module, name in private_names(path.read_text()):
            if module.split(".")[0] in OTHERS and is_private(f"{module}.{name}".rstrip(".")):
                found.add((file, name))
    assert found == known


def test_a_planted_one_is_found():
    planted = "from zarr.core.buffer import cpu\nimport torch\ntorch._foreach_lerp_([], [], 0.1)\nfrom dask import _x\n"
    found = [f"{module}.{name}" for module, name in private_names(planted)]
    private = sorted(name for name in found if is_private(name) and name.split(".")[0] in OTHERS)
    assert private == ["dask._x", "torch._foreach_lerp_", "zarr.core.buffer.cpu"]
