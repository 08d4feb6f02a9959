"""OpenVINO on the CPU: fixed shapes, float32, one stream per caller thread.

Float32 is asked for by name: on processors with bfloat16 units OpenVINO would otherwise use them silently, and the same
scan would get other bytes on another machine.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.scaling import ScaledEngine
from engines.spec import EngineSpec, Model

RANK = 1
REASON = "the fastest CPU runtime installed"
_first_inference = threading.Lock()


def version() -> str:
    import openvino

    return str(openvino.__version__).split("-")[0]


class OpenVinoEngine(ScaledEngine):
    """One compiled model; each calling thread has its own request, so calls run side by side."""

    def __init__(self, model: Model, spec: EngineSpec) -> None:
        import openvino

        super().__init__(model.card, spec)
        core = openvino.Core()
        network = core.read_model(model.onnx_path)
        network.reshape(list(self._shape))
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": str(spec.streams),
            "INFERENCE_NUM_THREADS": str(spec.threads * spec.streams),
            "ENABLE_CPU_PINNING": False,
        }
        self._compiled: Any = core.compile_model(network, "CPU", settings)
        self._local = threading.local()
        # The binding sets up static tables in a process's first inference, and waits for Python's lock while it holds
        # theirs: two threads that both come first block each other for ever. So the first one is done here, alone.
        with _first_inference:
            self._run(np.zeros(self._shape, np.float32))

    def _run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        if not hasattr(self._local, "request"):
            self._local.request = self._compiled.create_infer_request()
        return np.asarray(self._local.request.infer([inputs], share_inputs=True)[0])

    def close(self) -> None:
        self._local = threading.local()
        self._compiled = None


def open_engine(model: Model, spec: EngineSpec) -> OpenVinoEngine:
    return OpenVinoEngine(model, spec)
