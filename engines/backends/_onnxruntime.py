"""Shared by the backends on ONNX Runtime: sessions, and a provider that must be available."""

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
    """Version of ONNX Runtime. Raises ImportError."""
    import onnxruntime

    return str(onnxruntime.__version__)


def gpu_version(provider: str) -> str:
    """The version, if ``provider`` is built in and there is a driver. Raises ImportError, EngineUnavailableError."""
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
        # Spinning threads would take processors from the machine's other workers.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Unless told otherwise, ONNX Runtime silently falls back to the CPU if a provider cannot start.
        settings.add_session_config_entry("session.disable_cpu_ep_fallback", "0" if provider.startswith("CPU") else "1")
        if spec.network == PALETTE:
            # With a fixed batch size, shape computations in the graph are folded now: GPU providers have no kernels for
            # them.
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
