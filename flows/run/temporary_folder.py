"""Where a run keeps its temporary files: in the usual folder, or beside the results if that is unusable."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

PREFIX = "colorize-archive-"
"""Of the names of the folders that runs of release 0.6 had there."""
# For Prefect's database with its journal, and for the folders of Dask's workers.
_ROOM_BYTES = 64 * 2**20


def see_to_temporary_files(output: Path) -> None:
    """Make this process and its children keep temporary files in ``output`` if no usual folder is usable.

    In a container ``/tmp`` may be read-only, missing or too small; the output folder is known to be writable. Python
    would fall back to the current folder, which belongs to the user.
    """
    usual = [os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")]
    for place in [*filter(None, usual), "/tmp", "/var/tmp"]:
        if _is_usable(place):
            break
    else:
        place = str(output)
    os.environ["TMPDIR"] = tempfile.tempdir = place
    try:
        Path.home()
    except RuntimeError:  # the user id has no account, and libraries that ask for the home would fail
        os.environ["HOME"] = place


def _is_usable(place: str) -> bool:
    try:
        with tempfile.TemporaryFile(dir=place):
            return shutil.disk_usage(place).free >= _ROOM_BYTES
    except OSError:
        return False
