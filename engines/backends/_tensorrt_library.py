"""NVIDIA's two libraries, and what they say in their logs.

They differ in three things. TensorRT times kernels on the GPU that it builds for, so its engines are good for that kind
of GPU and a timing cache spares repeated timing. TensorRT for RTX builds without a GPU and compiles the kernels when an
engine is opened; a cache of these is shared by the engine's slots. And its kernels for a batch's shape must be compiled
at once: by default it computes with general ones until the others are ready, and the first tiles would get other bytes.
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
# The oldest that an engine for any GPU runs on; before it, one must be built for that GPU alone.
_PORTABLE_SINCE = (8, 0)

_log = logging.getLogger(__name__)
# Without a handler anywhere, Python would print the libraries' warnings.
_log.addHandler(logging.NullHandler())
# One at a time: the libraries tell what went wrong only in their log, which is one for the whole process.
_compiling = threading.Lock()


@dataclass(frozen=True)
class Library:
    """One of NVIDIA's two libraries.

    Attributes
    ----------
    module : what to import
    name : for people
    portable : engines are built without a GPU and run on each kind that the library knows
    """

    module: str
    name: str
    portable: bool

    def load(self) -> Any:
        """The module. Raises ImportError where it or one of its libraries is missing."""
        return importlib.import_module(self.module)


def library_version(library: Library) -> str:
    """Needs no GPU. Raises ImportError."""
    return str(library.load().__version__)


def usable_version(library: Library) -> str:
    """The library's version where engines can run.

    Raises
    ------
    ImportError : not installed. EngineUnavailableError : no driver, no GPU, or one that the library does not know.
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
    """What a compiled engine is good for: any GPU, or the kind of GPU found here. Raises as :func:`usable_version`."""
    if library.portable:
        return PORTABLE
    major, minor = _cuda.compute_capability()
    return f"sm_{major}{minor}"


@functools.cache
def logger(library: Library) -> Any:
    """The process's one logger of the library, passing all on to :mod:`logging` and keeping the errors."""
    trt = library.load()
    # What is information to the library's authors is detail here; its verbose lines are thousands.
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
    """Alone with the library's log; gives a function that tells its first error since."""
    with _compiling:
        errors = logger(library).errors
        errors.clear()
        yield lambda: errors[0] if errors else "no reason given"


def shortened(message: str) -> str:
    """At most 300 characters in one line."""
    return " ".join(message.split())[:300]
