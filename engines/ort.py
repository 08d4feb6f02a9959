"""What the backends on ONNX Runtime share: one session, and a provider that is there or is refused."""

from __future__ import annotations

import ctypes.util
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import EngineUnavailableError
from engines.scaling import ScaledEngine
from engines.spec import EngineSpec, Model


def library_version() -> str:
    """Of ONNX Runtime. Raises ImportError."""
    import onnxruntime

    return str(onnxruntime.__version__)


def gpu_version(provider: str) -> str:
    """The version, where ``provider`` is built in and there is a driver. Raises ImportError, EngineUnavailableError."""
    import onnxruntime

    if provider not in onnxruntime.get_available_providers():
        raise EngineUnavailableError(
            f"this onnxruntime has no {provider}: nothing could be predicted on a GPU; pip install onnxruntime-gpu"
        )
    if ctypes.util.find_library("cuda") is None:
        raise EngineUnavailableError(f"{provider}: no NVIDIA driver on this machine; use another --engine")
    return library_version()


class OrtEngine(ScaledEngine):
    """One session; calls from several threads run side by side."""

    def __init__(self, model: Model, spec: EngineSpec, provider: str, options: Mapping[str, str]) -> None:
        import onnxruntime

        super().__init__(model.card, spec)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = spec.threads
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 3
        # Spinning threads would take the processor from the other workers of this machine.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # A provider that cannot start is replaced by the processor without a word, unless it is asked not to.
        settings.add_session_config_entry("session.disable_cpu_ep_fallback", "0" if provider.startswith("CPU") else "1")
        path = str(model.onnx_for(spec.precision))
        self._session: Any = onnxruntime.InferenceSession(path, settings, providers=[(provider, dict(options))])
        if self._session.get_providers()[0] != provider:
            raise EngineUnavailableError(f"{provider} did not start on this machine; use another --engine")
        self._input = self._session.get_inputs()[0].name

    def _run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(self._session.run(None, {self._input: inputs})[0])

    def close(self) -> None:
        self._session = None
