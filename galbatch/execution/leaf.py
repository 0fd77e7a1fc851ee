"""The leaf of a partition: its table of objects and results, and the footer with fingerprint, bundles and audits."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galbatch import __version__, catalog, models, storage
from galbatch.catalog import pass_outputs
from galbatch.core.columns import DEC, HEALPIX, ID, N_TILES, RA, TILE_ID, Column, band_columns
from galbatch.core.fingerprint import Fingerprint, refuse_difference
from galbatch.core.types import CutoutBlock, ObjectTable
from galbatch.errors import DamagedError, FingerprintError
from galbatch.planning import ENGINE_OF, PartitionPlan

__all__ = [
    "AuditSum",
    "footer_fingerprint",
    "leaf_footer",
    "leaf_table",
    "own_footer",
    "provenance",
    "recorded_engines",
]

AUDIT = "audit"
"""The key of the audits in a leaf's footer."""


def leaf_table(
    objects: ObjectTable, columns: Sequence[Column], values: Mapping[str, npt.NDArray[Any]]
) -> pa.Table:
    """Return the table of a leaf: ids, positions, kept columns of the object list, and results.

    Parameters
    ----------
    objects : ObjectTable
        The partition's objects, in HEALPix order.
    columns : sequence of Column
        The result columns, in the order of the leaf.
    values : mapping of str to ndarray, (object,), or (object, value) of vectors
        Values of each result column, by its name, in the column's dtype; NaN where a float is missing.

    Returns
    -------
    pyarrow.Table
        One row per object; missing floats are NaN, which `catalog.write_leaf` writes as null.
    """
    object_id = objects.object_id
    # Text ids are Python objects: Arrow makes strings of a list of them.
    ids = pa.array(object_id.tolist() if object_id.dtype.hasobject else object_id)
    schema = catalog.leaf_schema(list(columns), id_type=ids.type, kept=objects.kept.schema)
    arrays = {
        HEALPIX.name: pa.array(objects.healpix_29),
        ID.name: ids,
        RA.name: pa.array(objects.ra_deg),
        DEC.name: pa.array(objects.dec_deg),
    }
    for name in objects.kept.column_names:
        arrays[name] = objects.kept.column(name).combine_chunks()
    for column in columns:
        arrays[column.name] = column.as_arrow(values[column.name])
    return pa.table([arrays[name] for name in schema.names], schema=schema)


def provenance(cutouts: CutoutBlock) -> dict[str, npt.NDArray[Any]]:
    """Return the provenance columns (object,) of a block of cutouts, by name, in the bands of its grid."""
    n_tiles = np.zeros(len(cutouts), np.int16) if cutouts.n_tiles is None else cutouts.n_tiles
    # Text of a catalog is Python's own.
    values: dict[str, npt.NDArray[Any]] = {
        TILE_ID.name: cutouts.tile.astype(object),
        N_TILES.name: n_tiles,
    }
    for number, band in enumerate(cutouts.bands):
        for name, column in band_columns(band).items():
            found = getattr(cutouts, name)
            # Stores of INGEST_VERSION 6 do not say where the sky noise comes from.
            values[column.name] = column.empty(len(cutouts)) if found is None else found[:, number]
    return values


def leaf_footer(
    fingerprint: Fingerprint,
    n_objects: int,
    *,
    bundles: Mapping[str, Sequence[str]],
    keeps_pass_outputs: bool,
    audits: Mapping[str, models.Audit],
) -> dict[str, str]:
    """Return the key-value metadata of a leaf.

    Parameters
    ----------
    fingerprint : Fingerprint
        Fingerprint of the leaf.
    n_objects : int
        Number of rows.
    bundles : mapping of str to sequence of str
        The sha256 of each bundle of a network, by the network's name.
    keeps_pass_outputs : bool
        Whether the outputs of the passes were written next to the catalog.
    audits : mapping of str to Audit
        Results of the audit of adaptive passes in this partition, by the network's name; empty if the number of passes
        was fixed.
    """
    # Keys are sorted in JSON, so that two runs of the same settings write the same bytes.
    shas = {name: ", ".join(sha256) for name, sha256 in bundles.items()}
    footer = {
        "fingerprint": json.dumps(fingerprint.as_json(), sort_keys=True),
        "version": __version__,
        catalog.BUNDLES_KEY: json.dumps(shas, sort_keys=True),
        "n_objects": str(n_objects),
        pass_outputs.FOOTER_KEY: "kept" if keeps_pass_outputs else "none",
    }
    return footer | _audit_entry(audits)


def _audit_entry(audits: Mapping[str, models.Audit]) -> dict[str, str]:
    """Return the entry of a leaf's footer that holds the audits of its networks; none without audits."""
    found = {name: audit.as_dict() for name, audit in audits.items()}
    return {AUDIT: json.dumps(found, sort_keys=True)} if found else {}


class AuditSum:
    """Adds up the audits in the footers of all leaves; a `galbatch.catalog.FooterSum`."""

    def __init__(self) -> None:
        self._audits: dict[str, models.Audit] = {}

    def add(self, footer: Mapping[str, str], *, without: Collection[str] = ()) -> None:
        """Add the audit of each network in the footer of a leaf, but for those in `without`; there is none of a fixed number of passes."""
        for name, part in json.loads(footer.get(AUDIT, "{}")).items():
            if name not in without:
                audit = models.Audit.from_dict(part)
                self._audits[name] = self._audits[name] + audit if name in self._audits else audit

    @property
    def entry(self) -> Mapping[str, str]:
        """The sums as the entry of one leaf's footer."""
        return _audit_entry(self._audits)

    @property
    def properties(self) -> Mapping[str, str]:
        """The catalog's properties with the result of each model's audit and why it is doubtful, as text, by their names."""
        found = {catalog.model_property("audit", name): audit.text for name, audit in self._audits.items()}
        for name, audit in self._audits.items():
            if audit.doubt:
                found[catalog.model_property("doubt", name)] = audit.doubt
        return found


def footer_fingerprint(footer: Mapping[str, str] | None) -> dict[str, Any] | None:
    """Return the fingerprint in a leaf's footer, as its JSON value; None where there is none that can be read."""
    try:
        fingerprint: dict[str, Any] = json.loads((footer or {})["fingerprint"])
    except (KeyError, ValueError):
        return None
    return fingerprint


def recorded_engines(catalog_path: str) -> dict[str, str]:
    """Return the engine of each network, by its name, from the first leaf that is not damaged; empty without leaves."""
    # All leaves of a run have the same engines.
    damaged = {catalog.damaged_leaf(path) for path in storage.read_damage(catalog_path)}
    for pixel in catalog.list_leaves(catalog_path):
        if pixel in damaged or catalog.leaf_damage(catalog_path, pixel):
            continue
        try:
            footer = catalog.read_footer(catalog_path, pixel)
        except DamagedError:
            # A leaf without a recorded checksum shows its damage only here.
            continue
        parts = (footer_fingerprint(footer) or {}).get("parts", {})
        return {key.removeprefix(ENGINE_OF): name for key, name in parts.items() if key.startswith(ENGINE_OF)}
    return {}


def own_footer(path: str, part: PartitionPlan) -> Mapping[str, str]:
    """Return the footer of a partition's leaf in the catalog at `path`, if this run wrote it.

    Raises
    ------
    FingerprintError
        Another run wrote the leaf.
    DamagedError
        The file has changed since it was written.
    """
    footer = catalog.read_footer(path, part.partition) or {}
    try:
        refuse_difference(f"{path} {part.partition.name}", footer_fingerprint(footer), part.leaf)
    except FingerprintError:
        # A byte that was changed in the footer looks like another run; only the whole file tells.
        if problem := catalog.leaf_damage(path, part.partition):
            raise DamagedError(catalog.leaf_path(path, part.partition), problem) from None
        raise
    return footer
