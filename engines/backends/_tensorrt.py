"""What TensorRT and TensorRT for RTX share: building an engine from ONNX, and running it with two batches in flight.

Networks are strongly typed (engines/convert/typed_graph.py writes the types) and TF32 is off. A batch is always run
whole, and the builder is asked for identical operations at each of its places, so that a tile's bytes do not depend on
its neighbours; NVIDIA documents that for products and reductions, not for convolutions, so a test on a GPU looks.

The libraries differ in three things. TensorRT times kernels on the GPU that it builds for, so its engines are good for
that kind of GPU and a timing cache spares repeated timing. TensorRT for RTX builds without a GPU and compiles the
kernels when an engine is opened; a cache of these is shared by the engine's lanes. And its kernels for a batch's shape
must be compiled at once: by default it computes with general ones until the others are ready, and the first tiles would
get other bytes.

Tiles come from the host, through pinned memory, or with CuPy from the device. Those of the device are copied there and
nobody waits: events make the caller's stream and the lane's go on in turn. A lane's buffers keep their addresses, which
its CUDA graph was captured with; so the graph holds the network alone, and either kind of copy goes around it. What is
held on the device is two lanes, and the caller's block: CuPy gives freed memory out again in the order of the stream,
so that a host far ahead of the device takes no more of it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.backends import _cuda
from engines.convert.typed_graph import typed_graph, typed_row
from engines.errors import EngineError, EngineUnavailableError, ModelError
from engines.scaling import ScaledEngine
from engines.spec import GENERATOR, EngineSpec, Model

F32 = NDArray[np.float32]
# While one batch is computed, another is copied, scaled or waited for; more than two only take memory.
LANES = 2
# Raised when another network is made of the same model, here or in engines/convert/typed_graph.py.
RECIPE = 2
PORTABLE = "any"
# The oldest that an engine for any GPU runs on; before it, one must be built for that GPU alone.
_PORTABLE_SINCE = (8, 0)

_log = logging.getLogger(__name__)
# Without a handler anywhere, Python would print the libraries' warnings.
_log.addHandler(logging.NullHandler())
# One at a time: the libraries tell what went wrong only in their log, which is one for the whole process.
_compiling = threading.Lock()
_timings: dict[str, bytes] = {}


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


# ---------------------------------------------------------------------------------------------------------- building


def build(library: Library, model: Model, spec: EngineSpec) -> bytes:
    """A serialized engine for batches of 1 to ``spec.batch`` tiles of ``spec.tile_yx``, fastest at the full batch.

    Raises
    ------
    ModelError : the library cannot make it, with the library's first reason. EngineUnavailableError : no GPU, where the
    library needs one to build. ImportError : no library, or no onnx.
    """
    device(library)
    paths = model.files_for(spec.precision)
    path = paths[-1]
    graph = typed_graph(path, spec.precision) if spec.network == GENERATOR else typed_row(paths, spec.precision)
    with _first_complaint(library) as complaint:
        builder, network = parsed(library, graph, str(path), model.output_shape(spec.tile_yx)[0])
        config = _configured(library, builder, network, spec)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise ModelError(
                f"{path}: {library.name} cannot build it for {spec.batch} tiles of {spec.tile_yx[0]}x{spec.tile_yx[1]} "
                f"in {spec.precision} ({complaint()}); use another precision or engine"
            )
        if not library.portable:
            _timings[library.module] = bytes(config.get_timing_cache().serialize())
    return bytes(plan)


def parsed(library: Library, graph: bytes, source: str, planes: int = 2) -> tuple[Any, Any]:
    """The library's builder and its network of an ONNX ``graph`` that gives ``planes`` for a tile.

    Raises ModelError with the parser's first error.
    """
    trt = library.load()
    log = _logger(library)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(graph):
        first = parser.get_error(0) if parser.num_errors else None
        reason = (
            _one_line(f"{first.node_operator()} {first.node_name()}: {first.desc()}") if first else "no reason given"
        )
        raise ModelError(f"{source}: {library.name} cannot read it ({reason}); use another engine")
    tensors = [*map(network.get_input, range(network.num_inputs)), *map(network.get_output, range(network.num_outputs))]
    found = [(len(tensor.shape), tuple(tensor.shape)[1:2], tensor.dtype) for tensor in tensors]
    if found not in [[(4, (channels,), trt.float32), (4, (planes,), trt.float32)] for channels in (1, 3)]:
        raise ModelError(
            f"{source}: input and output are {', '.join(f'{t.name} {tuple(t.shape)} {t.dtype}' for t in tensors)}, not "
            f"(N, 1 or 3, T, U) and (N, {planes}, T, U) of float32: tiles could not be given to it; "
            "export the model again"
        )
    return builder, network


def _configured(library: Library, builder: Any, network: Any, spec: EngineSpec) -> Any:
    trt = library.load()
    config = builder.create_builder_config()
    # Rounds float32 to 10 bits before multiplying: no nearer to the other engines than fp16.
    config.clear_flag(trt.BuilderFlag.TF32)
    config.set_flag(trt.BuilderFlag.DISTRIBUTIVE_INDEPENDENCE)
    tile = network.get_input(0)
    full = (spec.batch, tile.shape[1], *spec.tile_yx)
    smallest = (1 if tile.shape[0] < 0 else spec.batch, *full[1:])
    if any(fixed not in (-1, asked) for fixed, asked in zip(tile.shape, full, strict=True)):
        raise ModelError(
            f"batch of {full}: the model takes {tuple(tile.shape)} only, others would be cut; "
            "give its --tile and --batch, or export it with free sizes"
        )
    profile = builder.create_optimization_profile()
    profile.set_shape(tile.name, smallest, full, full)
    config.add_optimization_profile(profile)
    if not library.portable:
        config.set_timing_cache(config.create_timing_cache(_timings.get(library.module, b"")), ignore_mismatch=False)
    return config


@functools.cache
def _logger(library: Library) -> Any:
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
                self.errors.append(_one_line(message))
            _log.log(level, "%s: %s", library.name, message)

    return Log()


@contextlib.contextmanager
def _first_complaint(library: Library) -> Iterator[Callable[[], str]]:
    """Alone with the library's log; gives a function that tells its first error since."""
    with _compiling:
        errors = _logger(library).errors
        errors.clear()
        yield lambda: errors[0] if errors else "no reason given"


def _one_line(message: str) -> str:
    return " ".join(message.split())[:300]


# ----------------------------------------------------------------------------------------------------------- running


class TensorRtEngine(ScaledEngine):
    """A deserialized engine with two lanes; a call of :meth:`predict` takes a free one or waits for it.

    Its ``array_namespace`` is CuPy's where that can be used, else NumPy's.
    """

    def __init__(self, library: Library, model: Model, spec: EngineSpec, compiled: bytes, namespace: Any) -> None:
        super().__init__(model.card, spec)
        self._output_shape = (spec.batch, *model.output_shape(spec.tile_yx))
        # None in it: closed
        self._free: queue.SimpleQueue[_Lane | None] = queue.SimpleQueue()
        self._closing = threading.Lock()
        with ExitStack() as release, _first_complaint(library) as complaint:
            try:
                self._loaded: _Loaded | None = _Loaded(library, model, compiled, complaint)
                release.callback(self._unload)
                for _ in range(LANES):
                    self._free.put(_Lane(self._loaded, self._shape, self._output_shape, release))
            except (EngineError, ImportError):
                raise
            except Exception as error:  # the bindings' own kinds
                raise EngineUnavailableError(
                    f"{model.onnx_path}: {library.name} cannot run it ({_one_line(str(error))}): nothing could be "
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
        """As the base's; tells also what went wrong on the device since. Raises GpuError."""
        with _cuda.array_failures():
            return super().to_host(array)

    def predict(self, lightness: Any) -> Any:
        """(N, 1, T, U) L* in [0, 100] to (N, 2, T, U) a*, b*; N at most the spec's batch.

        NumPy to NumPy, complete, or an array of the namespace to another, without waiting for the device.

        Raises
        ------
        EngineUnavailableError : closed, or the GPU failed.
        """
        if not isinstance(lightness, np.ndarray):
            with _cuda.array_failures():
                return super().predict(lightness)
        with self._lane() as lane:
            # Straight into and out of the memory that the device copies: no further copy, and no other lane's tiles.
            self._fill(lane.inputs, lightness)
            lane.run()
            return self._chroma(lane.outputs, len(lightness))

    def _run(self, inputs: Any) -> Any:
        # Before the lane is told to wait for the caller's stream: in that stream, this memory may still be another's.
        outputs = self.array_namespace.empty(self._output_shape, dtype=inputs.dtype, device=inputs.device)
        with self._lane() as lane:
            lane.run_there(inputs, outputs)
        return outputs

    @contextlib.contextmanager
    def _lane(self) -> Iterator[_Lane]:
        """A lane of one's own. Raises EngineUnavailableError where the engine is closed."""
        lane = self._free.get()
        try:
            if lane is None:
                raise EngineUnavailableError("engine is closed: nothing can be predicted; open it again")
            yield lane
        finally:
            self._free.put(lane)

    def close(self) -> None:
        """Wait for the calls under way, then release all memory. Later predictions raise."""
        with self._closing:
            if self._release is None:
                return
            for _ in range(LANES):
                self._free.get()
            release, self._release = self._release, None
            self._free.put(None)
            release.close()


class _Loaded:
    """A deserialized engine and what it needs alive: the library frees none of them before the last reference goes."""

    def __init__(self, library: Library, model: Model, compiled: bytes, complaint: Callable[[], str]) -> None:
        usable_version(library)
        trt = library.load()
        self._log = _logger(library)
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
        """An execution context, of which each lane needs its own. Raises GpuError."""
        context = self.engine.create_execution_context(*self._settings)
        if context is None:
            raise self.failure("no execution context")
        return context

    def failure(self, what: str) -> _cuda.GpuError:
        """The error for ``what``, with the library's last words; these tell apart the lack of memory."""
        said = list(self._log.errors) or ["no reason given"]
        signs = ("out of memory", "outofmemory", "memoryallocation")
        if any(sign in line.lower() for line in said for sign in signs):
            return _cuda.out_of_memory(what)
        return _cuda.GpuError(f"{what} ({said[-1]}): the GPU cannot be used; check nvidia-smi, or use another engine")


class _Lane:
    """One batch in flight: an execution context, a stream, pinned and device memory, and the network as a CUDA graph.

    ``release`` frees it all, also where the constructor fails half-way.
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
        # Registered last, so done first: the library lets go of the buffers and the stream before they are freed.
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
        # Once without a graph: the library loads or compiles its kernels now, which may not be captured.
        self.run()
        self._graph = self._captured(release)

    def run(self) -> None:
        """From ``inputs`` to ``outputs``, waiting for the end. Raises GpuError."""
        kinds = _cuda.runtime().cudaMemcpyKind
        self._copy_in(self.inputs.ctypes.data, kinds.cudaMemcpyHostToDevice)
        self._start_network()
        self._copy_out(self.outputs.ctypes.data, kinds.cudaMemcpyDeviceToHost)
        _cuda.call("cudaEventRecord", self._done, self._stream)
        _cuda.call("cudaEventSynchronize", self._done)

    def run_there(self, inputs: Any, outputs: Any) -> None:
        """From one array of the device to another, both a full batch of float32, C-contiguous; waits for nothing.

        Raises GpuError.
        """
        source, theirs = _cuda.address_and_stream(inputs)
        target, _ = _cuda.address_and_stream(outputs)
        kind = _cuda.runtime().cudaMemcpyKind.cudaMemcpyDeviceToDevice
        with ExitStack() as failure:
            # Their memory is given out again when this raises: nothing of what was started may touch it then.
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
        """The network as one graph, started by one call; None where the library's kernels cannot be captured."""
        runtime = _cuda.runtime()
        if not getattr(self._context, "is_stream_capturable", lambda stream: True)(int(self._stream)):
            return None
        # Of this thread alone: another engine's memory may be reserved in another thread meanwhile.
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _cuda.call("cudaStreamBeginCapture", self._stream, mode)
        try:
            with ExitStack() as recorded:
                try:
                    self._enqueue()
                finally:
                    # After a failure too, or the stream would record for ever.
                    graph = _cuda.call("cudaStreamEndCapture", self._stream)
                    recorded.callback(_cuda.let_go, "cudaGraphDestroy", graph)
                ready = _cuda.call("cudaGraphInstantiate", graph, 0)
        except _cuda.GpuError as error:
            _log.info("no CUDA graph, batches are started step by step: %s", error)
            # The failed capture's error stays with the thread until it is asked for, and then belongs to nobody.
            runtime.cudaGetLastError()
            self.run()
            return None
        release.callback(_cuda.let_go, "cudaGraphExecDestroy", ready)
        return ready

    def _forget(self) -> None:
        # After a failure half-way, and with predictions that nobody waited for, work may still use the lane's memory.
        _cuda.let_go("cudaStreamSynchronize", self._stream)
        self._context = None


def open_engine(
    library: Library, model: Model, spec: EngineSpec, compiled: bytes, namespace: Any = None
) -> TensorRtEngine:
    """Load what :func:`build` made.

    Parameters
    ----------
    namespace : of the device arrays that are taken as well, which have the CUDA array interface; None looks for CuPy

    Raises
    ------
    ModelError : ``compiled`` cannot be loaded or is for other batches: compile it again.
    EngineUnavailableError : no driver, no GPU, no memory. ImportError : no library.
    """
    return TensorRtEngine(library, model, spec, compiled, namespace)
