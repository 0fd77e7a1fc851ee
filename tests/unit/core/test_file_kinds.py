"""What odd files are called: each was saved under the name of what somebody hoped to fetch."""

from __future__ import annotations

import bz2
import gzip
import io
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from galbatch import ingest
from galbatch.config import SurveyConfig, read_config
from galbatch.core.file_kinds import kind_by_content
from galbatch.errors import ConfigError, GalbatchError, ObjectListError
from galbatch.objects import read_table

CSV = b"object_id,ra_deg,dec_deg\n1,150.0,2.0\n2,150.1,2.1\n"


def tarred(content):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("a.fits")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


ODD = {
    "a web page": (b"\n<!DOCTYPE html>\n<html><title>404 Not Found</title></html>\n", "is a web page"),
    "an old web page": (b"<HTML><BODY>busy</BODY></HTML>", "is a web page"),
    "an answer of S3": (b'<?xml version="1.0"?>\n<Error><Code>NoSuchKey</Code></Error>', "is XML"),
    "an answer in JSON": (b'{"message": "Unauthorized"}', "is JSON"),
    "a Git LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "pointer of Git LFS.*git lfs pull",
    ),
    "a git-annex pointer": (b"/annex/objects/MD5E-s123--abc.fits\n", "pointer of git-annex"),
    "an empty file": (b"", "is empty"),
    "a file of zeros": (bytes(8640), "begins with zeros"),
    "a tar archive": (tarred(bytes(300)), "is a tar archive: unpack it"),
    "text in UTF-16": ("object_id,ra_deg\n".encode("utf-16"), "UTF-16: write it in UTF-8"),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_file_is_named_by_every_reader(tmp_path, kind):
    content, said = ODD[kind]
    (tmp_path / "tile_g.fits").write_bytes(content)
    with pytest.raises(
        GalbatchError, match=rf"tile_g.fits: is no FITS file: it .*{said}|tile_g.fits: .*{said}"
    ):
        ingest.read_tiles(SurveyConfig(layout="generic", tiles=str(tmp_path), bands=("g",)))
    for name in ("a.parquet", "a.csv", "a.fits", "a.vot", "a.h5"):
        (tmp_path / name).write_bytes(content)
        if (name, kind) in (("a.csv", "an empty file"),):
            continue  # names without rows: the reader of lists says what is needed
        with pytest.raises(ObjectListError, match=rf"{name}: .*{said}"):
            read_table(str(tmp_path / name))
    if content:
        (tmp_path / "run.toml").write_bytes(content)
        with pytest.raises(ConfigError, match=rf"run.toml: is no TOML: .*{said}"):
            read_config(tmp_path / "run.toml")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", gzip.compress(CSV)),
        ("a.csv.gz", CSV),
        ("a.csv.gz", bz2.compress(CSV)),
        ("a.csv", b"\xef\xbb\xbf" + CSV.replace(b"\n", b"\r\n")),
    ],
    # The bytes hold the time, and processes that share tests must name them alike.
    ids=["gzip", "plain", "bzip2", "byte order mark"],
)
def test_lists_are_unpacked_by_their_content(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert read_table(str(tmp_path / name)).to_pydict() == {
        "object_id": [1, 2],
        "ra_deg": [150.0, 150.1],
        "dec_deg": [2.0, 2.1],
    }


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_a_packed_list_that_is_cut_is_named(tmp_path, pack):
    (tmp_path / "a.csv").write_bytes(pack(CSV * 100)[:-9])
    with pytest.raises(
        ObjectListError, match=r"a.csv: cannot be read as .csv: the [bg]zipped data are damaged or cut off"
    ):
        read_table(str(tmp_path / "a.csv"))


def test_whole_files_of_other_kinds_are_named(tmp_path):
    pq.write_table(pa.table({"object_id": [1]}), tmp_path / "list.csv")
    with pytest.raises(ObjectListError, match="the content is a Parquet file"):
        read_table(str(tmp_path / "list.csv"))
    buffer = io.BytesIO()
    fits.PrimaryHDU(np.zeros((3, 3))).writeto(buffer)
    assert kind_by_content(buffer.getvalue()[:512]) == "is a FITS file"
    assert kind_by_content(b"SIM") == kind_by_content(CSV) == ""


def test_a_config_with_a_mark_of_its_encoding_and_other_line_ends(tmp_path):
    text = '[survey]\nlayout = "hsc"\ntiles = "t"\nbands = ["g"]\n[objects]\npath = "o.csv"\n[[models]]\nname = "m"\nbundle = "b.pt"\n'
    (tmp_path / "run.toml").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert read_config(tmp_path / "run.toml").survey[0].layout == "hsc"
