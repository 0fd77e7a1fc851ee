"""Comparison of a catalog with another table: published estimates, a truth table, another catalog.

`compare` matches the rows, finds the columns of the same quantities and returns bias, scatter, outliers and coverage, in bins too;
`write_comparison` draws them.
"""

from galbatch.reporting.comparison.comparing import (
    CatalogComparison,
    ComparedQuantity,
    ComparisonOptions,
    compare,
)
from galbatch.reporting.comparison.figure import check_picture, write_comparison
from galbatch.reporting.comparison.matching import Matching
from galbatch.reporting.comparison.redshifts import ComparedRedshift, redshift_table

__all__ = [
    "CatalogComparison",
    "ComparedQuantity",
    "ComparedRedshift",
    "ComparisonOptions",
    "Matching",
    "check_picture",
    "compare",
    "redshift_table",
    "write_comparison",
]
