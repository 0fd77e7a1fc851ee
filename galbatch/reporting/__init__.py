"""Reports and figures: an HTML page about a catalog, a local page to browse one, comparisons with a known truth, corner plots, training curves.

No other package of galbatch imports matplotlib or Jinja.
"""

from galbatch.reporting.browsing import PageServer, serve_catalog
from galbatch.reporting.comparison import (
    CatalogComparison,
    ComparedQuantity,
    ComparedRedshift,
    ComparisonOptions,
    Matching,
    check_picture,
    compare,
    redshift_table,
    write_comparison,
)
from galbatch.reporting.corner import CORNER_KINDS, check_corner, write_corner
from galbatch.reporting.injection import (
    Evidence,
    EvidenceRow,
    InjectionSettings,
    evidence_path,
    inject,
    read_evidence,
)
from galbatch.reporting.networks import (
    information_table,
    write_calibration,
    write_information,
    write_training_curve,
)
from galbatch.reporting.page import report, write_report
from galbatch.reporting.recovery import Recovery, truth_recovery
from galbatch.reporting.release import Released, release_folder, write_release

__all__ = [
    "CORNER_KINDS",
    "CatalogComparison",
    "ComparedQuantity",
    "ComparedRedshift",
    "ComparisonOptions",
    "Evidence",
    "EvidenceRow",
    "InjectionSettings",
    "Matching",
    "PageServer",
    "Recovery",
    "Released",
    "check_corner",
    "check_picture",
    "compare",
    "evidence_path",
    "information_table",
    "inject",
    "read_evidence",
    "redshift_table",
    "release_folder",
    "report",
    "serve_catalog",
    "truth_recovery",
    "write_calibration",
    "write_comparison",
    "write_corner",
    "write_information",
    "write_release",
    "write_report",
    "write_training_curve",
]
