"""The leaf of a partition: its table of objects and results, and the footer by which it is recognized."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt
import pyarrow as pa

from galbatch import __version__, catalog, models
from galbatch.catalog import pass_outputs
from galbatch.core.columns import DEC, HEALPIX, ID, RA, Column
from galbatch.core.fingerprint import Fingerprint
from galbatch.core.types import ObjectTable

__all__ = ["audit_properties", "footer_fingerprint", "leaf_footer", "leaf_table"]

AUDIT = "audit"
"""The key of the audits in a leaf's footer."""


def leaf_table(
    objects: ObjectTable, columns: Sequence[Column], values: Mapping[str, npt.NDArray[Any]]
) -> pa.Table:
    """Return the rows of a leaf: ids, positions, kept columns of the object list, and results.

    Parameters
    ----------
    columns : the result columns, in the order in which the leaf has them
    values : (object,) by the name of a column
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
        arrays[column.name] = pa.array(
            values[column.name], type=column.arrow_type, from_pandas=column.dtype == "string"
        )
    return pa.table([arrays[name] for name in schema.names], schema=schema)


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
    bundles : sha256 of the bundles of each network
    audits : of adaptive passes in this partition, by network; empty where the number of passes was fixed
    """
    shas = {name: ", ".join(sha256) for name, sha256 in bundles.items()}
    footer = {
        "fingerprint": json.dumps(fingerprint.as_json(), sort_keys=True),
        "version": __version__,
        catalog.BUNDLES_KEY: json.dumps(shas, sort_keys=True),
        "n_objects": str(n_objects),
        pass_outputs.FOOTER_KEY: "kept" if keeps_pass_outputs else "none",
    }
    if audits:
        found = {name: audit.as_dict() for name, audit in audits.items()}
        footer[AUDIT] = json.dumps(found, sort_keys=True)
    return footer


def audit_properties(footers: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the catalog's properties ``galbatch_audit_<model>``: the sum of the audits in its leaves' footers, in words.

    Empty where the number of passes was fixed.
    """
    found: dict[str, models.Audit] = {}
    for footer in footers:
        for name, part in json.loads(footer.get(AUDIT, "{}")).items():
            audit = models.Audit.from_dict(part)
            found[name] = found[name] + audit if name in found else audit
    return {catalog.model_property("audit", name): audit.text for name, audit in found.items()}


def footer_fingerprint(footer: Mapping[str, str] | None) -> dict[str, Any] | None:
    """Return the fingerprint in a leaf's footer, as its JSON value; None where there is none."""
    if footer is None or "fingerprint" not in footer:
        return None
    fingerprint: dict[str, Any] = json.loads(footer["fingerprint"])
    return fingerprint
