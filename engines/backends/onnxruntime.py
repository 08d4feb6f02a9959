"""ONNX Runtime on the CPU: runs wherever Python does."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.scaling import ScaledEngine
from engines.spec import EngineSpec, Model

RANK = 2
REASON = "installed, and openvino is not"


def version() -> str:
    import onnxruntime

    return str(onnxruntime.__version__)


class OnnxRuntimeEngine(ScaledEngine):
    """One session; calls from several threads run side by side."""

    def __init__(self, model: Model, spec: EngineSpec) -> None:
        import onnxruntime

        super().__init__(model.card, spec)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = spec.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Spinning threads would take the processor from the other workers of this machine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session: Any = onnxruntime.InferenceSession(
            str(model.onnx_path), options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name

    def _run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(self._session.run(None, {self._input: inputs})[0])

    def close(self) -> None:
        self._session = None


def open_engine(model: Model, spec: EngineSpec) -> OnnxRuntimeEngine:
    return OnnxRuntimeEngine(model, spec)
