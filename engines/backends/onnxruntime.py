"""ONNX Runtime on the CPU: runs wherever Python does."""

from __future__ import annotations

from engines.backends._onnxruntime import OrtEngine, library_version
from engines.spec import GENERATOR, PALETTE, EngineSpec, Model

RANK = 2
REASON = "the CPU runtime that runs everywhere"
PRECISIONS = ("int8", "fp32")
NETWORKS = (GENERATOR, PALETTE)


def version() -> str:
    return library_version()


def open_engine(model: Model, spec: EngineSpec) -> OrtEngine:
    return OrtEngine(model, spec, "CPUExecutionProvider", {})
