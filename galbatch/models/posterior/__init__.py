"""From passes to quantiles."""
