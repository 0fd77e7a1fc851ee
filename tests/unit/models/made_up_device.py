"""A device that does not exist: its tensors have no numbers for NumPy, and whatever comes back from it is noted.

Tensors on it are computed on the CPU. As with a GPU, tensors of the CPU cannot be mixed with them, but for indices and single numbers.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

DEVICE = torch.device("meta")
INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")


class FarTensor(torch.Tensor):
    """A tensor on the device; `near` has its numbers."""

    @staticmethod
    def __new__(cls, near):
        return torch.Tensor._make_wrapper_subclass(
            cls, near.shape, strides=near.stride(), dtype=near.dtype, device=DEVICE
        )

    def __init__(self, near):
        self.near = near

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func}: outside of the device's mode")


class MadeUpDevice(TorchDispatchMode):
    """Runs what is called on far tensors, and notes the shapes that are copied to the host."""

    def __init__(self):
        super().__init__()
        self.came_back = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name = dict(kwargs or {}), func._schema.name.removeprefix("aten::")
        flat = torch.utils._pytree.tree_leaves((args, kwargs))
        far = [one for one in flat if isinstance(one, FarTensor)]
        arrives = torch.device(kwargs.get("device") or "cpu") == DEVICE  # it is copied, or made there
        if not far and not arrives:
            return func(*args, **kwargs)
        if name == "_local_scalar_dense":
            self.came_back.append(())
            return func(args[0].near)
        near = [one for one in flat if isinstance(one, torch.Tensor) and not isinstance(one, FarTensor)]
        assert arrives or name in INDEXING or all(one.ndim == 0 for one in near), (
            f"{func}: a tensor of the CPU"
        )
        leaves = name == "_to_copy" and kwargs.get("device") == torch.device("cpu")
        if kwargs.get("device") is not None:
            kwargs["device"] = torch.device("cpu")
        found = func(*tree_map(unwrapped, args), **tree_map(unwrapped, kwargs))
        if leaves:
            self.came_back.append(tuple(found.shape))
            return found
        if name.endswith("_") and not name.startswith("_"):
            return args[0]
        return tree_map(lambda one: FarTensor(one) if isinstance(one, torch.Tensor) else one, found)


def unwrapped(one):
    return one.near if isinstance(one, FarTensor) else one
