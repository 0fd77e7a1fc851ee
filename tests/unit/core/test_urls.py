"""Paths and URLs are told apart."""

import pytest

from galbatch.core import urls


@pytest.mark.parametrize(
    ("path", "scheme", "is_absolute"),
    [
        ("s3://bucket/key", "s3", True),
        ("memory:///a", "memory", True),
        ("/a/b", "", True),
        ("a/b", "", False),
        ("demo:gampen", "", False),
    ],
)
def test_schemes(path: str, scheme: str, is_absolute: bool) -> None:
    assert urls.scheme_of(path) == scheme
    assert urls.is_absolute(path) == is_absolute
