"""Writing of groups: files are written as they are made, ``_done.json`` last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy.typing as npt
import zarr
from zarr.abc.buffer import Buffer
from zarr.storage import MemoryStore

from galbatch.storage import files
from galbatch.storage.base import Piece
from galbatch.storage.checksums import Checksum
from galbatch.storage.locks import committing, require_held
from galbatch.storage.zarr_groups.tree import DONE_PATH, Mark, unspecified

__all__ = ["GroupWriter"]


class GroupWriter:
    """Writes one group, after removing an earlier one at the same path.

    Arrays are made in `group`, in memory. `flush` writes the files that Zarr has made of them and frees their memory. If
    anything is raised before `finish` returns, the group stays unfinished.

    Parameters
    ----------
    path : str
        Path of the group.
    attributes : mapping of str or None
        Attributes of the group.
    """

    def __init__(self, path: str, attributes: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self._files: dict[str, Buffer] = {}
        self._store = MemoryStore(self._files)
        self._written: dict[str, Checksum] = {}
        self.group = zarr.create_group(self._store, attributes=dict(attributes or {}))
        with committing():
            # The mark first: without it, whatever is left of the earlier group counts as unfinished.
            files.remove(files.join(path, DONE_PATH))
            files.remove(path)

    def create_array(self, name: str, **options: Any) -> zarr.Array[Any]:
        """Return a new array of the group, all of whose chunks are written; `options` are those of Zarr's `create_array`."""
        # By default Zarr leaves out chunks that hold the fill value only, and then a lost chunk looks like one of those.
        return self.group.create_array(name, config={"write_empty_chunks": True}, **options)

    def add_array(
        self,
        name: str,
        values: npt.NDArray[Any],
        *,
        axes: Sequence[str],
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a small array in one chunk; `axes` are the names of its dimensions."""
        # Zarr refuses chunks of length 0, which an array without objects would have.
        self.create_array(
            name,
            data=values,
            chunks=tuple(max(1, length) for length in values.shape),
            dimension_names=tuple(axes),
            attributes=dict(attributes or {}),
        )

    def write(self, contents: Mapping[str, Sequence[Piece]]) -> None:
        """Write files that were made without Zarr, given by their paths below the group."""
        if contents:
            require_held()
            files.write_files(self.path, contents)
            self._written |= {name: Checksum.of(pieces) for name, pieces in contents.items()}

    def flush(self, prefix: str = "") -> int:
        """Write the files that Zarr has made below `prefix`, and free their memory; return their number."""
        names = [name for name in self._files if name.startswith(prefix)]
        self.write({name: [self._files.pop(name).as_buffer_like()] for name in names})
        return len(names)

    def finish(self, done: Mapping[str, Any], *, before_sync: Callable[[], None] = lambda: None) -> None:
        """Write the metadata, wait until the disk has stored all files, and write ``_done.json`` with `done` and checksums.

        Parameters
        ----------
        done : mapping of str
            What the mark says.
        before_sync : callable
            Called before the waiting begins.

        Raises
        ------
        OSError
            Files that were written do not exist: another task, which had been taken for dead, may be writing the same
            group and may have removed them. Another attempt may help.
        LockLost
            The run does not hold its locks any more.
        """
        with unspecified():
            zarr.consolidate_metadata(self._store)
        self.flush()
        missing = self._written.keys() - set(files.list_files(self.path, suffix=""))
        if missing:
            raise OSError(
                f"{self.path}: {len(missing)} of {len(self._written)} files that were written are not there, such "
                f"as {min(missing)}; another process removed them"
            )
        before_sync()
        # If the mark survived a power cut and the shards did not, missing files would count as cutouts.
        files.sync_files(self.path, list(self._written))
        with committing():
            files.publish(files.join(self.path, DONE_PATH), Mark(done, self._written).as_bytes())
