"""Running an engine of TensorRT or TensorRT for RTX with two batches in flight. A batch is always run whole.

Tiles come from the host, through pinned memory, or with CuPy from the device. Tiles on the device are copied there
without waiting: events order the caller's stream and the slot's. A slot's buffers keep the addresses with which its
CUDA graph was captured; so the graph contains only the network, and both kinds of copy are outside it. The device holds
two slots and the caller's block: CuPy reuses freed memory in stream order, so a host far ahead of the device needs no
more memory.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.backends import _cuda
from engines.backends._tensorrt_library import Library, first_complaint, logger, shortened, usable_version
from engines.errors import EngineError, EngineUnavailableError, ModelError
from engines.scaling import ScaledEngine
from engines.spec import EngineSpec, Model

F32 = NDArray[np.float32]
# While one batch is computed, another is copied, scaled or awaited; more than two would only take memory.
SLOTS = 2
_log = logging.getLogger(__name__)


class TensorRtEngine(ScaledEngine):
    """A deserialized engine with two slots; a call of :meth:`predict` takes a free slot or waits for one.

    Its ``array_namespace`` is CuPy's if that is usable, else NumPy's.
    """

    def __init__(self, library: Library, model: Model, spec: EngineSpec, compiled: bytes, namespace: Any) -> None:
        super().__init__(model.card, spec)
        self._output_shape = (spec.batch, *model.output_shape(spec.tile_yx))
        # None in the queue means closed.
        self._free: queue.SimpleQueue[_Slot | None] = queue.SimpleQueue()
        self._closing = threading.Lock()
        with ExitStack() as release, first_complaint(library) as complaint:
            try:
                self._loaded: _Loaded | None = _Loaded(library, model, compiled, complaint)
                release.callback(self._unload)
                for _ in range(SLOTS):
                    self._free.put(_Slot(self._loaded, self._shape, self._output_shape, release))
            except (EngineError, ImportError):
                raise
            except Exception as error:  # the bindings' own types
                raise EngineUnavailableError(
                    f"{model.onnx_path}: {library.name} cannot run it ({shortened(str(error))}): nothing could be "
                    "predicted; use another engine"
                ) from error
            self._release: ExitStack | None = release.pop_all()
        if (found := namespace or _cuda.array_namespace()) is not None:
            self.array_namespace = found

    def _unload(self) -> None:
        self._loaded = None

    def to_device(self, array: NDArray[Any]) -> Any:
        """As the base's. Raises GpuError."""
        with _cuda.array_failures():
            return super().to_device(array)

    def to_host(self, array: Any) -> NDArray[Any]:
        """As the base's; also reports earlier failures on the device. Raises GpuError."""
        with _cuda.array_failures():
            return super().to_host(array)

    def predict(self, lightness: Any) -> Any:
        """(N, 1, T, U) L* in [0, 100] to (N, 2, T, U) a*, b*; N at most the spec's batch.

        NumPy arrays give NumPy arrays, after waiting; arrays of the namespace give such arrays, without waiting.

        Raises
        ------
        EngineUnavailableError : closed, or the GPU failed.
        """
        if not isinstance(lightness, np.ndarray):
            with _cuda.array_failures():
                return super().predict(lightness)
        with self._slot() as slot:
            # Directly into and out of pinned memory: no further copy, and no tiles of another slot.
            self._fill(slot.inputs, lightness)
            slot.run()
            return self._chroma(slot.outputs, len(lightness))

    def _run(self, inputs: Any) -> Any:
        # Allocate before the slot waits for the caller's stream: work in that stream may still use this memory.
        outputs = self.array_namespace.empty(self._output_shape, dtype=inputs.dtype, device=inputs.device)
        with self._slot() as slot:
            slot.run_there(inputs, outputs)
        return outputs

    @contextlib.contextmanager
    def _slot(self) -> Iterator[_Slot]:
        """A slot for exclusive use. Raises EngineUnavailableError if the engine is closed."""
        slot = self._free.get()
        try:
            if slot is None:
                raise EngineUnavailableError("engine is closed: nothing can be predicted; open it again")
            yield slot
        finally:
            self._free.put(slot)

    def close(self) -> None:
        """Wait for running calls, then release all memory. Later predictions raise."""
        with self._closing:
            if self._release is None:
                return
            for _ in range(SLOTS):
                self._free.get()
            release, self._release = self._release, None
            self._free.put(None)
            release.close()


class _Loaded:
    """A deserialized engine and the objects that must outlive it; the library frees them with the last reference."""

    def __init__(self, library: Library, model: Model, compiled: bytes, complaint: Callable[[], str]) -> None:
        usable_version(library)
        trt = library.load()
        self._log = logger(library)
        self._runtime = trt.Runtime(self._log)
        self.engine = self._runtime.deserialize_cuda_engine(compiled)
        if self.engine is None:
            raise ModelError(
                f"{model.card.name}: its compiled engine of {len(compiled)} bytes cannot be loaded ({complaint()}): "
                "made by another version, for another GPU, or damaged; compile it again"
            )
        self._settings: list[Any] = []
        if library.portable:
            settings = self.engine.create_runtime_config()
            settings.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
            settings.set_runtime_cache(settings.create_runtime_cache())
            self._settings = [settings]

    def new_context(self) -> Any:
        """A new execution context; each slot needs its own. Raises GpuError."""
        context = self.engine.create_execution_context(*self._settings)
        if context is None:
            raise self.failure("no execution context")
        return context

    def failure(self, what: str) -> _cuda.GpuError:
        """The error for ``what``, with the library's last message, which also reveals a lack of memory."""
        said = list(self._log.errors) or ["no reason given"]
        signs = ("out of memory", "outofmemory", "memoryallocation")
        if any(sign in line.lower() for line in said for sign in signs):
            return _cuda.out_of_memory(what)
        return _cuda.GpuError(f"{what} ({said[-1]}): the GPU cannot be used; check nvidia-smi, or use another engine")


class _Slot:
    """One batch in flight: an execution context, a stream, pinned and device memory, and the network as a CUDA graph.

    ``release`` frees everything, even if the constructor fails half-way.
    """

    def __init__(
        self, loaded: _Loaded, shape: tuple[int, ...], outputs_shape: tuple[int, ...], release: ExitStack
    ) -> None:
        self._stream = _cuda.new_stream(release)
        self._given, self._done = _cuda.new_event(release), _cuda.new_event(release)
        self.inputs = _cuda.pinned_array(shape, release)
        self.outputs = _cuda.pinned_array(outputs_shape, release)
        self._device_inputs = _cuda.device_memory(shape, release)
        self._device_outputs = _cuda.device_memory(outputs_shape, release)
        self._failure = loaded.failure
        self._context = loaded.new_context()
        # Registered last, so called first: the library releases buffers and stream before they are freed.
        release.callback(self._forget)
        names = [loaded.engine.get_tensor_name(i) for i in range(2)]
        if not (
            self._context.set_input_shape(names[0], shape)
            and self._context.set_tensor_address(names[0], self._device_inputs)
            and self._context.set_tensor_address(names[1], self._device_outputs)
            and tuple(self._context.get_tensor_shape(names[1])) == outputs_shape
        ):
            raise ModelError(f"compiled engine does not take batches of {shape}: made for others; compile it again")
        self._graph: Any = None
        # Run once without a graph: the library now loads or compiles its kernels, which cannot be captured.
        self.run()
        self._graph = self._captured(release)

    def run(self) -> None:
        """Run from ``inputs`` to ``outputs`` and wait for the end. Raises GpuError."""
        kinds = _cuda.runtime().cudaMemcpyKind
        self._copy_in(self.inputs.ctypes.data, kinds.cudaMemcpyHostToDevice)
        self._start_network()
        self._copy_out(self.outputs.ctypes.data, kinds.cudaMemcpyDeviceToHost)
        _cuda.call("cudaEventRecord", self._done, self._stream)
        _cuda.call("cudaEventSynchronize", self._done)

    def run_there(self, inputs: Any, outputs: Any) -> None:
        """Run from one device array to another, both full batches of float32, C-contiguous; does not wait.

        Raises GpuError.
        """
        source, theirs = _cuda.address_and_stream(inputs)
        target, _ = _cuda.address_and_stream(outputs)
        kind = _cuda.runtime().cudaMemcpyKind.cudaMemcpyDeviceToDevice
        with ExitStack() as failure:
            # If this raises, the arrays' memory is reused: work already started must not touch it then.
            failure.callback(_cuda.let_go, "cudaStreamSynchronize", self._stream)
            _cuda.let_pass(theirs, self._stream, self._given)
            self._copy_in(source, kind)
            self._start_network()
            self._copy_out(target, kind)
            _cuda.let_pass(self._stream, theirs, self._done)
            failure.pop_all()

    def _copy_in(self, source: int, kind: Any) -> None:
        _cuda.call("cudaMemcpyAsync", self._device_inputs, source, self.inputs.nbytes, kind, self._stream)

    def _copy_out(self, target: int, kind: Any) -> None:
        _cuda.call("cudaMemcpyAsync", target, self._device_outputs, self.outputs.nbytes, kind, self._stream)

    def _start_network(self) -> None:
        if self._graph is None:
            self._enqueue()
        else:
            _cuda.call("cudaGraphLaunch", self._graph, self._stream)

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(int(self._stream)):
            raise self._failure("a batch could not be started")

    def _captured(self, release: ExitStack) -> Any:
        """The network as one graph, started by one call; None if the library's kernels cannot be captured."""
        runtime = _cuda.runtime()
        if not getattr(self._context, "is_stream_capturable", lambda stream: True)(int(self._stream)):
            return None
        # Restricted to this thread: another thread may allocate memory for another engine at the same time.
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _cuda.call("cudaStreamBeginCapture", self._stream, mode)
        try:
            with ExitStack() as recorded:
                try:
                    self._enqueue()
                finally:
                    # Also after a failure, or the stream would stay in capture mode.
                    graph = _cuda.call("cudaStreamEndCapture", self._stream)
                    recorded.callback(_cuda.let_go, "cudaGraphDestroy", graph)
                ready = _cuda.call("cudaGraphInstantiate", graph, 0)
        except _cuda.GpuError as error:
            _log.info("no CUDA graph, batches are started step by step: %s", error)
            # The error of a failed capture stays in the thread until it is read; clear it for later calls.
            runtime.cudaGetLastError()
            self.run()
            return None
        release.callback(_cuda.let_go, "cudaGraphExecDestroy", ready)
        return ready

    def _forget(self) -> None:
        # After a failure half-way, or with predictions nobody waited for, work may still use the slot's memory.
        _cuda.let_go("cudaStreamSynchronize", self._stream)
        self._context = None


def open_engine(
    library: Library, model: Model, spec: EngineSpec, compiled: bytes, namespace: Any = None
) -> TensorRtEngine:
    """Load an engine that :func:`build` made.

    Parameters
    ----------
    namespace : namespace of accepted device arrays, which have the CUDA array interface; None looks for CuPy

    Raises
    ------
    ModelError : ``compiled`` cannot be loaded or is for other batches: compile it again.
    EngineUnavailableError : no driver, no GPU, no memory. ImportError : no library.
    """
    return TensorRtEngine(library, model, spec, compiled, namespace)
