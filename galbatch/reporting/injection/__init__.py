"""Evidence on the user's own sky: galaxies of known truth in the run's own coadds, and how well the networks find them."""

from galbatch.reporting.injection.evidence import Evidence, evidence_path, read_evidence, write_evidence
from galbatch.reporting.injection.running import InjectionSettings, inject
from galbatch.reporting.injection.table import EvidenceRow, evidence_rows

__all__ = [
    "Evidence",
    "EvidenceRow",
    "InjectionSettings",
    "evidence_path",
    "evidence_rows",
    "inject",
    "read_evidence",
    "write_evidence",
]
