"""Where temporary files of a run lie: in the usual folder, or beside the results where that cannot be used."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

# Prefect's database and its journal, and the folders of Dask's workers.
_ROOM_BYTES = 64 * 2**20


def see_to_temporary_files(output: Path) -> None:
    """Let this process, and those that it starts, keep temporary files in ``output`` where there is no other folder.

    In a container ``/tmp`` may be read-only, or missing, or too small; the results' folder was written to just now.
    Python would take the current folder, which is somebody's.
    """
    usual = [os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")]
    for place in [*filter(None, usual), "/tmp", "/var/tmp"]:
        if _is_usable(place):
            break
    else:
        place = str(output)
    os.environ["TMPDIR"] = tempfile.tempdir = place


def _is_usable(place: str) -> bool:
    try:
        with tempfile.TemporaryFile(dir=place):
            return shutil.disk_usage(place).free >= _ROOM_BYTES
    except OSError:
        return False
