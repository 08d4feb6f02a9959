"""Atomic writes: files are written beside their target and renamed when complete; errors in one line."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import ColorizeError, FolderBusyError, OutputError, UsageError

LOCK_FILE = ".lock"
UNFINISHED = ".01234567.part"
"""A suffix as long as the one that :func:`write_whole` appends to a name while it writes."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_LOCKLESS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


def output_error(error: OSError, target: Path) -> OutputError:
    """The one-line OutputError for an OSError while writing ``target``."""
    if error.errno in _FULL:
        return OutputError(f"{target}: disk full or quota reached, nothing was kept; free space and run again")
    reason = error.strerror or str(error)
    return OutputError(f"{target}: cannot be written ({reason}); check the folder and its permissions")


@contextlib.contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn any OSError of the body into an OutputError about ``target``; our own errors pass unchanged."""
    try:
        yield
    except ColorizeError:
        raise
    except OSError as error:
        raise output_error(error, target) from error


def open_file(path: Path) -> io.BufferedReader:
    """Open a regular file to read its bytes. Opening a pipe could block, and opening a device may have side effects.

    Raises
    ------
    OSError : it is missing, cannot be read, or is not a regular file, which is then never opened
    """
    check_regular(path)
    # The file may have been replaced by a pipe: do not wait for it. Do wait for a file under another program's lease.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except BlockingIOError:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check_regular(os.fstat(descriptor).st_mode, path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def check_regular(path: Path) -> None:
    """Raises OSError if the path is missing or not a regular file."""
    _check_regular(path.stat().st_mode, path)


def _check_regular(mode: int, path: Path) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "a pipe, socket or device, not a file", str(path))


def read_text(path: Path) -> str:
    """Read a small UTF-8 file. Raises OSError as :func:`open_file`, UnicodeDecodeError."""
    with open_file(path) as stream:
        return stream.read().decode("utf-8")


def read_json(path: Path) -> Mapping[str, Any] | None:
    """The JSON object in a small file, or None if it cannot be read."""
    try:
        value = json.loads(read_text(path))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Lock ``folder`` for this process; the lock ends with the process, even if that is killed.

    Raises
    ------
    FolderBusyError : another process holds it. UsageError : its file system has no locks. OutputError : the lock file
    cannot be created.
    """
    path = folder / LOCK_FILE
    with writing(path), path.open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FolderBusyError(
                f"{folder}: another run is working on this output, two would mix their results; "
                "wait until it ends, or give another --output"
            ) from error
        except OSError as error:
            if error.errno not in _LOCKLESS:
                raise
            raise UsageError(
                f"{folder}: its drive has no locks ({error.strerror}), so two runs could mix their results; mount it "
                "with locks, or give an --output elsewhere"
            ) from error
        yield


def walk(
    folder: Path, cannot_list: Callable[[OSError], None] | None = None
) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Folders from the top down, each once, with the sorted names of folders and files in it, as os.walk yields them.

    Links to folders are followed: parts of an archive may be on other disks. Folders whose names the caller removes are
    not visited; ``cannot_list`` is called with the error for a folder that cannot be listed.
    """
    seen: set[tuple[int, int]] = set()
    for parent, names, files in os.walk(folder, followlinks=True, onerror=cannot_list):
        status = Path(parent).stat()
        if (status.st_dev, status.st_ino) in seen:
            names.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        names.sort()
        yield Path(parent), names, sorted(files)


def size_bytes(path: Path) -> int:
    """Size of a file, or of all files below a folder. Raises OSError if the path is missing."""
    if path.is_dir():
        return sum(found.stat().st_size for found in path.rglob("*") if found.is_file())
    return path.stat().st_size


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write ``data`` beside ``path``, flush it to the disk, and rename. Raises OutputError."""
    # Two workers may write the same record: one that was taken for lost, and the one that got its block.
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
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
    """Write ``value`` as indented JSON, atomically. Raises OutputError."""
    write_whole(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def tree_sha256(path: Path) -> str:
    """SHA-256 of a file; of a folder, SHA-256 of :func:`tree_list`."""
    return hashlib.sha256(tree_list(path)).hexdigest() if path.is_dir() else file_sha256(path)


def tree_list(folder: Path) -> bytes:
    """The sorted list of the hashes and names of all files in a folder, one a line."""
    found = sorted(p for p in folder.rglob("*") if p.is_file())
    lines = (f"{file_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in found)
    return "".join(lines).encode("utf-8", "surrogateescape")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open_file(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
