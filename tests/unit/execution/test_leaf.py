"""The footers of leaves, and the audits that are added up over them."""

from __future__ import annotations

import json

from galbatch import catalog, models
from galbatch.execution import leaf


def footer_of(n_objects: int, actual: float) -> dict[str, str]:
    """A leaf whose audited objects are off by `actual` times what they stated."""
    audit = models.Audit((0.5,), n_objects, 0, n_objects, (float(n_objects),), (n_objects * actual**2,))
    return {leaf.AUDIT: json.dumps({"net": audit.as_dict()})}


def test_audits_of_all_leaves_are_one_and_give_a_reason_to_doubt() -> None:
    total = leaf.AuditSum()
    # sqrt((60 * 1 + 60 * 1.69) / 120) = 1.16, which 120 objects do not tell from 1.
    total.add(footer_of(60, 1.0))
    total.add(footer_of(60, 1.3))
    name, doubt = catalog.model_property("audit", "net"), catalog.model_property("doubt", "net")
    assert set(total.properties) == {name}
    assert "actual over stated 1.16" in total.properties[name]
    # sqrt((60 + 60 * 1.69 + 60 * 2.25) / 180) = 1.28
    total.add(footer_of(60, 1.5))
    assert "1.28 times those stated (180 audited objects)" in total.properties[doubt]
