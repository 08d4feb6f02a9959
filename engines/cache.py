"""Files that are created once per machine and reused: compiled engines and their parity figures.

They are in the user's cache folder, or in that of ``COLORIZE_ARCHIVE_CACHE``; deleting them costs only time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from engines.errors import EngineError

FOLDER_VARIABLE = "COLORIZE_ARCHIVE_CACHE"


def cache_folder(kind: str) -> Path:
    """The folder for one kind of file, created if needed. Raises EngineError."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    try:
        folder = (Path(chosen) if chosen else platformdirs.user_cache_path("colorize-archive")) / kind
    except RuntimeError as error:  # a user without a home
        raise EngineError(
            f"no home folder ({error}), so engines cannot be kept; set {FOLDER_VARIABLE} to a folder"
        ) from error
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn any OSError of the body into a one-line EngineError about ``path``."""
    try:
        yield
    except OSError as error:
        raise EngineError(
            f"{path}: cannot be written ({error.strerror or error}), so engines cannot be kept; "
            f"set {FOLDER_VARIABLE} to a folder that can"
        ) from error


def write_whole(path: Path, data: bytes) -> None:
    """Write beside and rename: another process sees the whole file or none. Raises EngineError."""
    part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    with writing(path):
        try:
            with part.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Wait until no other process or thread is creating ``path``; the lock ends with the process, even if killed."""
    lock = path.with_name(f"{path.name}.lock")
    with contextlib.ExitStack() as stack:
        with writing(lock):
            stream = stack.enter_context(lock.open("ab"))
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
