"""What the backends on ONNX Runtime share: one session, and a provider that is there or is refused."""

from __future__ import annotations

import ctypes.util
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import BackendNotInstalledError, EngineUnavailableError
from engines.scaling import ScaledEngine
from engines.spec import PALETTE, EngineSpec, Model


def library_version() -> str:
    """Of ONNX Runtime. Raises ImportError."""
    import onnxruntime

    return str(onnxruntime.__version__)


def gpu_version(provider: str) -> str:
    """The version, where ``provider`` is built in and there is a driver. Raises ImportError, EngineUnavailableError."""
    import onnxruntime

    if provider not in onnxruntime.get_available_providers():
        raise BackendNotInstalledError(
            f"this onnxruntime has no {provider}: nothing could be predicted on a GPU; pip install onnxruntime-gpu"
        )
    if ctypes.util.find_library("cuda") is None:
        raise EngineUnavailableError(f"{provider}: no NVIDIA driver on this machine; use another --engine")
    return library_version()


class OrtEngine(ScaledEngine):
    """A session for each file of the network; calls from several threads run side by side."""

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
        if spec.network == PALETTE:
            # With the size of its batch known, all that its graph does with shapes is worked out here: a GPU's provider
            # has no kernels for that.
            settings.add_free_dimension_override_by_name("batch", spec.batch)
        self._sessions: list[Any] = [
            onnxruntime.InferenceSession(str(path), settings, providers=[(provider, dict(options))])
            for path in model.files_for(spec.precision)
        ]
        if any(session.get_providers()[0] != provider for session in self._sessions):
            raise EngineUnavailableError(f"{provider} did not start on this machine; use another --engine")
        self._inputs = [session.get_inputs()[0].name for session in self._sessions]

    def _run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        for session, name in zip(self._sessions, self._inputs, strict=True):
            inputs = np.asarray(session.run(None, {name: inputs})[0])
        return inputs

    def close(self) -> None:
        self._sessions = []
