"""OpenVINO on the CPU: fixed shapes, one stream per caller thread, and only the requested precision.

Float32 is requested explicitly: on processors with bfloat16 units OpenVINO would otherwise use these silently, and the
same scan would get other bytes on another machine.

bfloat16 is used only where measurements show no harm. With all of the shipped network in bfloat16, one pixel in a
thousand is off by 5 CIEDE2000. Nearly all of that comes from two places: the encoder, which decides on colours, and the
last convolution, whose output is scaled by 110. With these two in float32 it is 0.3, and most of the arithmetic is
between them. So a network is cut in three: the part before its first up-sampling, the last convolution and what follows
it, and the rest. A palette network is computed in bfloat16 as a whole: its outputs are shares of colours, whose mean
hardly changes (``colorize-archive engines check --network palette``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import ModelError
from engines.scaling import ScaledEngine
from engines.spec import GENERATOR, PALETTE, EngineSpec, Model

RANK = 1
REASON = "the fastest CPU runtime installed"
PRECISIONS = ("int8", "bf16", "fp32")
NETWORKS = (GENERATOR, PALETTE)
_first_inference = threading.Lock()
# Measured with batches of eight tiles of 256 px, the shipped default.
_BF16_BYTES = 40 * 2**20
_BF16_STREAM_BYTES = 95 * 2**20
_UPSAMPLING = ("Interpolate", "ConvolutionBackpropData")
_CONVOLUTIONS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData")


def version() -> str:
    import openvino

    return str(openvino.__version__).split("-")[0]


def lacks(precision: str) -> str:
    """The reason why this machine cannot compute in ``precision``; empty if it can."""
    import openvino

    if precision == "bf16" and "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return "this processor has no bfloat16 arithmetic"
    return ""


def extra_bytes(spec: EngineSpec) -> int:
    """Memory for bfloat16: for each stream, three networks in a row keep the tensors between them."""
    return (_BF16_BYTES + (spec.streams - 1) * _BF16_STREAM_BYTES) if spec.precision == "bf16" else 0


class OpenVinoEngine(ScaledEngine):
    """One compiled network, or several in a row; each calling thread has its own requests, so calls run in parallel."""

    def __init__(self, model: Model, spec: EngineSpec) -> None:
        import openvino

        super().__init__(model.card, spec)
        core = openvino.Core()
        networks = [core.read_model(path) for path in model.files_for(spec.precision)]
        networks[0].reshape(list(self._shape))
        for before, after in pairwise(networks):
            after.reshape(before.output(0).get_partial_shape())
        hint = "bf16" if spec.precision == "bf16" else "f32"
        parts = [(network, hint) for network in networks]
        if spec.precision == "bf16" and spec.network == GENERATOR:
            early, middle, late = _in_three(networks[0])
            parts = [(early, "f32"), (middle, "bf16"), (late, "f32")]
        self._compiled: Any = [core.compile_model(part, "CPU", _settings(spec, hint)) for part, hint in parts]
        self._local = threading.local()
        # In a process's first inference the binding initializes static tables, and waits for Python's lock while it
        # holds theirs: two threads that do it at once deadlock. So the first inference is done here, by one thread.
        with _first_inference:
            self._run(np.zeros(self._shape, np.float32))

    def _run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        if not hasattr(self._local, "requests"):
            self._local.requests = _chained([part.create_infer_request() for part in self._compiled])
        first, *others = self._local.requests
        result = first.infer([inputs], share_inputs=True)
        for request in others:
            result = request.infer()
        return np.asarray(result[0])

    def close(self) -> None:
        self._local = threading.local()
        self._compiled = None


def _settings(spec: EngineSpec, hint: str) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": hint,
        "NUM_STREAMS": str(spec.streams),
        "INFERENCE_NUM_THREADS": str(spec.threads * spec.streams),
        "ENABLE_CPU_PINNING": False,
    }


def _chained(requests: list[Any]) -> list[Any]:
    """The same requests, each of which reads the outputs of the previous one without a copy."""
    for before, after in pairwise(requests):
        for index in range(len(before.model_outputs)):
            after.set_input_tensor(index, before.get_output_tensor(index))
    return requests


def _in_three(network: Any) -> tuple[Any, Any, Any]:
    """Cut a network before its first up-sampling and before its last convolution. Raises ModelError."""
    kinds = [(operation.get_type_name(), operation.get_friendly_name()) for operation in network.get_ordered_ops()]
    ups = [name for kind, name in kinds if kind in _UPSAMPLING]
    convolutions = [name for kind, name in kinds if kind in _CONVOLUTIONS]
    if not ups or ups[0] == convolutions[-1]:
        raise ModelError("it has nothing between its first up-sampling and its last convolution to compute in bf16")
    both, late = _cut(network, _downstream(network, convolutions[-1]))
    early, middle = _cut(both, _downstream(both, ups[0]))
    return early, middle, late


def _sources(operation: Any) -> Iterator[Any]:
    return (operation.input_value(index) for index in range(operation.get_input_size()))


def _downstream(network: Any, start: str) -> set[str]:
    """Names of the operation ``start`` and of all that depend on it."""
    names = {start}
    for operation in network.get_ordered_ops():
        if any(source.get_node().get_friendly_name() in names for source in _sources(operation)):
            names.add(operation.get_friendly_name())
    return names


def _cut(network: Any, late: set[str]) -> tuple[Any, Any]:
    """Two networks: the operations not in ``late``, and those in it, with an input for every output of the first.

    Early values that are results, such as a palette that is only added at the end, pass through the second unchanged.
    """
    import openvino
    from openvino import opset13

    is_constant = _constants(network)
    late = late | {result.get_friendly_name() for result in network.get_results()}
    borders: dict[tuple[str, int], tuple[Any, Any, Any]] = {}
    for operation in [each for each in network.get_ordered_ops() if each.get_friendly_name() in late]:
        for index, source in enumerate(list(_sources(operation))):
            node = source.get_node()
            if node.get_friendly_name() in late or is_constant(node):
                continue
            key = (node.get_friendly_name(), source.get_index())
            if key not in borders:
                # Channels last, like the kernels: otherwise each border costs two passes over its pixels.
                out = opset13.transpose(source, [0, 2, 3, 1]).output(0)
                into = opset13.parameter(out.get_partial_shape(), out.get_element_type())
                borders[key] = out, into, opset13.transpose(into, [0, 3, 1, 2]).output(0)
            operation.input(index).replace_source_output(borders[key][2])
    outs, parameters, _ = zip(*borders.values(), strict=True)
    early = openvino.Model(list(outs), network.get_parameters(), "early")
    return early, openvino.Model(network.get_results(), list(parameters), "late")


def _constants(network: Any) -> Callable[[Any], bool]:
    """A predicate for operations that depend on no input, such as converted weights."""
    names: set[str] = set()
    for operation in network.get_ordered_ops():
        sources = list(_sources(operation))
        kind = operation.get_type_name()
        if kind == "Constant" or (sources and all(s.get_node().get_friendly_name() in names for s in sources)):
            names.add(operation.get_friendly_name())
    return lambda operation: operation.get_friendly_name() in names


def open_engine(model: Model, spec: EngineSpec) -> OpenVinoEngine:
    return OpenVinoEngine(model, spec)
