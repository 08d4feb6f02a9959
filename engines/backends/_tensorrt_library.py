"""NVIDIA's two libraries and their logs.

They differ in three ways. TensorRT times kernels on the GPU that it builds for, so its engines run on that kind of GPU
only, and a timing cache avoids repeated timing. TensorRT for RTX builds without a GPU and compiles the kernels when an
engine is opened; the engine's slots share a cache of these. It must compile the kernels for a batch's shape at once: by
default it uses general kernels until the others are ready, and the first tiles would get other bytes.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from engines.backends import _cuda
from engines.errors import EngineUnavailableError

PORTABLE = "any"
# The oldest GPUs that a portable engine runs on; for older ones, it must be built for that GPU alone.
_PORTABLE_SINCE = (8, 0)

_log = logging.getLogger(__name__)
# Without any handler, Python would print the libraries' warnings.
_log.addHandler(logging.NullHandler())
# One at a time: the libraries report errors only in their log, which is shared by the whole process.
_compiling = threading.Lock()


@dataclass(frozen=True)
class Library:
    """One of NVIDIA's two libraries.

    Attributes
    ----------
    module : the module to import
    name : for people
    portable : engines are built without a GPU and run on every kind of GPU that the library supports
    """

    module: str
    name: str
    portable: bool

    def load(self) -> Any:
        """The module. Raises ImportError if it or one of its libraries is missing."""
        return importlib.import_module(self.module)


def library_version(library: Library) -> str:
    """The library's version; needs no GPU. Raises ImportError."""
    return str(library.load().__version__)


def usable_version(library: Library) -> str:
    """The library's version, if engines can run here.

    Raises
    ------
    ImportError : not installed. EngineUnavailableError : no driver, no GPU, or one that the library does not support.
    """
    version = library_version(library)
    major, minor = _cuda.compute_capability()
    if library.portable and (
        (major, minor) < _PORTABLE_SINCE or not hasattr(library.load().ComputeCapability, f"SM{major}{minor}")
    ):
        raise EngineUnavailableError(
            f"{library.name} {version} makes no engines for compute capability {major}.{minor}: "
            "nothing could be predicted on this GPU; use the engine tensorrt, or another"
        )
    return version


def device(library: Library) -> str:
    """The target of a compiled engine: any GPU, or the kind of GPU found here. Raises as :func:`usable_version`."""
    if library.portable:
        return PORTABLE
    major, minor = _cuda.compute_capability()
    return f"sm_{major}{minor}"


@functools.cache
def logger(library: Library) -> Any:
    """The process-wide logger of the library, which forwards to :mod:`logging` and keeps the errors."""
    trt = library.load()
    # The library's information messages are details here; it writes thousands of verbose lines.
    levels = {"INTERNAL_ERROR": 40, "ERROR": 40, "WARNING": 30, "INFO": 10, "VERBOSE": 5}

    class Log(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=50)

        def log(self, severity: Any, message: str) -> None:
            level = levels.get(severity.name, 30)
            if level >= logging.ERROR:
                self.errors.append(shortened(message))
            _log.log(level, "%s: %s", library.name, message)

    return Log()


@contextlib.contextmanager
def first_complaint(library: Library) -> Iterator[Callable[[], str]]:
    """Exclusive use of the library's log; yields a function that returns the first error since."""
    with _compiling:
        errors = logger(library).errors
        errors.clear()
        yield lambda: errors[0] if errors else "no reason given"


def shortened(message: str) -> str:
    """At most 300 characters in one line."""
    return " ".join(message.split())[:300]
