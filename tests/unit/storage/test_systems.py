"""Which file system a path belongs to."""

from __future__ import annotations

from pathlib import Path

from galbatch import storage


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
