"""Checkpoints of a training, from which it continues with the same results as without a stop.

One is written after every epoch, and after some time within an epoch, completely or not at all. Orders, augmentations and dropout
keys are drawn from (seed, epoch), so that the weights, the state of the optimizer and the history are all that must be kept, within an
epoch also the number of batches done and the state of the generator of keys.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from galbatch.errors import FingerprintError, OutputError
from galbatch.models.training.settings import TrainingSettings

__all__ = [
    "BegunEpoch",
    "Checkpoint",
    "Identity",
    "read_checkpoint",
    "require_no_checkpoint",
    "require_settings",
    "write_checkpoint",
]

FORMAT = 2  # To be raised when the content of the file changes.
State = dict[str, Any]


@dataclass(frozen=True)
class Identity:
    """The identity of a training, which must be equal to that of a checkpoint to continue from it.

    Attributes
    ----------
    settings : settings of the training
    data : fingerprint of images, labels and auxiliary inputs
    parent : sha256 of the bundle whose weights were the start; "" for none
    """

    settings: TrainingSettings
    data: str
    parent: str = ""

    def texts(self) -> dict[str, str]:
        """Return each setting, the data and the parent as JSON text, by name."""
        return self.settings_texts() | {"data": json.dumps(self.data), "parent": json.dumps(self.parent)}

    def settings_texts(self) -> dict[str, str]:
        """Return each setting as JSON text, by name."""
        return {name: json.dumps(value) for name, value in dataclasses.asdict(self.settings).items()}


@dataclass(frozen=True)
class BegunEpoch:
    """The state of an epoch of which some batches are done.

    Attributes
    ----------
    n_batches : number of batches done
    total_loss : sum of their losses
    generator : state of numpy's generator of keys, augmentations and targets
    elapsed_s : seconds since the start of the training
    """

    n_batches: int
    total_loss: float
    generator: Mapping[str, Any]
    elapsed_s: float

    def text(self) -> str:
        """Return the state as JSON text: the generator's numbers have 128 bits."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def of(cls, text: str) -> BegunEpoch:
        """Return the state of a text."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training at the end of an epoch, or within one.

    Attributes
    ----------
    history : for each epoch its number, training loss, validation loss, seconds since the start, and learning rate
    network, optimizer : state dicts of network and optimizer
    average : state dict of the averaged weights; None if weights are not averaged
    best : state dict of the network after the epoch with the lowest validation loss
    begun : text of a `BegunEpoch`; "" at the end of an epoch
    """

    history: list[list[float]]
    network: State
    optimizer: State
    average: State | None
    best: State
    begun: str = ""


def write_checkpoint(path: Path, checkpoint: Checkpoint, identity: Identity) -> None:
    """Write a checkpoint to `path` in one step: if the process is killed, the old or the new one exists completely.

    Raises
    ------
    OutputError
        The file cannot be written; the old one still exists.
    """
    content = {field.name: getattr(checkpoint, field.name) for field in dataclasses.fields(checkpoint)}
    # In the same folder, as a file cannot be renamed onto another disk.
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save({"format": FORMAT, "identity": identity.texts(), **content}, file)
            # On the disk before it is renamed, or a power cut could leave an incomplete file under the final name.
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    # With a full disk torch raises a RuntimeError.
    except (OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0][:100]
        raise OutputError(
            f"{path}: the state after epoch {len(checkpoint.history)} cannot be written ({reason}); is the disk full? What was there is "
            "kept: make room, and add --resume to continue from it"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def read_checkpoint(path: Path, identity: Identity) -> Checkpoint | None:
    """Return the checkpoint at `path`, with all tensors on the CPU; None if the file does not exist.

    Raises
    ------
    FingerprintError
        The file is no checkpoint, or one with other settings, data or parent.
    """
    if not path.exists():
        return None
    found, content = _load(path)
    _require_same(path, found, identity.texts())
    return Checkpoint(**{field.name: content[field.name] for field in dataclasses.fields(Checkpoint)})


def _load(path: Path) -> tuple[dict[str, str], State]:
    """Return the identity and the content of a checkpoint file."""
    try:
        # With `weights_only` no code in the file is run; with `mmap` weights are read when they are used.
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
    """Raise a FingerprintError that names all settings in which a checkpoint differs from those wanted."""
    # A checkpoint of an earlier version lacks settings that were added later; their defaults do what that version did.
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
    """Raise if there is a checkpoint with other settings, without comparing the data, which may not be read yet.

    Raises
    ------
    FingerprintError
        The file is no checkpoint, or one with other settings.
    """
    if path.exists():
        found, _ = _load(path)
        _require_same(path, found, Identity(settings, "").settings_texts())


def require_no_checkpoint(path: Path) -> None:
    """Raise if there is a checkpoint, which a new training would overwrite.

    Raises
    ------
    FingerprintError
        The file exists.
    """
    if path.exists():
        raise FingerprintError(
            f"{path}: a checkpoint of an earlier run is there; add --resume to continue from it, or remove it to train again"
        )
