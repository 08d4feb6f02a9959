"""A checkpoint in, a model folder out: ``model.onnx`` and ``card.json``.

The moving average of the generator is exported in evaluation mode, with batch, height and width left open. First, batch
norm is folded into the convolutions, and the folded weights are rounded to half precision in torch: the file then
stores as float16 exactly the weights that the checked network used. Each stored weight is followed by a Cast to
float32, which runtimes fold when they load the file: the file is half as large, and computation stays float32.

The exporter is torch's TorchScript one (``dynamo=False``): it needs no further package and makes a small, plain graph.
"""

from __future__ import annotations

import copy
import io
import json
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from engines.spec import CARD_FILE, MODEL_FILE, Model, ModelCard, file_sha256, find_model
from training import checkpoint
from training.config import Recipe
from training.errors import TrainingError
from training.patience import Patience
from training.trainer import build_generator

OPSET = 17
INPUT, OUTPUT = "lightness", "chroma"
_TOLERANCE = 1e-3  # of network output in [-1, 1]: a tenth of a unit of a*, b*
_SMALLEST_HALVED = 256  # elements; below it a cast node costs more than the bytes it saves
_BESIDE = ("losses.jsonl", "curves.png")  # files of the run that are kept beside the weights

# sRGB (IEC 61966-2-1) to XYZ relative to its own white, as pipeline.colour.lab has it: neutral gives a* = b* = 0.
_RGB_TO_XYZ = ((0.4123908, 0.3575843, 0.1804808), (0.2126390, 0.7151687, 0.0721923), (0.0193308, 0.1191948, 0.9505322))


class EngineGraph(nn.Module):
    """Any generator in the form that engines expect: (N, 1, H, W) lightness to (N, 2, H, W) a*, b*, both in [-1, 1].

    Lightness is replicated if the generator takes three channels. If it makes RGB, the graph ends with the conversion
    to CIE L*a*b* and drops the lightness: the scan has its own.
    """

    def __init__(self, generator: nn.Module, input_channels: int, rgb: bool, chroma_scale: float) -> None:
        super().__init__()
        self.generator = generator
        self.input_channels = input_channels
        self.rgb = rgb
        self.chroma_scale = chroma_scale
        to_xyz = torch.tensor(_RGB_TO_XYZ, dtype=torch.float64)
        relative = (to_xyz / to_xyz.sum(dim=1, keepdim=True)).float()
        self.register_buffer("relative", relative.view(3, 3, 1, 1), persistent=False)

    def forward(self, lightness: Tensor) -> Tensor:
        given = torch.cat([lightness] * self.input_channels, dim=1) if self.input_channels > 1 else lightness
        out: Tensor = self.generator(given)
        return self._chroma(out) if self.rgb else out

    def _chroma(self, rgb: Tensor) -> Tensor:
        encoded = (rgb + 1) / 2
        high = ((encoded + 0.055) / 1.055).clamp_min(1e-6) ** 2.4
        linear = torch.where(encoded <= 0.04045, encoded / 12.92, high)
        relative = nn.functional.conv2d(linear, self.relative)  # type: ignore[arg-type]
        cube_root = relative.clamp_min(1e-6) ** (1 / 3)
        f = torch.where(relative > (6 / 29) ** 3, cube_root, relative * (29 / 6) ** 2 / 3 + 4 / 29)
        a = 500 * (f[:, 0:1] - f[:, 1:2])
        b = 200 * (f[:, 1:2] - f[:, 2:3])
        return torch.cat([a, b], dim=1) / self.chroma_scale


def engine_graph(generator: nn.Module, recipe: Recipe) -> nn.Module:
    """``generator`` with one lightness channel in and a*, b* out; the generator itself if it has that form."""
    rgb = recipe.colour == "rgb"
    if recipe.input_channels == 1 and not rgb:
        return generator
    return EngineGraph(generator, recipe.input_channels, rgb, recipe.chroma_scale).eval()


def load_average(folder: Path) -> tuple[nn.Module, Recipe, dict[str, Any]]:
    """The moving-average generator of a training run in evaluation mode, its recipe, and the run's step and seconds.

    Of a run with patience, they are those of its best evaluation.

    Raises
    ------
    TrainingError : ``folder`` has no checkpoint, or it cannot be read.
    """
    state = last = checkpoint.load(folder)
    recipe = Recipe(**state["recipe"])
    if recipe.patience is not None and (folder / checkpoint.BEST).is_file():
        state = checkpoint.load(folder, name=checkpoint.BEST)
    try:
        generator = build_generator(recipe)
        generator.load_state_dict(state["average"])
    except (RuntimeError, TypeError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise TrainingError(f"{folder}: weights of another version ({reason}); train again") from error
    run = {"steps": state["step"], "seconds": round(state["seconds"]), "started_from": state["started_from"]}
    if recipe.patience is not None:
        run["early_stop"] = Patience.of(recipe.patience, last, len(recipe.phases)).record(last["step"])
    return generator.eval(), recipe, run


def size_multiple(generator: nn.Module) -> int:
    """Pixels that height and width must be multiples of, according to the network."""
    return int(generator.size_multiple)  # type: ignore[arg-type]


def fold_batch_norm(generator: nn.Module) -> nn.Module:
    """A copy in which each batch norm after a convolution in an ``nn.Sequential`` is folded into the convolution."""
    folded = copy.deepcopy(generator).eval()
    for sequence in [m for m in folded.modules() if isinstance(m, nn.Sequential)]:
        for i in range(len(sequence) - 1):
            first, second = sequence[i], sequence[i + 1]
            if isinstance(first, nn.Conv2d | nn.ConvTranspose2d) and isinstance(second, nn.BatchNorm2d):
                sequence[i] = fuse_conv_bn_eval(first, second, transpose=isinstance(first, nn.ConvTranspose2d))
                sequence[i + 1] = nn.Identity()
    return folded


@torch.no_grad()
def round_weights(generator: nn.Module) -> None:
    """Round convolution weights, in place, to values that float16 can represent; biases stay float32.

    Raises
    ------
    TrainingError : a weight exceeds float16's maximum of 65504.
    """
    for name, weight in generator.named_parameters():
        if weight.ndim == 4:
            weight.copy_(weight.half().float())
            if not torch.isfinite(weight).all():
                raise TrainingError(f"{name} has a weight beyond 65504 once batch norm is folded; train longer")


def to_onnx(generator: nn.Module, multiple: int, channels: int = 1) -> onnx.ModelProto:
    """Trace a generator with open batch, height and width; all weights float32."""
    stream = io.BytesIO()
    example = torch.zeros(2, channels, 2 * multiple, 2 * multiple)
    axes = {0: "batch", 2: "height", 3: "width"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that this exporter is no longer developed
        torch.onnx.export(
            generator.eval(),
            (example,),
            stream,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: axes, OUTPUT: axes},
            opset_version=OPSET,
            dynamo=False,
        )
    return onnx.load_from_string(stream.getvalue())


def halve_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose large weights are float16 initializers followed by a Cast, if float16 holds them exactly."""
    halved = copy.deepcopy(model)
    casts = []
    for initializer in halved.graph.initializer:
        values = numpy_helper.to_array(initializer)
        if values.dtype != np.float32 or values.size < _SMALLEST_HALVED:
            continue
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if np.array_equal(half.astype(np.float32), values):
            name = initializer.name
            initializer.CopyFrom(numpy_helper.from_array(half, f"{name}.float16"))
            casts.append(helper.make_node("Cast", [f"{name}.float16"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *halved.graph.node]
    del halved.graph.node[:]
    halved.graph.node.extend(nodes)
    return halved


def onnx_difference(generator: nn.Module, model: onnx.ModelProto, multiple: int, channels: int = 1) -> float:
    """Largest difference between torch and onnxruntime on a seeded random batch, of another shape than was traced."""
    shape = (3, channels, 3 * multiple, 2 * multiple)
    lightness = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = generator(torch.from_numpy(lightness)).numpy()
    return float(np.abs(session.run([OUTPUT], {INPUT: lightness})[0] - expected).max())


def put_folder(part: Path, folder: Path) -> None:
    """Rename ``part`` to ``folder``, replacing an earlier model folder."""
    if folder.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
        os.replace(folder, old)
        os.replace(part, folder)
        shutil.rmtree(old)
    else:
        os.replace(part, folder)


def export(run_folder: Path, out_folder: Path, name: str, chroma_gain: float = 1.0, note: str | None = None) -> Model:
    """Write ``model.onnx``, ``card.json`` and the run's curves into ``out_folder``, whole or not at all.

    If the generator takes a palette, the folder has the generator alone; :func:`training.palette.join.join` adds a
    palette network.

    Parameters
    ----------
    run_folder : the ``out`` of a training run, finished or not
    out_folder : the model folder to make; an earlier model there is replaced
    name : the model's own name, for its card
    chroma_gain : factor of the network's chroma when it runs; below 1 makes its colours calmer
    note : a line for the card

    Raises
    ------
    TrainingError : no usable checkpoint, ``out_folder`` holds something else, or torch and ONNX disagree.
    """
    if out_folder.exists() and not (out_folder / CARD_FILE).is_file() and any(out_folder.iterdir()):
        raise TrainingError(f"{out_folder}: holds files but no model; give a new folder or one with a {CARD_FILE}")
    generator, recipe, training = load_average(run_folder)
    multiple = size_multiple(generator)
    graph = engine_graph(fold_batch_norm(generator), recipe)
    round_weights(graph)
    channels = 3 if recipe.palette else 1
    model = halve_weights(to_onnx(graph, multiple, channels))
    onnx.checker.check_model(model, full_check=True)
    difference = onnx_difference(graph, model, multiple, channels)
    if not difference <= _TOLERANCE:
        raise TrainingError(f"torch and ONNX differ by {difference:.2g}, more than {_TOLERANCE}; nothing was written")
    out_folder = out_folder.absolute()
    out_folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{out_folder.name}.part.", dir=out_folder.parent))
    try:
        onnx.save(model, part / MODEL_FILE)
        card = ModelCard(
            name=name,
            generator=recipe.generator,
            lightness_scale=2 / 100,
            lightness_offset=-1.0,
            chroma_scale=recipe.chroma_scale * chroma_gain,
            size_multiple=multiple,
            sha256=file_sha256(part / MODEL_FILE),
            takes_palette=recipe.palette is not None,
            training=_story(run_folder, recipe, training, chroma_gain, note),
        )
        (part / CARD_FILE).write_text(card.to_json(), encoding="utf-8")
        for beside in _BESIDE:
            if (run_folder / beside).is_file():
                shutil.copyfile(run_folder / beside, part / beside)
        part.chmod(0o755)  # mkdtemp's folder is readable by its owner only
        put_folder(part, out_folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return find_model(str(out_folder))


def _story(
    run_folder: Path, recipe: Recipe, training: dict[str, Any], chroma_gain: float, note: str | None
) -> dict[str, Any]:
    """The training section of the card, without paths of the training machine."""
    values = recipe.model_dump(mode="json") | {"data": None}
    if isinstance(recipe.pretrained, str):
        values["pretrained"] = Path(recipe.pretrained).name
    story: dict[str, Any] = {"recipe": values, **training, "chroma_gain": chroma_gain}
    run = run_folder / "run.json"
    if run.is_file():
        told = json.loads(run.read_text(encoding="utf-8"))
        story |= {name: told[name] for name in ("seed", "data", "device", "packages")}
        each = max(1, told["data"]["pictures"] // told["processes"])
        epochs = recipe.schedule(each).epochs_at(training["steps"])
        story["epochs"] = round(epochs, 1)
    return story | ({"note": note} if note else {})


def load_generator(model: Model) -> nn.Module:
    """Load a model folder as a torch network in evaluation mode, batch norm folded, with exactly the exported weights.

    Raises
    ------
    TrainingError : the card names no generator of this package, or the weights do not fit it.
    """
    try:
        recipe = Recipe(**model.card.training["recipe"])
        graph = engine_graph(fold_batch_norm(build_generator(recipe).eval()), recipe)
        stored = onnx.load(model.onnx_path).graph.initializer
        weights = {i.name.removesuffix(".float16"): torch.tensor(numpy_helper.to_array(i)).float() for i in stored}
        graph.load_state_dict({name: weights[name] for name in graph.state_dict()})
    except (ImportError, KeyError, TypeError, RuntimeError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise TrainingError(f"{model.folder}: not an export of this package ({reason}); export it again") from error
    return graph
