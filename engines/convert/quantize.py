"""An int8 file for a model folder: post-training quantization on real tiles.

NNCF inserts quantize and dequantize nodes into the ONNX graph, which OpenVINO, ONNX Runtime and TensorRT all support,
and chooses their ranges from the activations on real tiles. What is not a product of weights stays in float, and so do
the first and the last layer: there the picture itself comes and goes, and 256 steps of it would be seen.
:mod:`engines.measure.parity` then measures whether the picture stays the same; a file that misses its bound is not
kept.

References
----------
Nagel et al. (2021), "A White Paper on Neural Network Quantization", arXiv:2106.08295.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.cache import write_whole, writing
from engines.errors import EngineUnavailableError, ModelError, one_line
from engines.scaling import fill
from engines.spec import CARD_FILE, INT8_FILE, Model, file_sha256, find_model

F32 = NDArray[np.float32]
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def quantized(model: Model, lightness: F32) -> bytes:
    """The model's network in int8, as an ONNX file.

    Parameters
    ----------
    lightness : (N, 1, T, U) L* in [0, 100] of real tiles, a few hundred; with a*, b* (N, 3, T, U) if it takes a palette

    Raises
    ------
    EngineUnavailableError : nncf or onnx is not installed. ModelError : the network cannot be quantized.
    """
    try:
        import nncf
        import onnx
        import onnxruntime
    except ImportError as error:
        raise EngineUnavailableError(
            f"quantizing needs nncf and onnx ({error}): no int8 file was made; pip install '.[int8]'"
        ) from error
    logging.getLogger("nncf").setLevel(logging.ERROR)
    inputs = np.empty_like(lightness)
    fill(model.card, inputs, lightness)
    with tempfile.TemporaryDirectory() as folder:
        # Fold the casts of stored weights, which nncf does not support, without optimizations for one processor.
        plain = Path(folder, "plain.onnx")
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(plain)
        options.log_severity_level = 3
        try:
            onnxruntime.InferenceSession(str(model.onnx_path), options, providers=["CPUExecutionProvider"])
            network = onnx.load(plain)
            name = network.graph.input[0].name
            in_float = nncf.IgnoredScope(names=layers_in_float(network), validate=False)
            tiles = nncf.Dataset([{name: tile[None]} for tile in inputs])
            made = nncf.quantize(
                network,
                tiles,
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(inputs),
                fast_bias_correction=True,
                ignored_scope=in_float,
            )
        except Exception as error:  # each library has its own types
            raise ModelError(f"{model.onnx_path}: cannot be quantized ({one_line(error)}); use it in fp32") from error
        data: bytes = made.SerializeToString()
        return data


def layers_in_float(network: Any) -> list[str]:
    """Names of the nodes of an ONNX model that stay in float: the first and the last product, and all that is none.

    Sums are among them, and so is all that moves values without a change: in int8 the sum of a palette and what a
    network adds to it has steps of one a*, and the colours of flat parts come in bands.
    """
    nodes = [(node.name, node.op_type in _PRODUCTS) for node in network.graph.node]
    products = [name for name, is_product in nodes if is_product]
    ends = {products[0], products[-1]} if products else set()
    return [name for name, is_product in nodes if not is_product or name in ends]


def write_int8_model(model: Model, data: bytes, out: Path) -> Model:
    """A model folder like ``model``'s with ``data`` as its int8 file, which its card names. Raises EngineError."""
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        for path in (model.onnx_path, *(model.palette_paths() if model.card.palette else ())):
            if path.parent == model.folder:  # a shared stem stays where it is
                shutil.copyfile(path, out / path.name)
        write_whole(out / INT8_FILE, data)
        card = dataclasses.replace(model.card, int8_sha256=file_sha256(out / INT8_FILE))
        write_whole(out / CARD_FILE, card.to_json().encode())
    return find_model(str(out))
