"""Stopping calibrations of bundles: in a bundle's metadata, or for the shipped ones in files next to them.

The shipped bundles stay as they are, since every draw depends on the hash of the bundle's file. So their calibrations are in files
``NAME.stopping.json`` in their folder, and are found by that hash, wherever a copy of the bundle lies.
"""

from __future__ import annotations

import dataclasses
import json
from functools import lru_cache
from pathlib import Path

from galbatch.config import parse_strictly
from galbatch.errors import BundleError
from galbatch.models.bundle.paths import DEMO_FOLDER
from galbatch.models.metadata import BundleMetadata, StoppingInfo

__all__ = ["STOPPING_SUFFIX", "read_stopping", "stopping_of", "write_stopping"]

STOPPING_SUFFIX = ".stopping.json"


def stopping_of(metadata: BundleMetadata, sha256: str) -> StoppingInfo | None:
    """Return the stopping calibration of a bundle: its own, or the one that is shipped for its hash; None if there is none."""
    return metadata.stopping or _shipped().get(sha256)


def write_stopping(path: Path, sha256: str, info: StoppingInfo) -> None:
    """Write the stopping calibration of the bundle with this hash to a file of its own."""
    content = {"sha256": sha256, "stopping": dataclasses.asdict(info)}
    path.write_text(json.dumps(content, allow_nan=False) + "\n", encoding="utf-8")


def read_stopping(path: Path) -> tuple[str, StoppingInfo]:
    """Return the hash of a bundle, and its stopping calibration, from a file that `write_stopping` wrote.

    Raises
    ------
    BundleError
        The file holds values that contradict each other.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    info = parse_strictly(StoppingInfo, content["stopping"], source=path.name)
    if problems := info.problems(len(info.upper)):
        raise BundleError(f"{path.name}: {'; '.join(problems)}")
    return content["sha256"], info


@lru_cache(maxsize=1)
def _shipped() -> dict[str, StoppingInfo]:
    """Return the calibrations that are shipped, by the hash of their bundle's file."""
    return dict(read_stopping(path) for path in sorted(DEMO_FOLDER.glob(f"*{STOPPING_SUFFIX}")))
