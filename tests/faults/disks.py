"""A small disk that can be filled and made read-only: a tmpfs where this machine allows mounts, else syncs that fail."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import time
from pathlib import Path
from typing import Protocol

from tests.faults.commands import LIMIT_S

SIZE = "48m"


class Disk(Protocol):
    """A disk with a folder for outputs."""

    name: str
    folder: Path
    env: dict[str, str]

    def fill(self) -> None: ...

    def make_read_only(self) -> None: ...

    def repair(self) -> None: ...

    def close(self) -> None: ...


class Mounted:
    """A tmpfs."""

    name = "tmpfs"

    def __init__(self, place: Path) -> None:
        place.mkdir()
        self.env: dict[str, str] = {}
        self._place = place
        self._filler = place / "filler"
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", place], check=True, capture_output=True
        )
        self.folder = place / "outputs"
        self.folder.mkdir()

    def fill(self) -> None:
        with contextlib.suppress(OSError), open(self._filler, "ab", buffering=0) as file:
            while True:
                file.write(bytes(65536))

    def make_read_only(self) -> None:
        # Busy while a file is open for writing.
        deadline = time.monotonic() + LIMIT_S
        while self._remount("ro") and time.monotonic() < deadline:
            time.sleep(0.01)

    def repair(self) -> None:
        self._remount("rw")
        self._filler.unlink(missing_ok=True)

    def _remount(self, how: str) -> int:
        command = ["mount", "-o", f"remount,{how}", self._place]
        return subprocess.run(command, capture_output=True, check=False).returncode

    def close(self) -> None:
        subprocess.run(["umount", "-l", self._place], check=True)


class Broken:
    """A folder whose files cannot be synced while it is broken."""

    name = "failing syncs"

    def __init__(self, place: Path) -> None:
        self.folder = place / "outputs"
        self.folder.mkdir(parents=True)
        self._number = Path(f"{self.folder}.errno")
        code = str(Path(__file__).parent / "broken_disk")
        paths = [code, *filter(None, [os.environ.get("PYTHONPATH")])]
        self.env = {"PYTHONPATH": os.pathsep.join(paths), "GALBATCH_TEST_BROKEN_DISK": str(self.folder)}

    def fill(self) -> None:
        self._break(errno.ENOSPC)

    def make_read_only(self) -> None:
        self._break(errno.EROFS)

    def _break(self, number: int) -> None:
        # Renamed, so that no process reads half of it.
        part = self._number.with_suffix(".part")
        part.write_text(str(number))
        part.rename(self._number)

    def repair(self) -> None:
        self._number.unlink(missing_ok=True)

    def close(self) -> None:
        self.repair()


def small_disk(place: Path) -> Mounted | Broken:
    try:
        return Mounted(place)
    except (OSError, subprocess.CalledProcessError):
        return Broken(place.with_name(f"{place.name}_without_mount"))
