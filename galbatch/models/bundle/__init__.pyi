from .card import card_summary, card_text
from .checks import CHECK_ROWS, SCRIPT_FAULTS, check_behavior, made_up_images, made_up_inputs
from .ensemble import Ensemble, load_ensemble
from .features import FeatureMaps, localize
from .files import load_bundle, rewrite_bundle, save_bundle
from .info import BundleInfo, Embedding, EnsembleInfo, read_bundle_metadata, read_ensemble_info
from .network import Bundle, set_modes
from .paths import DEMO_FOLDER, bundle_path, demo_bundles
from .prior import estimate_prior, log_prior, prior_of, write_prior

__all__ = [
    "CHECK_ROWS",
    "DEMO_FOLDER",
    "SCRIPT_FAULTS",
    "Bundle",
    "BundleInfo",
    "Embedding",
    "Ensemble",
    "EnsembleInfo",
    "FeatureMaps",
    "bundle_path",
    "card_summary",
    "card_text",
    "check_behavior",
    "demo_bundles",
    "estimate_prior",
    "load_bundle",
    "load_ensemble",
    "localize",
    "log_prior",
    "made_up_images",
    "made_up_inputs",
    "prior_of",
    "read_bundle_metadata",
    "read_ensemble_info",
    "rewrite_bundle",
    "save_bundle",
    "set_modes",
    "write_prior",
]
