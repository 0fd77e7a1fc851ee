import pytest

# The contract's assertions are shown with their values, as those of test modules are.
pytest.register_assert_rewrite("tests.unit.ingest.layouts.contract")
