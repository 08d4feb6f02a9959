"""A stem and a trained head to ONNX: the two files of a palette network, and its section of the card.

Matrices are first rounded to half precision in torch and stored in it, as in :mod:`training.export`: the files then
hold exactly the weights that the checked network used.
"""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from engines.spec import PALETTE_FILE, Model, PaletteCard, file_sha256
from training.errors import TrainingError
from training.export import OPSET, halve_weights
from training.palette.bins import Bins
from training.palette.network import PaletteHead
from training.palette.published import SHA256, Weights, load_stem
from training.palette.transformer import PATCH_PX, WIDTH, Stem

_TOLERANCE = 2e-3  # of tokens and logits, whose standard deviation is about 2


def stem_name(blocks: int, cells: int) -> str:
    """File name of a stem, from its published weights, its number of blocks and its input size."""
    return f"dinov2-vits14-{SHA256[:8]}-{blocks}blocks-{cells * PATCH_PX}px.onnx"


def write_stem(folder: Path, blocks: int, cells: int, weights: Weights) -> Path:
    """Write the stem's ONNX into ``folder`` unless it exists. Raises TrainingError if it differs from torch's."""
    path = folder / stem_name(blocks, cells)
    if not path.is_file():
        stem = Stem(blocks, cells)
        load_stem(stem, weights)
        side = cells * PATCH_PX
        _write(stem, torch.rand(2, 1, side, side, generator=torch.Generator().manual_seed(0)), "gray", "tokens", path)
    return path


def write_head(folder: Path, head: PaletteHead) -> Path:
    """Write the head's ONNX into ``folder``. Raises TrainingError if it differs from torch's."""
    path = folder / PALETTE_FILE
    tokens = torch.randn(2, 1 + head.cells**2, WIDTH, generator=torch.Generator().manual_seed(0)) * 2
    _write(head, tokens, "tokens", "logits", path)
    return path


def palette_card(stem: Path, head: Path, cells: int, bins: Bins, temperature: float, gain: float) -> PaletteCard:
    """The palette network's section of a model's card."""
    return PaletteCard(
        stem=stem.name,
        stem_sha256=file_sha256(stem),
        sha256=file_sha256(head),
        side_px=cells * PATCH_PX,
        cells=cells,
        colours_ab=tuple((float(a), float(b)) for a, b in bins.centres),
        temperature=temperature,
        gain=gain,
    )


def read_head(model: Model) -> tuple[PaletteHead, Bins]:
    """Load the head of a model folder as a torch network, to continue its training. Raises TrainingError."""
    card = model.card.palette
    if card is None:
        raise TrainingError(f"model {model.card.name} has no palette network to begin with; give one that has")
    stored = {i.name: numpy_helper.to_array(i) for i in onnx.load(model.folder / PALETTE_FILE).graph.initializer}
    weights = {name.removesuffix(".float16"): torch.tensor(values).float() for name, values in stored.items()}
    trained = len({name.split(".")[1] for name in weights if name.startswith("blocks.")})
    head = PaletteHead(len(card.colours_ab), card.cells, trained)
    try:
        head.load_state_dict({name: weights[name] for name in head.state_dict()})
    except (KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise TrainingError(f"{model.folder}: its palette network is not this package's ({reason})") from error
    centres = np.array(card.colours_ab, np.float32)
    return head.eval(), Bins(centres, np.ones(len(centres), np.float32))


@torch.no_grad()
def _write(network: nn.Module, example: Tensor, given: str, made: str, path: Path) -> None:
    network.eval()
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.copy_(parameter.half().float())
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that this exporter is no longer developed
        torch.onnx.export(
            network,
            (example,),
            stream,
            input_names=[given],
            output_names=[made],
            dynamic_axes={given: {0: "batch"}, made: {0: "batch"}},
            opset_version=OPSET,
            # Folding would store matrices transposed and without names, and training could not continue from them.
            do_constant_folding=False,
            dynamo=False,
        )
    model = halve_weights(onnx.load_from_string(stream.getvalue()))
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    difference = float(np.abs(session.run([made], {given: example.numpy()})[0] - network(example).numpy()).max())
    if not difference <= _TOLERANCE:
        raise TrainingError(f"{path.name}: torch and ONNX differ by {difference:.2g}; nothing was written")
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, part)
    os.replace(part, path)
