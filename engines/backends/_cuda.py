"""The CUDA runtime through cuda-python: every call checked, every failure one line.

The device is always number 0 of those that ``CUDA_VISIBLE_DEVICES`` shows, as is usual for one worker per GPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import logging
import math
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import EngineUnavailableError, one_line

F32 = NDArray[np.float32]
_MODULE = "cuda.bindings.runtime"
_ARRAYS = "array_api_compat.cupy"
_log = logging.getLogger(__name__)
_log.addHandler(logging.NullHandler())


class GpuError(EngineUnavailableError):
    """A call of the CUDA runtime failed; the message is one line with the remedy."""


def runtime() -> Any:
    """The module ``cuda.bindings.runtime``. Raises ImportError."""
    return importlib.import_module(_MODULE)


def call(name: str, *args: Any) -> Any:
    """Call function ``name`` of the CUDA runtime; its one result, or None where it has none. Raises GpuError."""
    cuda = runtime()
    status, *results = getattr(cuda, name)(*args)
    if status != cuda.cudaError_t.cudaSuccess:
        raise _error(cuda, name, status)
    return results[0] if results else None


def let_go(name: str, *args: Any) -> None:
    """As :func:`call` for giving something back: a failure is logged, so that the one that led here is the one told."""
    try:
        call(name, *args)
    except GpuError as error:
        _log.warning("%s", error)


def _error(cuda: Any, name: str, status: Any) -> GpuError:
    codes = cuda.cudaError_t
    if status == codes.cudaErrorInsufficientDriver:
        major = cuda.cudaRuntimeGetVersion()[1] // 1000
        return GpuError(
            f"no NVIDIA driver for CUDA {major} or later: nothing can run on a GPU here; "
            "install or update the driver, or use another engine"
        )
    if status == codes.cudaErrorNoDevice:
        return GpuError(
            "the NVIDIA driver shows no GPU: nothing can run on one here; "
            "check nvidia-smi and CUDA_VISIBLE_DEVICES, or use another engine"
        )
    if status == codes.cudaErrorMemoryAllocation:
        return out_of_memory(name)
    return GpuError(
        f"{name}: {status.name}: the GPU cannot be used; check nvidia-smi and the kernel's log, or use another engine"
    )


def out_of_memory(what: str) -> GpuError:
    """The error for ``what`` that found no room."""
    return GpuError(
        f"{what}: out of GPU memory: the engine cannot hold its batches; give a smaller --batch or fewer --workers"
    )


def compute_capability() -> tuple[int, int]:
    """Major and minor of the device that would be used. Raises GpuError where there is none, ImportError."""
    if not call("cudaGetDeviceCount"):
        cuda = runtime()
        raise _error(cuda, "cudaGetDeviceCount", cuda.cudaError_t.cudaErrorNoDevice)
    attributes = runtime().cudaDeviceAttr
    major = call("cudaDeviceGetAttribute", attributes.cudaDevAttrComputeCapabilityMajor, 0)
    minor = call("cudaDeviceGetAttribute", attributes.cudaDevAttrComputeCapabilityMinor, 0)
    return int(major), int(minor)


def new_stream(release: ExitStack) -> Any:
    """A stream that does not wait for the default one; ``release`` destroys it."""
    stream = call("cudaStreamCreateWithFlags", runtime().cudaStreamNonBlocking)
    release.callback(let_go, "cudaStreamDestroy", stream)
    return stream


def new_event(release: ExitStack) -> Any:
    """An event that the host waits for asleep; ``release`` destroys it.

    Waiting for a stream spins, and would take a processor each from the other workers of this machine.
    """
    cuda = runtime()
    event = call("cudaEventCreateWithFlags", cuda.cudaEventBlockingSync | cuda.cudaEventDisableTiming)
    release.callback(let_go, "cudaEventDestroy", event)
    return event


def let_pass(first: Any, second: Any, event: Any) -> None:
    """What ``second`` is given from now on begins when all that ``first`` was given is done. The host does not wait.

    The event may be used again at once: a stream that waits keeps to what was recorded when it was told to.
    """
    call("cudaEventRecord", event, first)
    call("cudaStreamWaitEvent", second, event, 0)


def device_memory(shape: tuple[int, ...], release: ExitStack) -> int:
    """Address of room for float32 of ``shape`` on the device; ``release`` frees it."""
    address = int(call("cudaMalloc", math.prod(shape) * 4))
    release.callback(let_go, "cudaFree", address)
    return address


def pinned_array(shape: tuple[int, ...], release: ExitStack) -> F32:
    """A zeroed float32 array that the device copies from and to by itself; not to be touched after ``release``."""
    address = int(call("cudaHostAlloc", math.prod(shape) * 4, runtime().cudaHostAllocDefault))
    release.callback(let_go, "cudaFreeHost", address)
    memory = (ctypes.c_float * math.prod(shape)).from_address(address)
    array = np.ctypeslib.as_array(memory).reshape(shape)
    array[:] = 0
    return array


def array_namespace(module: str = _ARRAYS) -> Any | None:
    """CuPy as :mod:`array_api_compat` names it, or None where it is not installed or cannot compute.

    It compiles its kernels when they are first needed, so only one that ran shows that it has all it needs for that.
    """
    try:
        xp = importlib.import_module(module)
    except ImportError:
        return None
    try:
        ones = xp.ones(4, dtype=xp.float32)
        address_and_stream(ones)
        if not bool(xp.all(ones * 2.0 == 2.0)):
            raise ArithmeticError("twice one is not two")
    except Exception as error:  # the library's own kinds
        _log.warning("CuPy cannot be used, blocks are made in the host's memory: %s", one_line(error))
        return None
    return xp


def address_and_stream(array: Any) -> tuple[int, int]:
    """Where an array of the device begins, and the stream that its library is working in now.

    Raises KeyError where the library does not tell the stream, as CuPy when it is set to export version 2.

    References
    ----------
    CUDA Array Interface, version 3 (Numba's documentation).
    """
    told = array.__cuda_array_interface__
    return int(told["data"][0]), int(told["stream"])


@contextlib.contextmanager
def array_failures() -> Iterator[None]:
    """What CuPy raises, as one line of ours. Raises GpuError."""
    try:
        yield
    except EngineUnavailableError:
        raise
    except MemoryError as error:
        raise out_of_memory("CuPy") from error
    except RuntimeError as error:
        raise GpuError(
            f"CuPy: {one_line(error)}: the GPU cannot be used; check nvidia-smi and the kernel's log, "
            "or use another engine"
        ) from error
