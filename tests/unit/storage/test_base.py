"""The contract of `FileSystem`, on every one there is: the local disk, S3, and what fsspec reads, for inputs."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from galbatch import storage
from galbatch.core.types import FileIdentity
from galbatch.errors import UsageError

CONTENTS = {"a/4,4/x.fits": b"x" * 300_000, "a/y.fits": bytes(range(256)), "a/notes.txt": b"words"}


class FileSystemContract:
    """What holds for reading from any of them; `place` is a folder that holds CONTENTS."""

    def test_existence(self, place: str) -> None:
        assert storage.exists(f"{place}/a/y.fits")
        assert storage.exists(f"{place}/a")
        assert not storage.exists(f"{place}/a/z.fits")

    def test_contents(self, place: str) -> None:
        assert storage.read_bytes(f"{place}/a/notes.txt") == b"words"
        assert storage.read_files(place, list(CONTENTS)) == CONTENTS
        assert storage.read_files(place, ["a/y.fits"]) == {"a/y.fits": CONTENTS["a/y.fits"]}
        assert storage.read_files(place, []) == {}

    def test_ranges_in_the_order_asked(self, place: str) -> None:
        path, content = f"{place}/a/y.fits", CONTENTS["a/y.fits"]
        assert storage.read_ranges(path, [(50, 60), (0, 3), (250, 256)]) == [
            content[50:60],
            content[:3],
            content[250:],
        ]
        assert storage.read_ranges(path, []) == []
        with pytest.raises(OSError, match="6 bytes came from 250 on, expected 10"):
            storage.read_ranges(path, [(250, 260)])

    def test_open_files_are_seekable(self, place: str) -> None:
        with storage.open_file(f"{place}/a/y.fits") as file:
            assert file.read(10) == CONTENTS["a/y.fits"][:10]
            assert file.seek(-5, os.SEEK_END) == 251
            assert file.read(100) == CONTENTS["a/y.fits"][-5:]
        with storage.open_file(f"{place}/a/4,4/x.fits") as file:
            assert len(file.read()) == 300_000

    def test_what_is_absent_is_not_found(self, place: str) -> None:
        for ask in (storage.read_bytes, storage.identity, lambda path: storage.open_file(path).close()):
            with pytest.raises(FileNotFoundError):
                ask(f"{place}/a/z.fits")
        with pytest.raises(FileNotFoundError):
            storage.read_files(place, ["a/y.fits", "a/z.fits"])
        assert storage.list_files(f"{place}/none", suffix="") == []
        assert storage.find_files(f"{place}/none", suffixes=("",)) == []
        assert storage.read_json(f"{place}/a/z.json") is None

    def test_files_are_listed_and_found(self, place: str) -> None:
        assert storage.list_files(f"{place}/a", suffix=".fits") == ["4,4/x.fits", "y.fits"]
        for pattern in (f"{place}/**/*.fits", f"{place}/a"):
            found = storage.find_files(pattern, suffixes=(".fits",))
            assert [storage.read_bytes(path) for path in found] == [
                CONTENTS["a/4,4/x.fits"],
                CONTENTS["a/y.fits"],
            ]
        assert storage.find_files(f"{place}/a/y.fits", suffixes=()) == [f"{place}/a/y.fits"]

    def test_identities_of_listings_and_of_files_agree(self, place: str) -> None:
        found = storage.find_identities(f"{place}/a", suffixes=("",))
        assert sorted(one.size_bytes for one in found.values()) == sorted(map(len, CONTENTS.values()))
        for path, identity in found.items():
            assert storage.identity(path) == identity
        many = [f"{place}/a/{number}" for number in range(storage.LISTED_FROM)]
        known = storage.identities([f"{place}/a/y.fits", *many])
        assert known.pop(f"{place}/a/y.fits") == storage.identity(f"{place}/a/y.fits")
        assert known == dict.fromkeys(many)


class WritingContract(FileSystemContract):
    """What holds for outputs as well."""

    def test_files_are_written_replaced_and_removed(self, place: str) -> None:
        storage.check_writable(f"{place}/out")
        storage.publish(f"{place}/out/one", b"1")
        storage.publish(f"{place}/out/one", b"2")
        storage.write_files(f"{place}/out", {"b/two": [b"2", b"3"], "three": [b""]})
        assert storage.list_files(f"{place}/out", suffix="") == ["b/two", "one", "three"]
        assert storage.read_bytes(f"{place}/out/one") == b"2"
        assert storage.read_bytes(f"{place}/out/b/two") == b"23"
        for _ in range(2):
            storage.remove(f"{place}/out")
        assert not storage.exists(f"{place}/out")

    def test_one_of_several_creates_a_file(self, place: str) -> None:
        system, path = storage.file_system(place), f"{place}/lock"
        assert system.create(path, b"first")
        assert not system.create(path, b"second")
        assert storage.read_bytes(path) == b"first"

    def test_a_file_is_taken_over_once(self, place: str) -> None:
        system, path = storage.file_system(place), f"{place}/lock"
        storage.publish(path, b"old")
        version = storage.identity(path).version
        assert system.take_over(path, b"first", content=b"old", version=version)
        assert not system.take_over(path, b"second", content=b"old", version=version)
        assert storage.read_bytes(path) == b"first"
        storage.remove(path)
        assert not system.take_over(path, b"third", content=b"old", version=version)

    def test_data_are_appended(self, place: str) -> None:
        for number, data in enumerate((b"one\n", b"two\n")):
            storage.append(f"{place}/new/log", data, part=f"{number}")
        if storage.has_local_path(place):
            assert storage.read_bytes(f"{place}/new/log") == b"one\ntwo\n"
        else:  # nothing can be appended to an object
            assert storage.list_files(f"{place}/new/log", suffix="") == ["0", "1"]
            assert storage.read_bytes(f"{place}/new/log/1") == b"two\n"

    def test_a_file_is_renewed(self, place: str) -> None:
        system, path = storage.file_system(place), f"{place}/lock"
        storage.publish(path, b"old")
        old = storage.identity(path).version
        assert system.renew(path, b"new", content=b"old", version=old)
        assert storage.read_bytes(path) == b"new"
        assert not system.renew(path, b"end", content=b"old", version=old)


class TestLocalFileSystem(WritingContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> str:
        storage.write_files(str(tmp_path), {name: [content] for name, content in CONTENTS.items()})
        return str(tmp_path)


class TestS3FileSystem(WritingContract):
    @pytest.fixture
    def place(self, s3: str) -> str:
        storage.write_files(s3, {name: [content] for name, content in CONTENTS.items()})
        return s3


class TestFsspecInputs(FileSystemContract):
    """fsspec's file system in memory stands for all that it knows."""

    @pytest.fixture
    def place(self) -> Iterator[str]:
        files, folder = fsspec.filesystem("memory"), f"/{uuid.uuid4().hex}"
        files.pipe({f"{folder}/{name}": content for name, content in CONTENTS.items()})
        yield f"memory://{folder}"
        files.rm(folder, recursive=True)

    def test_a_changed_file_has_another_identity(self, place: str) -> None:
        before = storage.identity(f"{place}/a/y.fits")
        fsspec.filesystem("memory").pipe_file(f"{place}/a/y.fits", CONTENTS["a/y.fits"])
        assert storage.identity(f"{place}/a/y.fits") != before

    def test_outputs_are_refused_with_the_reason(self, place: str) -> None:
        system, path = storage.file_system(place), f"{place}/out"
        for write in (
            lambda: storage.publish(path, b""),
            lambda: storage.write_files(place, {"out": [b""]}),
            lambda: storage.check_writable(path),
            lambda: storage.remove(f"{place}/a"),
            lambda: system.create(path, b""),
            lambda: storage.append(path, b"", part="0"),
        ):
            with pytest.raises(UsageError, match=r"outputs lie on a disk or on s3://.*conditional writes"):
                write()
        with pytest.raises(UsageError, match="outputs lie on a disk"), storage.Lock(path):
            pass
        assert storage.list_files(place, suffix="") == sorted(CONTENTS)


def test_identities_of_several_file_systems_at_once(tmp_path: Path, s3: str) -> None:
    storage.publish(f"{tmp_path}/x", b"12")
    storage.publish(f"{s3}/x", b"123")
    paths = [f"{s3}/x", f"{tmp_path}/x", f"{s3}/absent", f"{tmp_path}/absent"]
    found = storage.identities(paths)
    assert list(found) == paths
    assert [one and one.size_bytes for one in found.values()] == [3, 2, None, None]
    assert isinstance(found[paths[0]], FileIdentity)
