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


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("ftp://anna:PLANTED@host/a.fits", "ftp://anna:***@host/a.fits"),
        ("https://:PLANTED@host", "https://:***@host"),
        (
            "no tile at sftp://a:PLANTED@h/x, sftp://b:PLANTED@h/y",
            "no tile at sftp://a:***@h/x, sftp://b:***@h/y",
        ),
        (
            "https://b.s3.amazonaws.com/a?X-Amz-Credential=PLANTED&x=1&X-Amz-Signature=PLANTED",
            "https://b.s3.amazonaws.com/a?X-Amz-Credential=***&x=1&X-Amz-Signature=***",
        ),
        ("az://c/a?sv=2024&sig=PLANTED#f", "az://c/a?sv=2024&sig=***#f"),
        ("https://h/a?access_token=PLANTED", "https://h/a?access_token=***"),
        ("tls://10.0.0.1:8786", "tls://10.0.0.1:8786"),
        ("s3://bucket/a@b:c/tile?band=g", "s3://bucket/a@b:c/tile?band=g"),
        ("https://anna@host/a", "https://anna@host/a"),
        ("/data/a:b@c?sig=1", "/data/a:b@c?sig=1"),
    ],
)
def test_credentials_in_urls_are_hidden(text: str, hidden: str) -> None:
    assert urls.without_secrets(text) == hidden
