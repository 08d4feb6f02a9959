"""A tiny real network as a model folder: one 3x3 convolution and a tanh."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engines.spec import ModelCard

KERNELS = np.random.default_rng(7).normal(0, 0.3, (2, 3, 3)).astype(np.float32)


def make_model(folder: Path, size_multiple: int = 8, fixed_px: int | None = None, gain: float = 1.0) -> Path:
    """Write model.onnx and card.json into ``folder``, for tiles of any size or of ``fixed_px`` only; returns it.

    ``gain`` makes the colours stronger, up to the tanh's limits.
    """
    sides = [fixed_px, fixed_px] if fixed_px else ["h", "w"]
    folder.mkdir(parents=True)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["lightness", "kernels"], ["mixed"], pads=[1, 1, 1, 1]),
            helper.make_node("Tanh", ["mixed"], ["chroma"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("lightness", TensorProto.FLOAT, ["n", 1, *sides])],
        [helper.make_tensor_value_info("chroma", TensorProto.FLOAT, ["n", 2, *sides])],
        [numpy_helper.from_array(KERNELS[:, None] * np.float32(gain), "kernels")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "model.onnx")
    sha256 = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    card = ModelCard("tiny", "convolution", 0.02, -1.0, 110.0, size_multiple, sha256)
    (folder / "card.json").write_text(card.to_json())
    return folder
