"""A GPU in host memory, to run the NVIDIA runner without one.

Streams queue their work until they are waited for, captured work runs only when its graph is launched, memory is real,
and copies outside it or in the wrong direction are errors. Networks are computed by ONNX Runtime: a compiled engine is
its ONNX file. Any one call can be made to fail.
"""

# ruff: noqa: N802, N815 -- CUDA's own names

from __future__ import annotations

import ctypes
import itertools
import sys
import threading
import types
from enum import Enum, IntEnum

import numpy as np
import onnxruntime

RUNTIME = "cuda.bindings.runtime"
LIBRARY = "fake_tensorrt"


class Error(IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorLaunchFailure = 719
    cudaErrorStreamCaptureInvalidated = 901


class Stream(int):
    """A number, with work that waits and, while recording, work that is recorded."""

    work: list
    recorded: list | None


class Event(int):
    """A number, with the stream that it was recorded in."""

    stream: Stream


class FakeCuda(types.ModuleType):
    """Stands for ``cuda.bindings.runtime``: every function gives its status first."""

    cudaError_t = Error
    cudaMemcpyKind = Enum("cudaMemcpyKind", "cudaMemcpyHostToDevice cudaMemcpyDeviceToHost")
    cudaStreamCaptureMode = Enum("cudaStreamCaptureMode", "cudaStreamCaptureModeThreadLocal")
    cudaDeviceAttr = Enum("cudaDeviceAttr", "cudaDevAttrComputeCapabilityMajor cudaDevAttrComputeCapabilityMinor")
    cudaStreamNonBlocking = 1
    cudaHostAllocDefault = 0
    cudaEventBlockingSync = 1
    cudaEventDisableTiming = 2

    def __init__(self, capability=(9, 0), devices=1):
        super().__init__(RUNTIME)
        self.capability, self.devices = capability, devices
        self.calls, self.fail_at, self.fail_with = [], None, Error.cudaErrorLaunchFailure
        self.alive = {}  # everything that must be given back: handle -> kind, buffer
        self.bound = set()  # addresses that living execution contexts use
        self.mistakes = []
        self._handles = itertools.count(0x1000)
        self._lock = threading.Lock()

    def called(self, name):
        """Note a call; the error that it must fail with, or None."""
        with self._lock:
            self.calls.append(name)
            return self.fail_with if self.fail_at == len(self.calls) - 1 else None

    def __getattribute__(self, name):
        value = super().__getattribute__(name)
        if not name.startswith("cuda") or not callable(value) or isinstance(value, type):
            return value

        def function(*args):
            failed = self.called(name)
            if failed and name == "cudaStreamEndCapture":
                args[0].recorded = None
            # What gives back has done so even where it tells of an earlier failure.
            if failed and "Free" not in name and "Destroy" not in name:
                return (failed, None)
            status, *results = value(*args)
            return (failed, None) if failed else (status, *results)

        return function

    def _new(self, kind, item=None, handle=None):
        handle = next(self._handles) if handle is None else handle
        self.alive[handle] = (kind, item)
        return Error.cudaSuccess, handle

    def _end(self, kind, handle):
        found, item = self.alive.get(handle, (None, None))
        if found != kind or handle in self.bound or (kind == "stream" and item.work):
            self.mistakes.append(f"{kind} {handle} given back twice, or while in use")
            return (Error.cudaErrorInvalidValue,)
        del self.alive[handle]
        return (Error.cudaSuccess,)

    def _memory(self, kind, size):
        buffer = ctypes.create_string_buffer(size)
        return self._new(kind, buffer, ctypes.addressof(buffer))

    def cudaGetDeviceCount(self):
        return (Error.cudaSuccess, self.devices)

    def cudaRuntimeGetVersion(self):
        return Error.cudaSuccess, 13000

    def cudaDeviceGetAttribute(self, attribute, device):
        return Error.cudaSuccess, self.capability["Minor" in attribute.name]

    def cudaGetLastError(self):
        return (Error.cudaSuccess,)

    def cudaMalloc(self, size):
        return self._memory("device", size)

    def cudaHostAlloc(self, size, flags):
        return self._memory("pinned", size)

    def cudaFree(self, address):
        return self._end("device", address)

    def cudaFreeHost(self, address):
        return self._end("pinned", address)

    def cudaStreamCreateWithFlags(self, flags):
        stream = Stream(next(self._handles))
        stream.work, stream.recorded = [], None
        return self._new("stream", stream, stream)[0], stream

    def cudaStreamDestroy(self, stream):
        return self._end("stream", stream)

    def enqueue(self, stream, work):
        stream = self.alive[int(stream)][1]
        (stream.work if stream.recorded is None else stream.recorded).append(work)

    def cudaMemcpyAsync(self, target, source, size, kind, stream):
        kinds = ("device", "pinned") if kind.name == "cudaMemcpyHostToDevice" else ("pinned", "device")
        for address, wanted in zip((target, source), kinds, strict=True):
            if self.alive[address][0] != wanted or ctypes.sizeof(self.alive[address][1]) != size:
                return (Error.cudaErrorInvalidValue,)
        self.enqueue(stream, lambda: ctypes.memmove(target, source, size))
        return (Error.cudaSuccess,)

    def cudaStreamSynchronize(self, stream):
        return self._finish(stream)

    def _finish(self, stream):
        if stream.recorded is not None:
            return (Error.cudaErrorStreamCaptureInvalidated,)
        while stream.work:
            stream.work.pop(0)()
        return (Error.cudaSuccess,)

    def cudaEventCreateWithFlags(self, flags):
        event = Event(next(self._handles))
        return self._new("event", event, event)[0], event

    def cudaEventRecord(self, event, stream):
        event.stream = stream
        return (Error.cudaSuccess,)

    def cudaEventSynchronize(self, event):
        return self._finish(event.stream)

    def cudaEventDestroy(self, event):
        return self._end("event", event)

    def cudaStreamBeginCapture(self, stream, mode):
        stream.recorded = []
        return (Error.cudaSuccess,)

    def cudaStreamEndCapture(self, stream):
        recorded, stream.recorded = stream.recorded, None
        return self._new("graph", recorded) if recorded else (Error.cudaErrorStreamCaptureInvalidated, None)

    def cudaGraphInstantiate(self, graph, flags):
        return self._new("ready graph", self.alive[graph][1])

    def cudaGraphDestroy(self, graph):
        return self._end("graph", graph)

    def cudaGraphExecDestroy(self, graph):
        return self._end("ready graph", graph)

    def cudaGraphLaunch(self, graph, stream):
        for work in self.alive[graph][1]:
            self.enqueue(stream, work)
        return (Error.cudaSuccess,)


class _Logger:
    pass


class _Context:
    def __init__(self, cuda, session):
        self._cuda, self._session, self._addresses = cuda, session, {}

    def __del__(self):
        self._cuda.bound -= set(self._addresses.values())

    def is_stream_capturable(self, stream):
        return self._cuda.capturable

    def set_input_shape(self, name, shape):
        wanted = self._session.get_inputs()[0].shape
        fits = all(isinstance(w, str) or w == s for w, s in zip(wanted, shape, strict=True))
        self._shape = shape
        return fits and not self._cuda.called("set_input_shape")

    def get_tensor_shape(self, name):
        return (self._shape[0], 2, *self._shape[2:])

    def set_tensor_address(self, name, address):
        self._addresses[name] = address
        self._cuda.bound.add(address)
        return not self._cuda.called("set_tensor_address")

    def _array(self, name, channels):
        shape = (self._shape[0], channels, *self._shape[2:])
        memory = (ctypes.c_float * int(np.prod(shape))).from_address(self._addresses[name])
        return np.ctypeslib.as_array(memory).reshape(shape)

    def _compute(self):
        inputs = self._array("lightness", 1)
        self._array("chroma", 2)[:] = self._session.run(None, {"lightness": inputs})[0]

    def execute_async_v3(self, stream):
        if self._cuda.called("execute_async_v3"):
            self._cuda.logger.log(types.SimpleNamespace(name="ERROR"), "Cuda failure: launch\n  failed")
            return False
        self._cuda.enqueue(stream, self._compute)
        return True


class _Engine:
    def __init__(self, cuda, session):
        self._cuda, self._session = cuda, session

    def get_tensor_name(self, index):
        return ("lightness", "chroma")[index]

    def create_runtime_config(self):
        return types.SimpleNamespace(set_runtime_cache=lambda cache: True, create_runtime_cache=object)

    def create_execution_context(self, settings=None):
        if self._cuda.called("create_execution_context"):
            self._cuda.logger.log(types.SimpleNamespace(name="ERROR"), "Requested amount of GPU memory: out of memory")
            return None
        return _Context(self._cuda, self._session)


def install(monkeypatch, **settings):
    """Put a fake GPU and a fake library in the place of the real modules for one test; gives the GPU."""
    cuda = FakeCuda(**settings)
    cuda.capturable = True

    class Runtime:
        def __init__(self, logger):
            cuda.logger = logger

        def deserialize_cuda_engine(self, compiled):
            if cuda.called("deserialize_cuda_engine"):
                return None
            try:
                return _Engine(cuda, onnxruntime.InferenceSession(compiled, providers=["CPUExecutionProvider"]))
            except Exception as error:
                cuda.logger.log(types.SimpleNamespace(name="ERROR"), f"magic tag does not match\n{error}")
                return None

    library = types.ModuleType(LIBRARY)
    library.__version__ = "1.2.3"
    library.ILogger, library.Runtime = _Logger, Runtime
    library.ComputeCapability = Enum("ComputeCapability", "SM75 SM80 SM89")
    library.DynamicShapesKernelSpecializationStrategy = Enum("Strategy", "LAZY EAGER")
    monkeypatch.setitem(sys.modules, RUNTIME, cuda)
    monkeypatch.setitem(sys.modules, LIBRARY, library)
    return cuda
