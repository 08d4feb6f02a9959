"""TensorRT for RTX: engines are compiled anywhere, even without a GPU, and run on supported GPUs since Ampere."""

from __future__ import annotations

from engines.backends import _tensorrt_build, _tensorrt_library, _tensorrt_runtime
from engines.spec import GENERATOR, PALETTE, EngineSpec, Model

RANK = -3
REASON = "an NVIDIA GPU and TensorRT for RTX are here"
PRECISIONS = ("fp16", "bf16", "int8", "fp32")
NETWORKS = (GENERATOR, PALETTE)
PROCESSOR = "gpu"
INSTALL = "'colorize-archive[rtx]'"
RECIPE = _tensorrt_build.RECIPE
LIBRARY = _tensorrt_library.Library("tensorrt_rtx_bindings", "TensorRT for RTX", portable=True)


def version() -> str:
    return _tensorrt_library.usable_version(LIBRARY)


def library_version() -> str:
    return _tensorrt_library.library_version(LIBRARY)


def device() -> str:
    return _tensorrt_library.device(LIBRARY)


def build(model: Model, spec: EngineSpec) -> bytes:
    return _tensorrt_build.build(LIBRARY, model, spec)


def open_engine(model: Model, spec: EngineSpec, compiled: bytes) -> _tensorrt_runtime.TensorRtEngine:
    return _tensorrt_runtime.open_engine(LIBRARY, model, spec, compiled)
