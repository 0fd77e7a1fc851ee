"""How fast is ingest, against Cutana and against astropy's Cutout2D?

Same tiles (four HSC-sized patches), same positions, same disk, 239 px float32. Two questions: whole runs, each a process of its
own as users start it, with the same number of workers, until its bytes are on disk; and the cut alone in one process, in memory
and written to the identical store. Run: make peers; python benchmarks/ingest.py --peers-python .venv-peers/bin/python
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

# As galbatch sets it for its workers: freed buffers stay with the process. Cutana's processes inherit it, too.
KEPT_BY_MALLOC = {"MALLOC_TRIM_THRESHOLD_": str(2**28), "MALLOC_MMAP_THRESHOLD_": str(2**28)}


def main() -> None:
    """Make the data, run both comparisons, print and keep the tables."""
    arguments = _arguments()
    if not KEPT_BY_MALLOC.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEPT_BY_MALLOC})
    import ingest_contenders

    with tempfile.TemporaryDirectory(dir=arguments.disk, prefix="ingest-") as folder:
        data = ingest_contenders.make_data(Path(folder), arguments.objects)
        ingest_contenders.compare_in_memory(data, store=Path(folder) / "store.zarr")
        ingest_contenders.compare_runs(
            data,
            output=Path(folder) / "output",
            peers_python=arguments.peers_python,
            workers=arguments.workers,
            rounds=arguments.rounds,
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--peers-python", help="Python of the peers' environment; without it Cutana is left out"
    )
    parser.add_argument("--objects", type=int, default=24_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--disk", default=tempfile.gettempdir(), help="folder on the disk to measure on")
    return parser.parse_args()


if __name__ == "__main__":
    main()
