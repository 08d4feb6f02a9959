"""ONNX Runtime with its TensorRT provider, which keeps its engines in the cache folder itself."""

from __future__ import annotations

from engines.cache import cache_folder
from engines.ort import OrtEngine, gpu_version
from engines.spec import EngineSpec, Model

RANK = -2
REASON = "TensorRT through onnxruntime"
PRECISIONS = ("fp16", "int8", "fp32")
_PROVIDER = "TensorrtExecutionProvider"


def version() -> str:
    return gpu_version(_PROVIDER)


def open_engine(model: Model, spec: EngineSpec) -> OrtEngine:
    options = {
        "trt_fp16_enable": str(spec.precision == "fp16"),
        "trt_int8_enable": str(spec.precision == "int8"),
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(cache_folder("onnxruntime-tensorrt")),
        "trt_timing_cache_enable": "True",
    }
    return OrtEngine(model, spec, _PROVIDER, options)
