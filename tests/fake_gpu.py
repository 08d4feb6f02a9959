"""A GPU in host memory, to run the NVIDIA runner without one.

Streams queue their work until they are waited for (or do it at once, where told to be eager), captured work runs only
when its graph is launched, memory is real, and copies outside it or in the wrong direction are errors. Networks are
computed by ONNX Runtime: a compiled engine is its ONNX file. Any one call can be made to fail.

:class:`DeviceArrays` stands for a library of arrays on that GPU. It shows what the runner does to the memory and the
streams of such a library, and nothing of what CuPy itself does.
"""

# ruff: noqa: N802, N815 -- CUDA's own names

from __future__ import annotations

import ctypes
import functools
import itertools
import operator
import sys
import threading
import types
from enum import Enum, IntEnum

import array_api_compat.numpy
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


class Point:
    """A place in a stream's work, as an event records it."""

    def __init__(self, stream=None):
        self.stream, self.is_reached = stream, stream is None

    def reach(self):
        self.is_reached = True


class Event(int):
    """A number, with the place that was recorded last."""

    point: Point


class FakeCuda(types.ModuleType):
    """Stands for ``cuda.bindings.runtime``: every function gives its status first."""

    cudaError_t = Error
    cudaMemcpyKind = Enum("cudaMemcpyKind", "cudaMemcpyHostToDevice cudaMemcpyDeviceToHost cudaMemcpyDeviceToDevice")
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
        self.told = []  # the same calls with what they were given
        self.alive = {}  # everything that must be given back: handle -> kind, buffer
        self.theirs = {}  # the same of others than the runner
        self.eager = False
        self.bound = set()  # addresses that living execution contexts use
        self.mistakes = []
        self._handles = itertools.count(0x1000)
        self._lock = threading.Lock()
        self._working = threading.RLock()

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
            self.told.append((name, *args))
            if failed and name == "cudaStreamEndCapture":
                args[0].recorded = None
            # What waits or gives back has done so even where it tells of an earlier failure.
            if failed and not any(end in name for end in ("Free", "Destroy", "Synchronize")):
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

    def item(self, handle):
        """Kind and buffer of what is there, the runner's or another's."""
        return self.alive.get(int(handle)) or self.theirs.get(int(handle), (None, None))

    def enqueue(self, stream, work):
        kind, stream = self.item(stream)
        assert kind == "stream"
        (stream.work if stream.recorded is None else stream.recorded).append(work)
        if self.eager and stream.recorded is None:
            self._finish(stream)

    def cudaMemcpyAsync(self, target, source, size, kind, stream):
        came, went = (name.replace("Host", "pinned").lower() for name in kind.name[len("cudaMemcpy") :].split("To"))
        for address, wanted in ((target, went), (source, came)):
            found, buffer = self.item(address)
            if found != wanted or ctypes.sizeof(buffer) != size:
                return (Error.cudaErrorInvalidValue,)
        self.enqueue(stream, lambda: ctypes.memmove(target, source, size))
        return (Error.cudaSuccess,)

    def cudaStreamSynchronize(self, stream):
        return self._finish(self.item(stream)[1])

    def _finish(self, stream, point=None):
        """Do a stream's work, all or up to a point."""
        with self._working:
            if stream.recorded is not None:
                return (Error.cudaErrorStreamCaptureInvalidated,)
            while stream.work and not (point and point.is_reached):
                stream.work.pop(0)()
        return (Error.cudaSuccess,)

    def cudaStreamWaitEvent(self, stream, event, flags):
        point = event.point
        self.enqueue(stream, lambda: None if point.is_reached else self._finish(point.stream, point))
        return (Error.cudaSuccess,)

    def cudaEventCreateWithFlags(self, flags):
        event = Event(next(self._handles))
        event.point = Point()
        return self._new("event", event, event)[0], event

    def cudaEventRecord(self, event, stream):
        event.point = Point(self.item(stream)[1])
        self.enqueue(stream, event.point.reach)
        return (Error.cudaSuccess,)

    def cudaEventSynchronize(self, event):
        return self._finish(event.point.stream, event.point) if event.point.stream else (Error.cudaSuccess,)

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
        # Copied: what an eager stream does at once would otherwise be done while the list is read.
        for work in list(self.alive[graph][1]):
            self.enqueue(stream, work)
        return (Error.cudaSuccess,)


class _Logger:
    pass


class _Context:
    def __init__(self, cuda, session):
        self._cuda, self._session, self._addresses = cuda, session, {}
        self._names = session.get_inputs()[0].name, session.get_outputs()[0].name

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
        return self._session.run(None, {self._names[0]: np.zeros(self._shape, np.float32)})[0].shape

    def set_tensor_address(self, name, address):
        self._addresses[name] = address
        self._cuda.bound.add(address)
        return not self._cuda.called("set_tensor_address")

    def _array(self, name, shape):
        memory = (ctypes.c_float * int(np.prod(shape))).from_address(self._addresses[name])
        return np.ctypeslib.as_array(memory).reshape(shape)

    def _compute(self):
        given, made = self._names
        outputs = self._session.run(None, {given: self._array(given, self._shape)})[0]
        self._array(made, outputs.shape)[:] = outputs

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
        return (self._session.get_inputs()[0].name, self._session.get_outputs()[0].name)[index]

    def create_runtime_config(self):
        return types.SimpleNamespace(set_runtime_cache=lambda cache: True, create_runtime_cache=object)

    def create_execution_context(self, settings=None):
        if self._cuda.called("create_execution_context"):
            self._cuda.logger.log(types.SimpleNamespace(name="ERROR"), "Requested amount of GPU memory: out of memory")
            return None
        return _Context(self._cuda, self._session)


class DeviceArrays:
    """An array namespace over the fake GPU's memory, with a current stream and a pool of freed memory as CuPy has.

    What writes arrays is queued in the stream. Memory that is freed is written over in the order of the stream it was
    taken for, as its next owner would do it, and given to that one first.
    """

    float16, float32, uint8 = np.float16, np.float32, np.uint8

    def __init__(self, gpu):
        self.gpu, self.out_of_memory = gpu, False
        self.stream = self.new_stream()
        self.free, self.taken = {}, 0

    def new_stream(self):
        stream = Stream(next(self.gpu._handles))
        stream.work, stream.recorded = [], None
        self.gpu.theirs[int(stream)] = ("stream", stream)
        return stream

    def empty(self, shape, dtype=np.float32, device=None):
        if self.out_of_memory:
            raise MemoryError("Out of memory allocating\n12 bytes")
        memory = _Memory(self, max(1, int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize))
        count = int(np.prod(shape, dtype=np.int64))
        return DeviceArray(self, memory, np.frombuffer(memory.buffer, dtype, count).reshape(shape))

    def made(self, shape, dtype, write):
        """A new array that ``write`` will fill."""
        array = self.empty(tuple(shape), dtype)
        self.gpu.enqueue(self.stream, functools.partial(write, array.view))
        return array

    def zeros(self, shape, dtype=np.float32, device=None):
        return self.made(shape if isinstance(shape, tuple) else (shape,), dtype, lambda view: view.fill(0))

    def asarray(self, values):
        values = np.array(values)
        return self.made(values.shape, values.dtype, lambda view: np.copyto(view, values))

    def finished(self, item):
        """NumPy's for an array, complete; also within tuples and lists."""
        if isinstance(item, (tuple, list)):
            return type(item)(map(self.finished, item))
        if not isinstance(item, DeviceArray):
            return item
        assert self.gpu._finish(self.stream) == (Error.cudaSuccess,)
        return item.view

    def wrapped(self, item):
        if isinstance(item, (tuple, list)):
            return type(item)(map(self.wrapped, item))
        return self.asarray(item) if isinstance(item, np.ndarray) else item

    def __getattr__(self, name):
        """NumPy's function, done at once."""
        found = getattr(array_api_compat.numpy, name)
        if isinstance(found, type) or not callable(found):
            return found

        def function(*args, **more):
            more = {key: self.finished(value) for key, value in more.items() if key != "device"}
            return self.wrapped(found(*self.finished(args), **more))

        return function


class _Memory:
    def __init__(self, xp, size):
        self._xp, self._stream = xp, xp.stream
        free = xp.free.setdefault((int(xp.stream), size), [])
        try:
            self.buffer = free.pop()
        except IndexError:
            self.buffer = ctypes.create_string_buffer(b"\xff" * size, size)
            xp.taken += size
        self._address = ctypes.addressof(self.buffer)
        xp.gpu.theirs[self._address] = ("device", self.buffer)

    def __del__(self):
        buffer, gpu = self.buffer, self._xp.gpu
        del gpu.theirs[self._address]
        gpu.enqueue(self._stream, lambda: ctypes.memset(buffer, 0xFF, len(buffer)))
        self._xp.free[int(self._stream), len(buffer)].append(buffer)


class DeviceArray:
    """Memory of the fake GPU; ``view`` shows what is in it by now."""

    device = "fake GPU"

    def __init__(self, xp, memory, view):
        self._xp, self._memory, self.view = xp, memory, view
        self.shape, self.dtype, self.ndim, self.size = view.shape, view.dtype, view.ndim, view.size

    @property
    def __cuda_array_interface__(self):
        assert self.view.flags.c_contiguous
        address = self.view.__array_interface__["data"]
        stream = int(self._xp.stream)
        return {"shape": self.shape, "typestr": "<f4", "data": address, "strides": None, "stream": stream, "version": 3}

    def __array_namespace__(self, api_version=None):
        return self._xp

    def to_device(self, device, stream=None):
        assert device == "cpu"
        return self._xp.finished(self).copy()

    def _key(self, key):
        return tuple(map(self._xp.finished, key)) if isinstance(key, tuple) else self._xp.finished(key)

    def __getitem__(self, key):
        view = self.view[self._key(key)]
        # An index of integers or truths takes a copy, which must be of what will be there.
        if not np.shares_memory(view, self.view):
            return self._xp.asarray(self._xp.finished(self)[self._key(key)])
        return DeviceArray(self._xp, self._memory, view)

    def __setitem__(self, key, values):
        key, source = self._key(key), values.view if isinstance(values, DeviceArray) else values
        view = self.view
        self._xp.gpu.enqueue(self._xp.stream, lambda: view.__setitem__(key, source))

    def __iadd__(self, values):
        source = values.view if isinstance(values, DeviceArray) else values
        view = self.view
        self._xp.gpu.enqueue(self._xp.stream, lambda: np.add(view, source, out=view))
        return self

    def __mul__(self, factor):
        if not isinstance(factor, float):
            return self._xp.multiply(self, factor)
        source = self.view
        return self._xp.made(self.shape, self.dtype, lambda view: np.multiply(source, factor, out=view))

    def __bool__(self):
        return bool(self._xp.finished(self))

    def __len__(self):
        return len(self.view)


def _by_numpy(operation):
    return lambda self, *others: self._xp.wrapped(operation(*map(self._xp.finished, (self, *others))))


def _turned(operation):
    return lambda one, other: operation(other, one)


for _operation in (operator.add, operator.sub, operator.mul, operator.truediv):
    setattr(DeviceArray, f"__r{_operation.__name__}__", _by_numpy(_turned(_operation)))
for _name in ("add", "sub", "truediv", "floordiv", "pow", "eq", "ne", "lt", "le", "gt", "ge", "neg", "abs", "invert"):
    setattr(DeviceArray, f"__{_name}__", _by_numpy(getattr(operator, _name)))
DeviceArray.__and__, DeviceArray.__or__ = _by_numpy(operator.and_), _by_numpy(operator.or_)


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
