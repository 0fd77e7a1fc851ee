"""Merging: catalogs of disjoint objects, or of the same objects with other networks, become one."""

from galbatch.api.merging.writing import Merged, merge

__all__ = ["Merged", "merge"]
