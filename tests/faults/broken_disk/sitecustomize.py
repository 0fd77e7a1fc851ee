"""Makes syncs of files fail below a folder, in every process that has this folder in PYTHONPATH: a broken disk where none can be mounted.

``GALBATCH_TEST_BROKEN_DISK`` names the folder; while a file with the name ``<folder>.errno`` exists, its number is the error.
"""

import os

FOLDER = os.environ.get("GALBATCH_TEST_BROKEN_DISK", "")
_fsync = os.fsync


def fsync(descriptor):
    path = os.readlink(f"/proc/self/fd/{descriptor}")
    if FOLDER and path.startswith(FOLDER) and os.path.exists(f"{FOLDER}.errno"):
        with open(f"{FOLDER}.errno", encoding="ascii") as file:
            number = int(file.read())
        raise OSError(number, os.strerror(number), path)
    return _fsync(descriptor)


os.fsync = fsync
