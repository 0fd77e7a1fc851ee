from .bundle.card import card_text
from .bundle.ensemble import Ensemble, load_ensemble
from .bundle.features import FeatureMaps, localize
from .bundle.files import Bundle, bundle_path, demo_bundles, load_bundle, rewrite_bundle, save_bundle
from .calibration.calibrating import Calibration, Comparison, calibrate
from .calibration.choosing import CalibrationSettings, check_candidates
from .calibration.coverage import LEVELS, Share, share_of
from .calibration.evaluation import Evaluation, HeldOut, PassSettings, evaluate
from .calibration.evaluation_tables import evaluation_tables, strata_bins
from .convert.foreign import convert_script
from .convert.gampen import GampenConversion, convert_gampen
from .convert.sfnet import SFNET_TARGETS, SfnetConversion, convert_sfnet
from .engines.choice import Engine, Execution, choose_engine, executor
from .engines.gpu import gpu_identity, gpu_shortage, torch_cuda
from .heads import HEADS, OutputInfo, has_posterior, head_of, joint_draws
from .inference.audit import Audit
from .inference.block import BlockInputs, BlockReceivers, infer_block
from .inference.memory import GpuMemory, NetworkMemory, fitting_batch, gpu_memory, measure_memory
from .inference.results import INFER_VERSION, result_columns
from .metadata import (
    AuxiliaryInput,
    BundleMetadata,
    CalibrationInfo,
    DomainInfo,
    HeadInfo,
    InputInfo,
    LabelInfo,
    ParameterInfo,
    ResultTable,
)
from .posterior import correlation_of
from .training.checkpoint import require_no_checkpoint, require_settings
from .training.data import Extras, ImageRows, Split, has_center, split_objects
from .training.loop import BatchProgress, Epoch
from .training.recipes import RECIPES, TRAINING_DATA, Recipe
from .training.session import Session, Trained, device_name, script_of, train
from .training.settings import TrainingSettings, parse_settings, settings_of

__all__ = [
    "HEADS",
    "INFER_VERSION",
    "LEVELS",
    "RECIPES",
    "SFNET_TARGETS",
    "TRAINING_DATA",
    "Audit",
    "AuxiliaryInput",
    "BatchProgress",
    "BlockInputs",
    "BlockReceivers",
    "Bundle",
    "BundleMetadata",
    "Calibration",
    "CalibrationInfo",
    "CalibrationSettings",
    "Comparison",
    "DomainInfo",
    "Engine",
    "Ensemble",
    "Epoch",
    "Evaluation",
    "Execution",
    "Extras",
    "FeatureMaps",
    "GampenConversion",
    "GpuMemory",
    "HeadInfo",
    "HeldOut",
    "ImageRows",
    "InputInfo",
    "LabelInfo",
    "NetworkMemory",
    "OutputInfo",
    "ParameterInfo",
    "PassSettings",
    "Recipe",
    "ResultTable",
    "Session",
    "SfnetConversion",
    "Share",
    "Split",
    "Trained",
    "TrainingSettings",
    "bundle_path",
    "calibrate",
    "card_text",
    "check_candidates",
    "choose_engine",
    "convert_gampen",
    "convert_script",
    "convert_sfnet",
    "correlation_of",
    "demo_bundles",
    "device_name",
    "evaluate",
    "evaluation_tables",
    "executor",
    "fitting_batch",
    "gpu_identity",
    "gpu_memory",
    "gpu_shortage",
    "has_center",
    "has_posterior",
    "head_of",
    "infer_block",
    "joint_draws",
    "load_bundle",
    "load_ensemble",
    "localize",
    "measure_memory",
    "parse_settings",
    "require_no_checkpoint",
    "require_settings",
    "result_columns",
    "rewrite_bundle",
    "save_bundle",
    "script_of",
    "settings_of",
    "share_of",
    "split_objects",
    "strata_bins",
    "torch_cuda",
    "train",
]
