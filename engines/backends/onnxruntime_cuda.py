"""ONNX Runtime on an NVIDIA GPU: for networks that TensorRT does not support, and if it is not installed."""

from __future__ import annotations

from engines.backends._onnxruntime import OrtEngine, gpu_version
from engines.spec import GENERATOR, PALETTE, EngineSpec, Model

RANK = -1
REASON = "a GPU, and TensorRT is not usable"
PRECISIONS = ("fp32",)
NETWORKS = (GENERATOR, PALETTE)
PROCESSOR = "gpu"
_PROVIDER = "CUDAExecutionProvider"
# TensorFloat-32 has a 10-bit mantissa: pictures would differ from the reference by more than is allowed for float32.
_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}


def version() -> str:
    return gpu_version(_PROVIDER)


def open_engine(model: Model, spec: EngineSpec) -> OrtEngine:
    return OrtEngine(model, spec, _PROVIDER, _OPTIONS)
