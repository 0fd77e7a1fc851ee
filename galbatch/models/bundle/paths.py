"""Paths of bundles: those shipped with galbatch have names such as ``demo:gampen``, all others are given by path."""

from __future__ import annotations

from pathlib import Path

from galbatch.errors import BundleError

__all__ = ["DEMO_FOLDER", "bundle_path", "demo_bundles"]

DEMO_FOLDER = Path(__file__).parents[1] / "demo"


def bundle_path(spec: str) -> str:
    """Return the path of a bundle.

    Parameters
    ----------
    spec : ``demo:NAME`` for a bundle that is shipped with galbatch (`demo_bundles` lists them), or a path, which is
        returned as it is

    Raises
    ------
    BundleError
        No bundle of that name is shipped with galbatch.
    """
    if not spec.startswith("demo:"):
        return spec
    if spec not in demo_bundles():
        raise BundleError(f"{spec}: there is no such demo bundle; there are {', '.join(demo_bundles())}")
    return str(DEMO_FOLDER / f"{spec.removeprefix('demo:')}.pt")


def demo_bundles() -> list[str]:
    """Return the names of the bundles that are shipped with galbatch, in the form ``demo:name``."""
    return sorted(f"demo:{path.stem}" for path in DEMO_FOLDER.glob("*.pt"))
