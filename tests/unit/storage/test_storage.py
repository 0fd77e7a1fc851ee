from __future__ import annotations

import bz2
import errno
import gzip
import hashlib
import json
import os
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import aiohttp
import pytest
import s3fs

from galbatch import storage
from galbatch.core.types import FileIdentity
from galbatch.errors import LockedError, OutputError, UsageError


def run_python(code: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


# --- paths -----------------------------------------------------------------------------------------------


def test_join_does_not_double_slashes() -> None:
    assert storage.join("s3://bucket/a/", "b/", "/c") == "s3://bucket/a/b/c"
    assert storage.join("/", "a") == "/a"
    assert storage.join("a", "b") == "a/b"


def test_other_schemes_are_refused() -> None:
    with pytest.raises(UsageError, match="gs://x/y: paths are local or begin with s3://"):
        storage.exists("gs://x/y")


# --- publish ---------------------------------------------------------------------------------------------


def test_publish_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = str(tmp_path / "a" / "b" / "file")
    storage.publish(path, b"one")
    storage.publish(path, b"two", staging=str(tmp_path / "staging"))
    assert storage.read_bytes(path) == b"two"
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["file"]


def test_published_files_follow_the_umask(tmp_path: Path) -> None:
    storage.publish(str(tmp_path / "file"), b"")
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_fault_while_publishing_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file"
    storage.publish(str(path), b"old")

    def fault(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(storage.os, call, fault)
    with pytest.raises(KeyboardInterrupt):
        storage.publish(str(path), b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_the_content_is_synced_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(storage.os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd)))
    monkeypatch.setattr(storage.os, "replace", lambda a, b: (calls.append("replace"), replace(a, b)))
    storage.publish(str(tmp_path / "file"), b"")
    assert calls == ["fsync", "replace", "fsync"]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "no space left; free some"),
        (errno.EDQUOT, "no space left"),
        (errno.EACCES, "no permission to write; choose another path"),
        (errno.EROFS, "no permission to write"),
    ],
)
def test_disk_full_and_permission_are_output_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    def fault(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(storage.os, "fsync", fault)
    with pytest.raises(OutputError, match=message):
        storage.publish(str(tmp_path / "file"), b"x")
    assert os.listdir(tmp_path) == []


def test_a_passing_fault_stays_an_oserror_that_may_be_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(storage.os, "replace", fault)
    with pytest.raises(OSError, match="Input/output error"):
        storage.publish(str(tmp_path / "file"), b"x")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_really_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.open", lambda *_: os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb"))
    with pytest.raises(OutputError, match="no space left"):
        storage.publish(str(tmp_path / "file"), b"x" * 10_000_000)
    assert os.listdir(tmp_path) == []


def test_a_file_in_the_way_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="a file is in the way"):
        storage.publish(str(tmp_path / "file" / "below"), b"")
    with pytest.raises(OutputError, match="a file is in the way"):
        storage.check_writable(str(tmp_path / "file"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_check_writable_refuses_a_read_only_folder(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o500)
    with pytest.raises(OutputError, match="no permission to write"):
        storage.check_writable(str(folder))


def test_check_writable_creates_the_folder_and_leaves_it_empty(tmp_path: Path) -> None:
    storage.check_writable(str(tmp_path / "a" / "b"))
    assert os.listdir(tmp_path / "a" / "b") == []


# --- reading, finding, removing --------------------------------------------------------------------------


def test_json_goes_and_comes_back(tmp_path: Path) -> None:
    path = str(tmp_path / "x.json")
    assert storage.read_json(path) is None
    storage.publish_json(path, {"b": 1, "a": [1.5, "é"]})
    assert storage.read_json(path) == {"a": [1.5, "é"], "b": 1}
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(OutputError, match="holds no JSON object"):
        storage.read_json(path)


def test_files_are_found_by_glob_folder_and_name(tmp_path: Path) -> None:
    for name in ("a/9813/4,4/x.fits", "a/9813/4,5/y.fits", "a/notes.txt", "a[1]/z.fits"):
        storage.publish(str(tmp_path / name), b"")
    x, y, z = (str(tmp_path / name) for name in ("a/9813/4,4/x.fits", "a/9813/4,5/y.fits", "a[1]/z.fits"))
    assert storage.find_files(f"{tmp_path}/**/*.fits", suffixes=()) == [x, y, z]
    assert storage.find_files(str(tmp_path / "a"), suffixes=(".fits", ".fz")) == [x, y]
    assert storage.find_files(x, suffixes=()) == [x]
    # Brackets that are part of a name, not a pattern.
    assert storage.find_files(str(tmp_path / "a[1]"), suffixes=(".fits",)) == [z]
    assert storage.find_files(str(tmp_path / "none*"), suffixes=(".fits",)) == []


def test_list_files_is_sorted_and_relative(tmp_path: Path) -> None:
    for name in ("b/2.parquet", "a/1.parquet", "a/1.txt"):
        storage.publish(str(tmp_path / name), b"")
    assert storage.list_files(str(tmp_path), suffix=".parquet") == ["a/1.parquet", "b/2.parquet"]
    assert storage.list_files(str(tmp_path / "absent"), suffix="") == []


def test_remove_takes_files_trees_and_nothing(tmp_path: Path) -> None:
    storage.publish(str(tmp_path / "tree" / "a"), b"")
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    for name in ("tree", "link", "absent"):
        storage.remove(str(tmp_path / name))
    assert os.listdir(tmp_path) == ["kept"]


def test_only_an_empty_folder_is_removed(tmp_path: Path) -> None:
    storage.publish(str(tmp_path / "full" / "a"), b"")
    (tmp_path / "empty").mkdir()
    for name in ("full", "empty", "absent"):
        storage.remove_if_empty(str(tmp_path / name))
    assert os.listdir(tmp_path) == ["full"]


def test_identity_changes_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    before = storage.identity(str(path))
    os.utime(path, ns=(0, 12345))
    assert before.size_bytes == 3
    assert storage.identity(str(path)).version == "12345"
    with pytest.raises(FileNotFoundError):
        storage.identity(str(tmp_path / "absent"))


def test_local_copy_of_a_local_file_is_the_file_with_its_hash_checked(tmp_path: Path) -> None:
    path = tmp_path / "bundle.pt"
    path.write_bytes(b"weights")
    right = hashlib.sha256(b"weights").hexdigest()
    assert storage.local_copy(str(path), sha256=right) == path
    with pytest.raises(UsageError, match=r"its sha256 is .*, expected 000000000000"):
        storage.local_copy(str(path), sha256="0" * 64)


# --- lock ------------------------------------------------------------------------------------------------

HOLD = """
    import sys
    from galbatch import storage
    with storage.Lock(sys.argv[1]):
        print("held", flush=True)
        sys.stdin.read()
"""


def foreign_lock(output: Path, **changes: object) -> Path:
    """A lock as a run on another machine would have left it."""
    path = output / "_lock.json"
    output.mkdir(exist_ok=True)
    held = {"owner": "other", "host": "elsewhere", "pid": 1, "started": 0.0, "heartbeat": time.time()}
    path.write_text(json.dumps(held | changes))
    return path


def test_the_lock_says_who_holds_it_and_goes(tmp_path: Path) -> None:
    with storage.Lock(str(tmp_path / "catalog" / "_lock.json")) as lock:
        held = json.loads((tmp_path / "catalog/_lock.json").read_text())
        assert (held["host"], held["pid"]) == (socket.gethostname(), os.getpid())
        assert lock.is_ours()
    assert os.listdir(tmp_path / "catalog") == []


def test_the_lock_goes_when_the_run_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), storage.Lock(str(tmp_path / "catalog" / "_lock.json")):
        _ = 1 / 0
    assert os.listdir(tmp_path / "catalog") == []


def test_a_second_process_is_refused_until_the_first_dies(tmp_path: Path) -> None:
    output = str(tmp_path / "catalog" / "_lock.json")
    first = run_python(HOLD, output)
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    with (
        pytest.raises(LockedError, match=rf"held by the run of process {first.pid} on .*; wait"),
        storage.Lock(output),
    ):
        pass
    first.kill()
    first.wait()
    first.stdout.close()
    assert first.stdin is not None
    first.stdin.close()
    assert os.listdir(tmp_path / "catalog") == ["_lock.json"]
    with storage.Lock(output) as lock:
        assert lock.is_ours()


def test_a_live_lock_of_another_machine_is_kept_and_a_silent_one_taken(tmp_path: Path) -> None:
    path = foreign_lock(tmp_path / "catalog", heartbeat=time.time() - 30)
    with (
        pytest.raises(LockedError, match="process 1 on elsewhere, last heard of 30 s ago"),
        storage.Lock(str(tmp_path / "catalog" / "_lock.json"), stale_after_s=120),
    ):
        pass
    with storage.Lock(str(tmp_path / "catalog" / "_lock.json"), stale_after_s=20):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert os.listdir(tmp_path / "catalog") == []


@pytest.mark.parametrize("name", ["catalog_lock.json", "catalog/_lock.json"])
def test_the_refusal_names_the_output(tmp_path: Path, name: str) -> None:
    path = str(tmp_path / name)
    with storage.Lock(path), pytest.raises(LockedError) as caught, storage.Lock(path):
        pass
    assert str(caught.value).startswith(f"{tmp_path}/catalog: held by the run of process {os.getpid()} on ")


def test_an_empty_lock_is_one_being_written(tmp_path: Path) -> None:
    path = tmp_path / "catalog" / "_lock.json"
    path.parent.mkdir()
    path.write_bytes(b"")
    with pytest.raises(LockedError), storage.Lock(str(tmp_path / "catalog" / "_lock.json")):
        pass
    os.utime(path, (0, 0))
    with storage.Lock(str(tmp_path / "catalog" / "_lock.json")) as lock:
        assert lock.is_ours()


def test_the_heartbeat_is_renewed(tmp_path: Path) -> None:
    path = tmp_path / "catalog/_lock.json"
    with storage.Lock(str(tmp_path / "catalog" / "_lock.json"), heartbeat_s=0.02):
        first = json.loads(path.read_text())["heartbeat"]
        deadline = time.time() + 10
        while json.loads(path.read_text())["heartbeat"] == first:
            assert time.time() < deadline
            time.sleep(0.01)
    assert os.listdir(tmp_path / "catalog") == []


def test_a_lock_that_was_taken_over_is_left_alone(tmp_path: Path) -> None:
    with storage.Lock(str(tmp_path / "catalog" / "_lock.json"), heartbeat_s=0.02) as lock:
        path = foreign_lock(tmp_path / "catalog")
        time.sleep(0.1)
        assert not lock.is_ours()
    assert json.loads(path.read_text())["owner"] == "other"


def test_of_many_that_find_a_stale_lock_one_wins(tmp_path: Path) -> None:
    foreign_lock(tmp_path / "catalog", heartbeat=0.0)
    code = """
        import sys, time
        from galbatch import errors, storage
        print("ready", flush=True)
        sys.stdin.readline()
        try:
            with storage.Lock(sys.argv[1]):
                time.sleep(1)
                print("won")
        except errors.LockedError:
            print("refused")
    """
    runs = [run_python(code, str(tmp_path / "catalog" / "_lock.json")) for _ in range(4)]
    for run in runs:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("\n")
        run.stdin.flush()
    said = sorted(run.communicate(timeout=60)[0].strip() for run in runs)
    assert said == ["refused", "refused", "refused", "won"]


# --- S3 --------------------------------------------------------------------------------------------------


def test_s3_files_go_come_back_and_are_found(s3: str) -> None:
    x, y = f"{s3}/a/4,4/x.fits", f"{s3}/a/y.fits"
    storage.check_writable(s3)
    for path in (x, y, f"{s3}/a/notes.txt"):
        storage.publish(path, path.encode())
    assert storage.read_bytes(x) == x.encode()
    assert storage.find_files(f"{s3}/**/*.fits", suffixes=()) == [x, y]
    assert storage.find_files(f"{s3}/a", suffixes=(".fits",)) == [x, y]
    assert storage.find_files(y, suffixes=()) == [y]
    assert storage.find_files(f"{s3}/none", suffixes=(".fits",)) == []
    assert storage.list_files(f"{s3}/a", suffix=".fits") == ["4,4/x.fits", "y.fits"]
    assert storage.list_files(f"{s3}/none", suffix="") == []
    storage.remove(f"{s3}/a")
    storage.remove(f"{s3}/a")
    assert not storage.exists(f"{s3}/a")
    assert storage.read_json(f"{s3}/a/x.json") is None


def test_s3_identity_is_the_etag(s3: str) -> None:
    storage.publish(f"{s3}/x", b"abc")
    found = storage.identity(f"{s3}/x")
    assert (found.size_bytes, found.version) == (3, hashlib.md5(b"abc").hexdigest())


def test_s3_without_its_bucket(s3: str) -> None:
    with pytest.raises(OutputError, match="there is no such bucket"):
        storage.check_writable("s3://no-such-bucket-here/out")


def test_s3_local_copy_is_fetched_once_and_mended(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.tempfile, "gettempdir", lambda: str(tmp_path))
    sha256 = hashlib.sha256(b"weights").hexdigest()
    storage.publish(f"{s3}/bundle.pt", b"weights")
    copy = storage.local_copy(f"{s3}/bundle.pt", sha256=sha256)
    assert copy.name == f"{sha256}.pt"
    copy.write_bytes(b"torn")
    assert storage.local_copy(f"{s3}/bundle.pt", sha256=sha256).read_bytes() == b"weights"
    storage.publish(f"{s3}/bundle.pt", b"others")
    assert storage.local_copy(f"{s3}/bundle.pt", sha256=sha256).read_bytes() == b"weights"
    with pytest.raises(UsageError, match="its sha256 is"):
        storage.local_copy(f"{s3}/bundle.pt", sha256="0" * 64)


def test_s3_lock_is_created_once_and_taken_over_when_silent(s3: str) -> None:
    with storage.Lock(f"{s3}/catalog/_lock.json", heartbeat_s=0.05) as lock:
        with (
            pytest.raises(LockedError, match=f"process {os.getpid()} on"),
            storage.Lock(f"{s3}/catalog/_lock.json"),
        ):
            pass
        time.sleep(0.3)
        assert lock.is_ours()
    assert not storage.exists(f"{s3}/catalog/_lock.json")
    stale = {"owner": "other", "host": "elsewhere", "pid": 1, "started": 0.0, "heartbeat": 0.0}
    storage.publish_json(f"{s3}/catalog/_lock.json", stale)
    late = storage.Lock(f"{s3}/catalog/_lock.json")
    seen = late._read()
    assert seen is not None
    with storage.Lock(f"{s3}/catalog/_lock.json"):
        # Both had found it stale; the second finds that the object is no longer the one it saw.
        assert not late._put_if_unchanged(seen[1])


# --- ranges, pieces and listings -------------------------------------------------------------------------


def test_ranges_come_in_the_order_asked(tmp_path: Path, s3: str) -> None:
    content = bytes(range(256)) * 1000
    for path in (f"{s3}/file", str(tmp_path / "file")):
        storage.publish(path, content)
        found = storage.read_ranges(path, [(5000, 5010), (0, 3), (255_990, 256_000)])
        assert found == [content[5000:5010], content[:3], content[-10:]]
        assert storage.read_ranges(path, []) == []
        with pytest.raises(OSError, match="10 bytes came from 255990 on, expected 20"):
            storage.read_ranges(path, [(255_990, 256_010)])


def test_a_file_on_s3_reads_like_a_local_one(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = os.urandom(300_000)
    storage.publish(f"{s3}/file", content)
    fetched = []
    read_ranges = storage.read_ranges
    monkeypatch.setattr(
        storage, "read_ranges", lambda path, ranges: (fetched.extend(ranges), read_ranges(path, ranges))[1]
    )
    with storage.RangedFile(f"{s3}/file") as file:
        assert file.read(10) == content[:10]
        assert file.read(10) == content[10:20]
        assert fetched == [(0, storage.BLOCK_BYTES)]
        assert file.seek(-5, os.SEEK_END) == 299_995
        assert file.read(100) == content[-5:]
        assert file.read(100) == b""
        file.prefetch([(200_000, 200_100), (100_000, 100_050)])
        file.seek(100_010)
        assert file.read(40) == content[100_010:100_050]
        file.seek(200_000)
        assert file.read(100) == content[200_000:200_100]
        assert len(fetched) == 4
        file.keep(150_000, 190_000)
        file.seek(160_000)
        assert file.read(1000) == content[160_000:161_000]
        assert len(fetched) == 5
        file.seek(0)
        assert file.read() == content
    with pytest.raises(FileNotFoundError):
        storage.RangedFile(f"{s3}/absent")


def test_large_ranges_are_fetched_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PIECE_BYTES", 100)
    monkeypatch.setattr(storage.tempfile, "tempdir", str(tmp_path))
    content = os.urandom(1050)
    (tmp_path / "file").write_bytes(content)
    with storage.fetch(str(tmp_path / "file"), 20, 1045) as fetched:
        assert fetched.read() == content[20:1045]
        assert os.listdir(tmp_path) == ["file"]  # no name, so nothing stays behind
    with pytest.raises(OSError, match="expected 100"):
        storage.fetch(str(tmp_path / "file"), 20, 2000)
    assert os.listdir(tmp_path) == ["file"]


def test_packed_files_are_unpacked(tmp_path: Path) -> None:
    content = os.urandom(10) * 100_000
    for name, pack in (("a.gz", gzip.compress), ("a.bz2", bz2.compress)):
        (tmp_path / name).write_bytes(pack(content))
        with storage.unpack(str(tmp_path / name)) as file:
            assert file.read() == content
    (tmp_path / "cut.gz").write_bytes(gzip.compress(content)[:-20])
    with pytest.raises(EOFError):
        storage.unpack(str(tmp_path / "cut.gz"))


def test_listings_bring_identities(tmp_path: Path, s3: str) -> None:
    for root in (s3, str(tmp_path)):
        for name in ("a/b/x.fits", "a/y.fits", "a/z.txt"):
            storage.publish(f"{root}/{name}", name.encode())
        paths = [f"{root}/a/b/x.fits", f"{root}/a/y.fits"]
        for pattern in (f"{root}/a", f"{root}/**/*.fits"):
            found = storage.find_identities(pattern, suffixes=(".fits",))
            assert found == {path: storage.identity(path) for path in paths}
        assert list(storage.find_identities(f"{root}/a/*.fits", suffixes=())) == paths[1:]
        assert storage.find_identities(paths[1], suffixes=()) == {paths[1]: storage.identity(paths[1])}
        assert storage.find_identities(f"{root}/none", suffixes=("",)) == {}
        absent = f"{root}/a/absent"
        assert storage.identities([*paths, absent]) == {
            paths[0]: storage.identity(paths[0]),
            paths[1]: storage.identity(paths[1]),
            absent: None,
        }


def test_many_identities_on_s3_come_from_one_listing(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [f"{s3}/a/{number}/x" for number in range(storage.LISTED_FROM)]
    for path in paths[1:]:
        storage.publish(path, path.encode())
    monkeypatch.setattr(storage, "_identity", None)  # would fail
    found = storage.identities(paths)
    assert found[paths[0]] is None
    assert found[paths[1]] == FileIdentity(len(paths[1]), hashlib.md5(paths[1].encode()).hexdigest())


def test_accesses_are_recorded_and_files_looked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, absent = str(tmp_path / "file"), str(tmp_path / "absent")
    (tmp_path / "file").write_bytes(b"abc")
    known = FileIdentity(7, "told")
    files = storage.FileAccessLog({"s3://bucket/known": known})
    before = files.identity(path)
    assert not files.exists(absent)
    with pytest.raises(FileNotFoundError):
        files.identity(absent)
    assert files.identity("s3://bucket/known") == known
    (tmp_path / "file").write_bytes(b"longer")
    assert files.identity(path) == before
    assert files.recorded == {path: before, absent: None, "s3://bucket/known": known}
    assert storage.identity(path).size_bytes == 6


def test_a_body_that_was_cut_off_is_an_io_error(s3, monkeypatch):
    """Worth another try, as other faults of the network."""

    def cut_off(*_, **__):
        raise aiohttp.ClientPayloadError("Response payload is not completed")

    monkeypatch.setattr(s3fs.S3FileSystem, "cat_file", cut_off)
    with pytest.raises(OSError, match=r"a\.bin: Response payload is not completed") as raised:
        storage.read_bytes(f"{s3}/a.bin")
    assert raised.value.errno == errno.EIO
