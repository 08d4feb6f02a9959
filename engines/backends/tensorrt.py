"""TensorRT on data-centre GPUs: engines are compiled on the kind of GPU that they run on."""

from __future__ import annotations

from engines.backends import _tensorrt_build, _tensorrt_library, _tensorrt_runtime
from engines.spec import GENERATOR, PALETTE, EngineSpec, Model

RANK = -4
REASON = "an NVIDIA GPU and TensorRT are here"
PRECISIONS = ("fp16", "bf16", "int8", "fp32")
NETWORKS = (GENERATOR, PALETTE)
PROCESSOR = "gpu"
INSTALL = "'colorize-archive[tensorrt]'"
RECIPE = _tensorrt_build.RECIPE
LIBRARY = _tensorrt_library.Library("tensorrt", "TensorRT", portable=False)


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
