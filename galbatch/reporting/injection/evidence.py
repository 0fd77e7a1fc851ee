"""The evidence of an injection as it is kept beside the user's catalog: a table, and a line for the catalog's properties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from galbatch import catalog, storage
from galbatch.reporting.injection.table import EvidenceRow

__all__ = ["Evidence", "evidence_path", "read_evidence", "write_evidence"]


@dataclass(frozen=True)
class Evidence:
    """The evidence of an injection: how well galaxies of known truth were found.

    Attributes
    ----------
    n_galaxies : number of galaxies
    population : the population that they were drawn from
    rows : a row for each network, parameter and bin
    without_photon_noise : bands in which the galaxies' own photon noise was not added, as no gain was known
    """

    n_galaxies: int
    population: str
    rows: tuple[EvidenceRow, ...]
    without_photon_noise: tuple[str, ...] = ()

    @property
    def all_galaxies(self) -> list[EvidenceRow]:
        """The rows of all galaxies together, one for each parameter of each network."""
        return [row for row in self.rows if not row.binned_by]

    def text(self) -> str:
        """Return a line for the catalog's properties."""
        parts = [
            f"{row.model} {row.parameter}: completeness {row.completeness:.2f}"
            + (
                ""
                if row.bias is None
                else f", bias {row.bias:+.3g}, scatter {row.scatter:.3g} {row.unit}".rstrip()
            )
            + ("" if row.coverage68 is None else f", 68 % interval holds {100 * row.coverage68:.0f} %")
            for row in self.all_galaxies
        ]
        if self.without_photon_noise:
            parts.append(f"without photon noise of the galaxies in {', '.join(self.without_photon_noise)}")
        return f"{self.n_galaxies} galaxies of population {self.population}; {'; '.join(parts)}"


def evidence_path(catalog_path: str) -> str:
    """Return the path of the evidence beside a catalog."""
    return catalog.evidence_path(catalog_path)


def write_evidence(catalog_path: str, evidence: Evidence) -> None:
    """Write the evidence beside a catalog, and its line into the catalog's properties if the catalog is finished."""
    content: dict[str, Any] = {
        "n_galaxies": evidence.n_galaxies,
        "population": evidence.population,
        "text": evidence.text(),
        "without_photon_noise": list(evidence.without_photon_noise),
        "rows": [row.as_dict() for row in evidence.rows],
    }
    storage.publish_json(evidence_path(catalog_path), content)
    catalog.note_evidence(catalog_path)


def read_evidence(catalog_path: str) -> Evidence | None:
    """Return the evidence beside a catalog; None if there is none."""
    content = catalog.read_evidence(catalog_path)
    if content is None:
        return None
    rows: Sequence[EvidenceRow] = [EvidenceRow(**row) for row in content["rows"]]
    # Evidence of before has no such entry, and no photon noise in any band: its text does not say it either.
    without = tuple(content.get("without_photon_noise", ()))
    return Evidence(content["n_galaxies"], content["population"], tuple(rows), without)
