"""ONNX Runtime with its TensorRT provider, which keeps its engines in the cache folder itself."""

from __future__ import annotations

from engines.backends._onnxruntime import OrtEngine, gpu_version
from engines.cache import cache_folder
from engines.spec import GENERATOR, PALETTE, EngineSpec, Model

RANK = -2
REASON = "TensorRT through onnxruntime"
PRECISIONS = ("fp16", "int8", "fp32")
NETWORKS = (GENERATOR, PALETTE)
PROCESSOR = "gpu"
_PROVIDER = "TensorrtExecutionProvider"


def version() -> str:
    return gpu_version(_PROVIDER)


def _key(model: Model, spec: EngineSpec) -> str:
    """A cache key with the weights: the provider names files by shapes and nodes only, and would mix up models."""
    shape = f"{spec.batch}x{spec.tile_yx[0]}x{spec.tile_yx[1]}"
    return f"{model.sha256_for(spec.precision)[:16]}-{spec.precision}-{shape}"


def open_engine(model: Model, spec: EngineSpec) -> OrtEngine:
    options = {
        "trt_fp16_enable": str(spec.precision == "fp16"),
        "trt_int8_enable": str(spec.precision == "int8"),
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(cache_folder(f"onnxruntime-tensorrt/{_key(model, spec)}")),
        "trt_timing_cache_enable": "True",
    }
    return OrtEngine(model, spec, _PROVIDER, options)
