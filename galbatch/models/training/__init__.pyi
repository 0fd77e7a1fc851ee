from .checkpoint import (
    Checkpoint,
    Identity,
    read_checkpoint,
    require_no_checkpoint,
    require_settings,
    write_checkpoint,
)
from .data import Extras, ImageRows, Split, cleaned_rows, has_center, split_objects
from .loop import BatchProgress, Epoch, TrainingLoop, TrainingTensors
from .processes import Processes, join_processes
from .recipes import RECIPES, TRAINING_DATA, Recipe
from .session import Session, Trained, device_name, script_of, train
from .settings import ARCHITECTURES, TrainingSettings, parse_settings, settings_of
from .streaming import BlockImages, n_mixed_blocks

__all__ = [
    "ARCHITECTURES",
    "RECIPES",
    "TRAINING_DATA",
    "BatchProgress",
    "BlockImages",
    "Checkpoint",
    "Epoch",
    "Extras",
    "Identity",
    "ImageRows",
    "Processes",
    "Recipe",
    "Session",
    "Split",
    "Trained",
    "TrainingLoop",
    "TrainingSettings",
    "TrainingTensors",
    "cleaned_rows",
    "device_name",
    "has_center",
    "join_processes",
    "n_mixed_blocks",
    "parse_settings",
    "read_checkpoint",
    "require_no_checkpoint",
    "require_settings",
    "script_of",
    "settings_of",
    "split_objects",
    "train",
    "write_checkpoint",
]
