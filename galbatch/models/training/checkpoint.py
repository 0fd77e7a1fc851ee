"""Checkpoints of a training, from which it continues as if it had never stopped.

Written whole or not at all after every epoch. Orders, augmentations and dropout keys are drawn from (seed, epoch), so the
end of an epoch is all there is to keep: the state of the weights, of the optimizer, and the history.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from galbatch.errors import FingerprintError, OutputError
from galbatch.models.training.settings import TrainingSettings

__all__ = [
    "Checkpoint",
    "Identity",
    "read_checkpoint",
    "require_no_checkpoint",
    "require_settings",
    "write_checkpoint",
]

FORMAT = 1
State = dict[str, Any]


@dataclass(frozen=True)
class Identity:
    """The facts that a run must share with a checkpoint to continue from it.

    Attributes
    ----------
    settings : of the training
    data : fingerprint of images, labels and auxiliary inputs
    parent : sha256 of the bundle that it started from; "" for none
    """

    settings: TrainingSettings
    data: str
    parent: str = ""

    def texts(self) -> dict[str, str]:
        """Each setting, data and parent, as JSON text."""
        return self.settings_texts() | {"data": json.dumps(self.data), "parent": json.dumps(self.parent)}

    def settings_texts(self) -> dict[str, str]:
        """Each setting as JSON text."""
        return {name: json.dumps(value) for name, value in dataclasses.asdict(self.settings).items()}


@dataclass(frozen=True)
class Checkpoint:
    """The state at the end of an epoch.

    Attributes
    ----------
    history : (epoch, training loss, validation loss, seconds, learning rate) of each epoch
    network, optimizer : state dicts
    average : state dict of the mean of the weights; None if none is kept
    best : state dict of the epoch with the lowest validation loss
    """

    history: list[list[float]]
    network: State
    optimizer: State
    average: State | None
    best: State


def write_checkpoint(path: Path, checkpoint: Checkpoint, identity: Identity) -> None:
    """Replace the checkpoint at `path`; killed at any moment, the old or the new one is there.

    Raises
    ------
    OutputError
        It cannot be written; the old one is still there.
    """
    content = {field.name: getattr(checkpoint, field.name) for field in dataclasses.fields(checkpoint)}
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save({"format": FORMAT, "identity": identity.texts(), **content}, file)
            # On the disk before it gets its name: after a power cut the old or the new one is whole.
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # of a full disk, torch raises the latter
        reason = str(error).strip().splitlines()[0][:100]
        raise OutputError(
            f"{path}: the state after epoch {len(checkpoint.history)} cannot be written ({reason}); is the disk full? What was there is "
            "kept: make room, and add --resume to continue from it"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def read_checkpoint(path: Path, identity: Identity) -> Checkpoint | None:
    """The checkpoint at `path`, on the CPU; None if there is none.

    Raises
    ------
    FingerprintError
        It is no checkpoint, or one of other settings, data or parent.
    """
    if not path.exists():
        return None
    found, content = _load(path)
    _require_same(path, found, identity.texts())
    return Checkpoint(**{field.name: content[field.name] for field in dataclasses.fields(Checkpoint)})


def _load(path: Path) -> tuple[dict[str, str], State]:
    """Identity and content of a checkpoint file."""
    try:
        # `weights_only`: nothing in the file is run.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        found, form = dict(content["identity"]), content["format"]
        missing = [f.name for f in dataclasses.fields(Checkpoint) if f.name not in content]
    except (RuntimeError, EOFError, LookupError, TypeError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0][:100] if str(error).strip() else "empty"
        raise _damaged(path, reason) from None
    if form != FORMAT:
        raise FingerprintError(f"{path}: checkpoint format {form}, this version reads {FORMAT}; train again")
    if missing:
        raise _damaged(path, f"no {missing[0]}")
    return found, content


def _damaged(path: Path, reason: str) -> FingerprintError:
    return FingerprintError(
        f"{path}: is no checkpoint of galbatch, or is damaged ({reason}); remove it and train again"
    )


def _require_same(path: Path, found: dict[str, str], wanted: dict[str, str]) -> None:
    # A checkpoint of an earlier version lacks settings that came later: it was written as their defaults do.
    defaults = {
        f.name: json.dumps(f.default)
        for f in dataclasses.fields(TrainingSettings)
        if f.default is not dataclasses.MISSING
    }
    found = {**defaults, **found}
    names = [name for name in wanted if found.get(name) != wanted[name]]
    if not names:
        return
    differ = "; ".join(
        f"{name}: {_short(found.get(name, 'absent'))}, now {_short(wanted[name])}" for name in names
    )
    raise FingerprintError(
        f"{path}: was written by another training ({differ}); continue with its settings and data, or remove it to train again"
    )


def _short(text: str, longest: int = 80) -> str:
    return text if len(text) <= longest else f"{text[:longest]}.."


def require_settings(path: Path, settings: TrainingSettings) -> None:
    """Refuse a checkpoint of other settings, before the data are there; an absent one is fine. Raises as `read_checkpoint`."""
    if path.exists():
        found, _ = _load(path)
        _require_same(path, found, Identity(settings, "").settings_texts())


def require_no_checkpoint(path: Path) -> None:
    """Refuse to write over what an earlier run left.

    Raises
    ------
    FingerprintError
        A checkpoint is there.
    """
    if path.exists():
        raise FingerprintError(
            f"{path}: a checkpoint of an earlier run is there; add --resume to continue from it, or remove it to train again"
        )
