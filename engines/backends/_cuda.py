"""The CUDA runtime through cuda-python: every call is checked, every failure is one line.

The device is always number 0 of those in ``CUDA_VISIBLE_DEVICES``, as is usual for one worker per GPU.
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
    """Call function ``name`` of the CUDA runtime. Returns its result, or None if it has none. Raises GpuError."""
    cuda = runtime()
    status, *results = getattr(cuda, name)(*args)
    if status != cuda.cudaError_t.cudaSuccess:
        raise _error(cuda, name, status)
    return results[0] if results else None


def let_go(name: str, *args: Any) -> None:
    """As :func:`call`, for releasing a resource: a failure is only logged, so as not to hide the original error."""
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
    """The error if ``what`` does not fit into memory."""
    return GpuError(
        f"{what}: out of GPU memory: the engine cannot hold its batches; give a smaller --batch or fewer --workers"
    )


def compute_capability() -> tuple[int, int]:
    """Major and minor compute capability of the device. Raises GpuError if there is none, ImportError."""
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
    """An event for which the host waits asleep; ``release`` destroys it.

    Waiting for a stream spins, and would take a processor from the machine's other workers.
    """
    cuda = runtime()
    event = call("cudaEventCreateWithFlags", cuda.cudaEventBlockingSync | cuda.cudaEventDisableTiming)
    release.callback(let_go, "cudaEventDestroy", event)
    return event


def let_pass(first: Any, second: Any, event: Any) -> None:
    """Make later work of the stream ``second`` wait for all earlier work of ``first``. The host does not wait.

    The event can be reused at once: the waiting stream refers to its state at the time of the call.
    """
    call("cudaEventRecord", event, first)
    call("cudaStreamWaitEvent", second, event, 0)


def device_memory(shape: tuple[int, ...], release: ExitStack) -> int:
    """Allocate float32 memory of ``shape`` on the device and return its address; ``release`` frees it."""
    address = int(call("cudaMalloc", math.prod(shape) * 4))
    release.callback(let_go, "cudaFree", address)
    return address


def pinned_array(shape: tuple[int, ...], release: ExitStack) -> F32:
    """A zeroed float32 array in pinned memory, for direct copies by the device; invalid after ``release``."""
    address = int(call("cudaHostAlloc", math.prod(shape) * 4, runtime().cudaHostAllocDefault))
    release.callback(let_go, "cudaFreeHost", address)
    memory = (ctypes.c_float * math.prod(shape)).from_address(address)
    array = np.ctypeslib.as_array(memory).reshape(shape)
    array[:] = 0
    return array


def array_namespace(module: str = _ARRAYS) -> Any | None:
    """CuPy's namespace from :mod:`array_api_compat`, or None if CuPy is not installed or cannot compute.

    CuPy compiles kernels on first use, so only running one shows that it has everything it needs.
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
    except Exception as error:  # the library's own types
        _log.warning("CuPy cannot be used, blocks are made in the host's memory: %s", one_line(error))
        return None
    return xp


def address_and_stream(array: Any) -> tuple[int, int]:
    """Address of a device array, and the current stream of its library.

    Raises KeyError if the library does not reveal the stream, as CuPy when it is set to export version 2.

    References
    ----------
    CUDA Array Interface, version 3 (Numba's documentation).
    """
    told = array.__cuda_array_interface__
    return int(told["data"][0]), int(told["stream"])


@contextlib.contextmanager
def array_failures() -> Iterator[None]:
    """Turn CuPy's errors into a GpuError of one line."""
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
