"""TensorRT for RTX: engines are compiled anywhere, also without a GPU, and run on GPUs since Ampere that it knows."""

from __future__ import annotations

from engines.backends import _tensorrt
from engines.spec import GENERATOR, PALETTE, EngineSpec, Model

RANK = -3
REASON = "an NVIDIA GPU and TensorRT for RTX are here"
PRECISIONS = ("fp16", "bf16", "int8", "fp32")
NETWORKS = (GENERATOR, PALETTE)
PROCESSOR = "gpu"
INSTALL = "'colorize-archive[rtx]'"
RECIPE = _tensorrt.RECIPE
LIBRARY = _tensorrt.Library("tensorrt_rtx_bindings", "TensorRT for RTX", portable=True)


def version() -> str:
    return _tensorrt.usable_version(LIBRARY)


def library_version() -> str:
    return _tensorrt.library_version(LIBRARY)


def device() -> str:
    return _tensorrt.device(LIBRARY)


def build(model: Model, spec: EngineSpec) -> bytes:
    return _tensorrt.build(LIBRARY, model, spec)


def open_engine(model: Model, spec: EngineSpec, compiled: bytes) -> _tensorrt.TensorRtEngine:
    return _tensorrt.open_engine(LIBRARY, model, spec, compiled)
