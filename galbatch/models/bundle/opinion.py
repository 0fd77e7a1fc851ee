"""Second opinions of the shipped bundles, in files next to them.

A bundle has its second opinion in its metadata. As with stopping calibrations, the shipped bundles' files stay as they are: theirs are in
files ``NAME.disagreement.json``, are found by the files' hash, and become part of the metadata where these are read.
"""

from __future__ import annotations

import dataclasses
import json
from functools import lru_cache
from pathlib import Path

from galbatch.config import parse_strictly
from galbatch.errors import BundleError
from galbatch.models.bundle.paths import DEMO_FOLDER
from galbatch.models.metadata import FEATURES_OF_BAND, BundleMetadata, DisagreementInfo

__all__ = [
    "DISAGREEMENT_SUFFIX",
    "read_disagreement",
    "shipped_disagreement",
    "with_shipped_disagreement",
    "write_disagreement",
]

DISAGREEMENT_SUFFIX = ".disagreement.json"


def shipped_disagreement(sha256: str) -> DisagreementInfo | None:
    """Return the second opinion that is shipped for the bundle with this hash; None if there is none."""
    return _shipped().get(sha256)


def with_shipped_disagreement(metadata: BundleMetadata, sha256: str) -> BundleMetadata:
    """Return a bundle's metadata with the second opinion that is shipped for its hash, or as they are."""
    shipped = shipped_disagreement(sha256)
    return metadata if shipped is None else dataclasses.replace(metadata, disagreement=shipped)


def write_disagreement(path: Path, sha256: str, info: DisagreementInfo) -> None:
    """Write the second opinion of the bundle with this hash to a file of its own."""
    content = {"sha256": sha256, "disagreement": dataclasses.asdict(info)}
    path.write_text(json.dumps(content, allow_nan=False) + "\n", encoding="utf-8")


def read_disagreement(path: Path) -> tuple[str, DisagreementInfo]:
    """Return the hash of a bundle, and its second opinion, from a file that `write_disagreement` wrote.

    Raises
    ------
    BundleError
        The file holds values that contradict each other.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    info = parse_strictly(DisagreementInfo, content["disagreement"], source=path.name)
    parameters = tuple(fit.parameter for fit in info.fits)
    # The last feature is the axis ratio; all others are those of a band.
    if problems := info.problems(parameters, (len(info.centers) - 1) // FEATURES_OF_BAND):
        raise BundleError(f"{path.name}: {'; '.join(problems)}")
    return content["sha256"], info


@lru_cache(maxsize=1)
def _shipped() -> dict[str, DisagreementInfo]:
    """Return the second opinions that are shipped, by the hash of their bundle's file."""
    return dict(read_disagreement(path) for path in sorted(DEMO_FOLDER.glob(f"*{DISAGREEMENT_SUFFIX}")))
