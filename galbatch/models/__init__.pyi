from .bundle import Bundle, bundle_path, demo_bundles, load_bundle, rewrite_bundle, save_bundle
from .card import card_text
from .checkpoint import require_no_checkpoint
from .ensemble import Ensemble, load_ensemble
from .evaluation import Evaluation, HeldOut, evaluate
from .infer import infer_block
from .metadata import (
    BundleMetadata,
    CalibrationInfo,
    ColumnInfo,
    DomainInfo,
    HeadInfo,
    InputInfo,
    LabelInfo,
    ParameterInfo,
    ResultTable,
)
from .recipes import RECIPES, Recipe
from .results import INFER_VERSION, quantile_suffix, result_columns
from .settings import TrainingSettings, parse_settings, settings_of
from .training import Session, Trained, script_of, train
from .training_data import Extras, ImageRows, Split, has_center, split_objects
from .training_loop import BatchProgress, Epoch

__all__ = [
    "INFER_VERSION",
    "RECIPES",
    "BatchProgress",
    "Bundle",
    "BundleMetadata",
    "CalibrationInfo",
    "ColumnInfo",
    "DomainInfo",
    "Ensemble",
    "Epoch",
    "Evaluation",
    "Extras",
    "HeadInfo",
    "HeldOut",
    "ImageRows",
    "InputInfo",
    "LabelInfo",
    "ParameterInfo",
    "Recipe",
    "ResultTable",
    "Session",
    "Split",
    "Trained",
    "TrainingSettings",
    "bundle_path",
    "card_text",
    "demo_bundles",
    "evaluate",
    "has_center",
    "infer_block",
    "load_bundle",
    "load_ensemble",
    "parse_settings",
    "quantile_suffix",
    "require_no_checkpoint",
    "result_columns",
    "rewrite_bundle",
    "save_bundle",
    "script_of",
    "settings_of",
    "split_objects",
    "train",
]
