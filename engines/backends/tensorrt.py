"""TensorRT on data-centre GPUs: engines are compiled on the kind of GPU that they run on."""

from __future__ import annotations

from engines import nvidia
from engines.spec import EngineSpec, Model

RANK = -4
REASON = "an NVIDIA GPU and TensorRT are here"
PRECISIONS = ("fp16", "bf16", "int8", "fp32")
PROCESSOR = "gpu"
INSTALL = "'colorize-archive[tensorrt]'"
RECIPE = nvidia.RECIPE
LIBRARY = nvidia.Library("tensorrt", "TensorRT", portable=False)


def version() -> str:
    return nvidia.usable_version(LIBRARY)


def library_version() -> str:
    return nvidia.library_version(LIBRARY)


def device() -> str:
    return nvidia.device(LIBRARY)


def build(model: Model, spec: EngineSpec) -> bytes:
    return nvidia.build(LIBRARY, model, spec)


def open_engine(model: Model, spec: EngineSpec, compiled: bytes) -> nvidia.TensorRtEngine:
    return nvidia.open_engine(LIBRARY, model, spec, compiled)
