"""Training and calibration of networks on objects with known values: of a cutout store, of tables, or simulated."""

from galbatch.learning.calibrate import (
    CalibratedBundle,
    CalibrationTask,
    calibrate_bundle,
    prepare_calibration,
)
from galbatch.learning.further_columns import FurtherColumns
from galbatch.learning.information.measuring import (
    InformationTask,
    measure_information,
    prepare_information,
    read_scores,
    split_information,
)
from galbatch.learning.information.training import (
    InformationTraining,
    prepare_information_training,
    train_for_information,
)
from galbatch.learning.labeled import LabeledImages, open_columns, open_labeled
from galbatch.learning.labels import LabelSources
from galbatch.learning.settings import resolve_settings
from galbatch.learning.sources import DataSource, simulate_labeled
from galbatch.learning.stopping import (
    StoppingCalibratedBundle,
    StoppingTask,
    calibrate_stopping_only,
    prepare_stopping,
)
from galbatch.learning.train import (
    TrainedBundle,
    TrainingTask,
    checkpoint_path,
    prepare_training,
    train_and_save,
    train_bundle,
)

__all__ = [
    "CalibratedBundle",
    "CalibrationTask",
    "DataSource",
    "FurtherColumns",
    "InformationTask",
    "InformationTraining",
    "LabelSources",
    "LabeledImages",
    "StoppingCalibratedBundle",
    "StoppingTask",
    "TrainedBundle",
    "TrainingTask",
    "calibrate_bundle",
    "calibrate_stopping_only",
    "checkpoint_path",
    "measure_information",
    "open_columns",
    "open_labeled",
    "prepare_calibration",
    "prepare_information",
    "prepare_information_training",
    "prepare_stopping",
    "prepare_training",
    "read_scores",
    "resolve_settings",
    "simulate_labeled",
    "split_information",
    "train_and_save",
    "train_bundle",
    "train_for_information",
]
