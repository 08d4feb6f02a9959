"""What a run needs of this machine, looked at piece by piece: what is there, what is wrong, and what helps.

Each function looks at one thing and changes nothing: files that it writes to try a folder are gone afterwards.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import resource
import secrets
import shutil
import socket
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from engines.cache import cache_folder
from engines.errors import BackendNotInstalledError, EngineError, ModelError, one_line
from engines.machine import memory_bytes, memory_left_bytes, no_semaphores, processors
from engines.registry import backend_module, backend_names, processor_of
from engines.spec import find_model, shipped_models
from flows.orchestration.server import users_server
from pipeline.errors import ColorizeError, FolderBusyError
from pipeline.support.files import LOCK_FILE, folder_lock
from pipeline.support.names import name_limit_bytes

_PACKAGES = ("numpy", "zarr", "tifffile", "rasterio", "pyvips-binary", "dask", "prefect", "openvino", "onnxruntime")
_OPTIONAL = ("torch", "tensorrt", "tensorrt-rtx-cu13-bindings", "cupy-cuda13x", "nncf")
_LEAST_MEMORY_BYTES = 2 * 2**30
_LEAST_LEFT_BYTES = 2**30
# A run into a folder of one's own needs room for a store, a picture and Prefect's database.
_LEAST_ROOM_BYTES = 2**30
_LEAST_TEMPORARY_BYTES = 64 * 2**20
# Workers, their connections, and the shards and windows that are open at once.
_LEAST_OPEN_FILES = 1024
_ANSWER_SECONDS = 10.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    topic, name : where it belongs on the page, and what it is
    value : what is there, for people
    trouble, remedy : what is wrong and what helps; both empty if nothing is
    """

    topic: str
    name: str
    value: str
    trouble: str = ""
    remedy: str = ""

    @property
    def is_wrong(self) -> bool:
        return bool(self.trouble)


def examine(output: Path | None = None) -> list[Finding]:
    """Look at everything; of the folders also at ``output``, if one is given."""
    found: list[Finding] = []
    for topic, look in (
        ("versions", _versions),
        ("models", _models),
        ("engines", _engines),
        ("machine", _machine),
        ("folders", lambda: _folders(output)),
        ("Prefect", _prefect),
    ):
        found += _looked(topic, look)
    return found


def to_json(found: Iterable[Finding]) -> dict[str, Any]:
    """All findings, and whether anything is wrong."""
    every = list(found)
    return {"is_well": not any(each.is_wrong for each in every), "findings": [asdict(each) for each in every]}


def _looked(topic: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of one topic; an unforeseen error is one too, and does not hide the other topics."""
    try:
        yield from look()
    except Exception as error:
        yield Finding(topic, topic, "", f"cannot be looked at ({type(error).__name__}: {one_line(error)})", "report it")


def _versions() -> Iterator[Finding]:
    yield Finding("versions", "colorize-archive", version("colorize-archive"))
    yield Finding("versions", "python", f"{platform.python_version()} ({platform.python_implementation()})")
    libc = " ".join(platform.libc_ver()).strip()
    yield Finding("versions", "system", f"{platform.platform(terse=True)}, {platform.machine()}{libc and f', {libc}'}")
    there, missing = [], []
    for name in (*_PACKAGES, *_OPTIONAL):
        try:
            there.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing += [name] if name in _PACKAGES else []
    yield Finding(
        "versions",
        "packages",
        ", ".join(there),
        f"{', '.join(missing)} not installed, though this project needs it" if missing else "",
        "install the project again: pip install ." if missing else "",
    )


def _models() -> Iterator[Finding]:
    for name in shipped_models():
        try:
            yield Finding("models", name, f"whole, SHA-256 {find_model(name).card.sha256[:12]}")
        except ModelError as error:
            yield Finding("models", name, "damaged", str(error), "install the project again: pip install .")
    if not shipped_models():
        yield Finding("models", "shipped", "none", "the package has no models", "install the project again")


def _engines() -> Iterator[Finding]:
    usable: list[tuple[int, str]] = []
    gpus = _gpus()
    for name in backend_names():
        try:
            module = backend_module(name)
            found = f"{module.version()}, {'/'.join(module.PRECISIONS)}, {processor_of(name)}"
            usable += [(module.RANK, name)] if module.RANK is not None else []
            yield Finding("engines", name, found)
        except BackendNotInstalledError as error:
            yield Finding("engines", name, f"not installed: {one_line(error)}")
        except ImportError as error:
            install = getattr(module, "INSTALL", "")
            yield Finding("engines", name, f"not installed{f': pip install {install}' if install else f': {error}'}")
        except Exception as error:  # plugins may raise anything
            yield Finding("engines", name, f"cannot run: {one_line(error)}")
    best = min(usable)[1] if usable else ""
    yield Finding(
        "engines",
        "auto takes",
        best or "none",
        "" if best else "no engine can predict anything here",
        "" if best else "pip install openvino, or onnxruntime",
    )
    yield Finding("engines", "GPU", "; ".join(gpus) or "none seen")
    if gpus and best and processor_of(best) != "gpu":
        yield Finding(
            "engines",
            "GPU engine",
            "none",
            f"there is a GPU, and auto takes {best}, which computes on processors",
            "see docs/engines.md for what to install; CUDA_VISIBLE_DEVICES may hide the GPU",
        )


def _gpus() -> list[str]:
    """Name, memory and driver of each GPU, as NVIDIA's program says."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in told.splitlines() if line.strip()]


def _machine() -> Iterator[Finding]:
    total, here = int(psutil.virtual_memory().total), memory_bytes()
    limit = f", limited to {_gib(here)} by its container or control group" if here < total else ""
    left = memory_left_bytes()
    yield Finding(
        "machine",
        "memory",
        f"{_gib(total)}{limit}; {_gib(left)} free now",
        *(
            (f"less than {_gib(_LEAST_MEMORY_BYTES)} for all processes", "give it more, or take a small --limit-memory")
            if here < _LEAST_MEMORY_BYTES
            else (f"only {_gib(left)} of memory is free", "end other programs, or give a smaller --limit-memory")
            if left < _LEAST_LEFT_BYTES
            else ("", "")
        ),
    )
    every = os.cpu_count() or 1
    allowed = f"{processors()}" + (f" of {every}, by a quota or an affinity" if processors() < every else "")
    yield Finding("machine", "processors", f"{allowed}; load {os.getloadavg()[0]:.1f}")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    is_few = soft != resource.RLIM_INFINITY and soft < _LEAST_OPEN_FILES
    most = "unlimited" if hard == resource.RLIM_INFINITY else hard
    yield Finding(
        "machine",
        "open files",
        "unlimited" if soft == resource.RLIM_INFINITY else f"{soft} (at most {most})",
        f"a run may need {_LEAST_OPEN_FILES}" if is_few else "",
        f"ulimit -n {_LEAST_OPEN_FILES}" if is_few else "",
    )
    semaphores = no_semaphores()
    yield Finding(
        "machine",
        "shared memory",
        "there" if not semaphores else "missing",
        f"processes cannot share locks ({semaphores}), so a run cannot start workers" if semaphores else "",
        "mount /dev/shm, in a container with --shm-size or an emptyDir of medium Memory" if semaphores else "",
    )
    yield _loopback()


def _loopback() -> Finding:
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
        return Finding("machine", "127.0.0.1", "can be listened on")
    except OSError as error:
        trouble = f"nothing can listen on 127.0.0.1 ({error.strerror}), so Prefect and Dask cannot start"
        return Finding("machine", "127.0.0.1", "closed", trouble, "bring the interface lo up")


def _folders(output: Path | None) -> Iterator[Finding]:
    if output is not None:
        yield folder_finding("output", output.expanduser().absolute(), _LEAST_ROOM_BYTES, is_locked=True)
    usual = Path(tempfile.gettempdir())
    yield folder_finding("temporary", usual, _LEAST_TEMPORARY_BYTES, "set TMPDIR to a folder with room")
    try:
        yield folder_finding("cache", cache_folder("engines"), _LEAST_TEMPORARY_BYTES)
    except EngineError as error:
        yield Finding("folders", "cache", "none", str(error), "set COLORIZE_ARCHIVE_CACHE to a folder")


def folder_finding(name: str, folder: Path, least_bytes: int, remedy: str = "", is_locked: bool = False) -> Finding:
    """Try to write, flush, rename, read and remove a file in ``folder``, and to lock it where ``is_locked``.

    A folder that is not there yet is tried where it would be made. ``least_bytes`` is the room that it should have.
    """
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    remedy = remedy or "check the folder, its drive and its permissions, or take another"
    try:
        if not existing.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{existing} is no folder")
        _write_test(existing)
        if is_locked and existing == folder:
            _lock_test(folder)
        free = shutil.disk_usage(existing).free
    except ColorizeError as error:
        return Finding("folders", name, str(folder), str(error), remedy)
    except OSError as error:
        return Finding("folders", name, str(folder), f"cannot be written ({error.strerror or error})", remedy)
    where = "" if existing == folder else " (to be made)"
    value = (
        f"{folder}{where}: written, {_gib(free)} free, {_drive(existing)}, names of {name_limit_bytes(existing)} bytes"
    )
    trouble = f"only {_gib(free)} free" if free < least_bytes else ""
    return Finding(
        "folders", name, value, trouble, (remedy if name == "temporary" else "free space") if trouble else ""
    )


def _write_test(folder: Path) -> None:
    """Raises OSError unless a file can be written as results are: flushed, renamed, read back, removed."""
    part = folder / f".colorize-archive.{secrets.token_hex(4)}.part"
    made = part.with_suffix(".tried")
    data = secrets.token_bytes(4096)
    try:
        with part.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, made)
        if made.read_bytes() != data:
            raise OSError(errno.EIO, "what was written is not what is read")
    finally:
        part.unlink(missing_ok=True)
        made.unlink(missing_ok=True)


def _lock_test(folder: Path) -> None:
    """Raises UsageError unless the folder's drive has locks; a run that holds the lock shows that it has."""
    is_new = not (folder / LOCK_FILE).exists()
    try:
        with folder_lock(folder):
            pass
    except FolderBusyError:
        return
    finally:
        if is_new:
            (folder / LOCK_FILE).unlink(missing_ok=True)


def _drive(folder: Path) -> str:
    """The kind of file system that a folder is on."""
    inside = [each for each in psutil.disk_partitions(all=True) if folder.is_relative_to(each.mountpoint)]
    return max(inside, key=lambda each: len(each.mountpoint)).fstype if inside else "unknown drive"


def _prefect() -> Iterator[Finding]:
    yield from _server()
    from prefect.settings import get_current_settings  # only now, for the time that it takes

    works = get_current_settings().plugins.enabled
    value = "works" if works else "after: prefect config set PREFECT_PLUGINS_ENABLED=true"
    yield Finding("Prefect", "prefect deployment run colorize-archive", value)


def _server() -> Iterator[Finding]:
    installed, url = version("prefect"), users_server()
    if url is None:
        yield Finding("Prefect", "server", "none of yours, and none is needed: runs go on in the command's own process")
        return
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/admin/version", timeout=_ANSWER_SECONDS) as answer:
            there = str(json.load(answer))
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        yield Finding(
            "Prefect",
            "server",
            url,
            f"does not answer ({one_line(reason)}), so runs would not start",
            "start it (deploy/up), correct PREFECT_API_URL, or unset it: a run needs no server",
        )
        return
    is_other = there.split(".")[:1] != installed.split(".")[:1]
    yield Finding(
        "Prefect",
        "server",
        f"{url} answers, Prefect {there}",
        f"the server is Prefect {there}, this machine has {installed}" if is_other else "",
        "install the same major version on both" if is_other else "",
    )


def _gib(count: int) -> str:
    """Bytes for people.

    >>> _gib(3 * 2**29), _gib(2**20)
    ('1.5 GiB', '1 MiB')
    """
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
