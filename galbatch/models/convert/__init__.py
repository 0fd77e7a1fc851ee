"""Networks of others -> bundles."""
