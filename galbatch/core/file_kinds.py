"""Kinds of files by their first bytes, for messages: names say what somebody hoped to fetch."""

from __future__ import annotations

__all__ = ["FIRST_BYTES", "kind_by_content"]

FIRST_BYTES = 512
"""Bytes that are looked at: a tar archive says what it is at byte 257."""

# What a file begins with, after white space and in lower case, and what that means.
TEXTS = (
    ("version https://git-lfs", "is a pointer of Git LFS, not the file itself: fetch it by git lfs pull"),
    ("/annex/objects", "is a pointer of git-annex, not the file itself: fetch it by git annex get"),
    ("<!doctype html", "is a web page, such as a server's message in place of the file"),
    ("<html", "is a web page, such as a server's message in place of the file"),
    ("<?xml", "is XML, such as a VOTable or a server's message in place of the file"),
    ('{"', "is JSON, such as a server's message in place of the file"),
    ("#asdf", "is an ASDF file (Roman's format), which is not read; write it as FITS"),
)
BYTES = (
    (b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
    (b"PAR1", "is a Parquet file"),
    (b"SIMPLE  =", "is a FITS file"),
    (b"\x1f\x8b", "is packed by gzip"),
    (b"BZh", "is packed by bzip2"),
    (b"PK\x03\x04", "is a zip archive"),
    (b"\xff\xfe", "is text in UTF-16: write it in UTF-8"),
    (b"\xfe\xff", "is text in UTF-16: write it in UTF-8"),
    (b"\xff\xd8\xff", "is a JPEG picture"),
    (b"\x89PNG", "is a PNG picture"),
    (b"\x93NUMPY", "is an array of numpy's"),
)


def kind_by_content(first: bytes) -> str:
    """Return what a file is that begins with these bytes, as the end of a sentence; "" if that is not known.

    Parameters
    ----------
    first : bytes
        The first FIRST_BYTES bytes, or all of a shorter file.
    """
    if not first:
        return "is empty"
    if not first.strip(b"\0"):
        return "begins with zeros, as a file does whose content was never written"
    if first[257:262] == b"ustar":
        return "is a tar archive: unpack it"
    text = first.removeprefix(b"\xef\xbb\xbf").decode("latin-1").lstrip().lower()
    found = [said for begin, said in TEXTS if text.startswith(begin)]
    found += [said for begin, said in BYTES if first.startswith(begin)]
    return next(iter(found), "")
