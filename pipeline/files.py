"""Writing so that nothing half-written ever looks finished: beside first, renamed last, errors in one line."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import ColorizeError, OutputError, UsageError

LOCK_FILE = ".lock"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def output_error(error: OSError, target: Path) -> OutputError:
    """The one-line OutputError for an OSError met while writing ``target``."""
    if error.errno in _FULL:
        return OutputError(f"{target}: disk full or quota reached, nothing was kept; free space and run again")
    reason = error.strerror or str(error)
    return OutputError(f"{target}: cannot be written ({reason}); check the folder and its permissions")


@contextlib.contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn any OSError of the body into an OutputError about ``target``; errors of ours pass as they are."""
    try:
        yield
    except ColorizeError:
        raise
    except OSError as error:
        raise output_error(error, target) from error


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process; the lock goes with the process, however it ends.

    Raises
    ------
    UsageError : another process holds it. OutputError : the lock file cannot be made.
    """
    path = folder / LOCK_FILE
    with writing(path), path.open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"{folder}: another run is working on this output, two would mix their results; "
                "wait until it ends, or give another --output"
            ) from error
        yield


def size_bytes(path: Path) -> int:
    """Of a file, or of all files below a folder. Raises OSError where it is not there."""
    if path.is_dir():
        return sum(found.stat().st_size for found in path.rglob("*") if found.is_file())
    return path.stat().st_size


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write ``data`` beside ``path``, to the disk itself, and rename. Raises OutputError."""
    # Two workers may write one record: one that was taken for lost, and the one that was given its block.
    part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    with writing(path):
        try:
            with part.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(part, path)
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write ``value`` as indented JSON, whole or not at all. Raises OutputError."""
    write_whole(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def tree_sha256(path: Path) -> str:
    """SHA-256 of a file, or of the list of all files below a folder: names, in order, each with its own hash."""
    if not path.is_dir():
        return file_sha256(path)
    digest = hashlib.sha256()
    for found in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(
            f"{file_sha256(found)}  {found.relative_to(path).as_posix()}\n".encode("utf-8", "surrogateescape")
        )
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
