"""A checkpoint in, a model folder out: ``model.onnx`` and ``card.json``.

The moving average of the generator is exported in evaluation mode, with batch, height and width left open. Batch norm
is folded into the convolutions first, and the folded weights are rounded to half precision there, in torch: what the
file stores as float16 is then exactly what the checked network computed with. Each stored weight is followed by a Cast
to float32, which runtimes fold when they load the file: it is half as large, and computation stays float32.

The exporter is torch's TorchScript one (``dynamo=False``): it needs no further package and makes a small, plain graph.
"""

from __future__ import annotations

import copy
import importlib
import io
import os
import pickle
import shutil
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from engines.spec import CARD_FILE, MODEL_FILE, Model, ModelCard, file_sha256, find_model
from training.config import Phase, Recipe
from training.data import find_photographs, is_test, load_pictures
from training.errors import TrainingError
from training.loop import CHECKPOINT, build

OPSET = 17
INPUT, OUTPUT = "lightness", "chroma"
_TOLERANCE = 1e-3  # of network output in [-1, 1]: a tenth of a unit of a*, b*
_SMALLEST_HALVED = 256  # elements; below it a cast node costs more than the bytes it saves


def load_average(folder: Path) -> tuple[nn.Module, Recipe, dict[str, Any]]:
    """The moving-average generator of a training run in evaluation mode, its recipe, and the run's step and seconds.

    Raises
    ------
    TrainingError : no checkpoint in ``folder``, or one that cannot be read.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        raise TrainingError(f"{folder}: no {CHECKPOINT}; give the --out folder of a training run")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        values = state["recipe"]
        recipe = Recipe(**{**values, "phases": tuple(Phase(**phase) for phase in values["phases"])})
        generator = build("generator", recipe.generator, recipe.generator_options)
        generator.load_state_dict(state["average"])
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError, ImportError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrainingError(f"{path}: not a checkpoint of this version ({reason}); train again") from error
    return generator.eval(), recipe, {"steps": state["step"], "seconds": round(state["seconds"])}


def size_multiple(generator: nn.Module) -> int:
    """Pixels that height and width must be multiples of: the network's own attribute, or its module's constant."""
    own = getattr(generator, "size_multiple", None)
    return int(own or importlib.import_module(type(generator).__module__).SIZE_MULTIPLE)


def fold_batch_norm(generator: nn.Module) -> nn.Module:
    """A copy with each batch norm that follows a convolution in an ``nn.Sequential`` folded into it."""
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
    """Round convolution weights, in place, to values that float16 holds; biases stay float32.

    Raises
    ------
    TrainingError : a weight beyond float16's 65504.
    """
    for name, weight in generator.named_parameters():
        if weight.ndim == 4:
            weight.copy_(weight.half().float())
            if not torch.isfinite(weight).all():
                raise TrainingError(f"{name} has a weight beyond 65504 once batch norm is folded; train longer")


def to_onnx(generator: nn.Module, multiple: int) -> onnx.ModelProto:
    """Trace a generator with open batch, height and width; all weights float32."""
    stream = io.BytesIO()
    example = torch.zeros(2, 1, 2 * multiple, 2 * multiple)
    axes = {0: "batch", 2: "height", 3: "width"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces that this exporter will not change any more
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
    """A copy whose large weights, where float16 holds them exactly, are float16 initializers followed by a Cast."""
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


def onnx_difference(generator: nn.Module, model: onnx.ModelProto, multiple: int) -> float:
    """Largest difference of torch and onnxruntime on a seeded random batch of another shape than the traced one."""
    shape = (3, 1, 3 * multiple, 2 * multiple)
    lightness = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = generator(torch.from_numpy(lightness)).numpy()
    return float(np.abs(session.run([OUTPUT], {INPUT: lightness})[0] - expected).max())


def describe_data(folder: Path) -> dict[str, Any]:
    """What a card says of the training photographs in ``folder``: counts, licences, sources."""
    photographs = [p for p in find_photographs(folder) if not is_test(p)]
    left_out = set(load_pictures(photographs)[1])
    used = [p for p in photographs if p.path not in left_out]
    return {
        "pictures": len(used),
        "photographs": len({p.group for p in used}),
        "left_out": len(left_out),
        "licences": dict(Counter(p.licence or "unknown" for p in used).most_common()),
        "sources": dict(Counter(p.source or "unknown" for p in used).most_common()),
    }


def _card_recipe(recipe: Recipe) -> dict[str, Any]:
    values = {**vars(recipe), "phases": [vars(phase) for phase in recipe.phases]}
    values["pretrained"] = Path(recipe.pretrained).name  # a card travels; folders of the training machine stay behind
    return values


def _put(part: Path, folder: Path) -> None:
    """Rename ``part`` to ``folder``, over an earlier model folder if there is one."""
    if folder.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
        os.replace(folder, old)
        os.replace(part, folder)
        shutil.rmtree(old)
    else:
        os.replace(part, folder)


def export(
    checkpoint_folder: Path, out_folder: Path, name: str, training: dict[str, Any], chroma_gain: float = 1.0
) -> Model:
    """Write ``model.onnx`` and ``card.json`` into ``out_folder``, whole or not at all.

    Parameters
    ----------
    checkpoint_folder : the ``out`` of a training run, finished or not
    out_folder : the model folder to make; an earlier model there is replaced
    name : the model's own name, for its card
    training : what the card shall say beside recipe, steps and seconds: ``data`` (see :func:`describe_data`), ``note``
    chroma_gain : what the network's chroma is multiplied by when it runs; below 1 a network that is too sure is calmed

    Raises
    ------
    TrainingError : no usable checkpoint, ``out_folder`` holds something else, or torch and ONNX disagree.
    """
    if out_folder.exists() and not (out_folder / CARD_FILE).is_file() and any(out_folder.iterdir()):
        raise TrainingError(f"{out_folder}: holds files but no model; give a new folder or one with a {CARD_FILE}")
    generator, recipe, run = load_average(checkpoint_folder)
    multiple = size_multiple(generator)
    generator = fold_batch_norm(generator)
    round_weights(generator)
    model = halve_weights(to_onnx(generator, multiple))
    onnx.checker.check_model(model, full_check=True)
    difference = onnx_difference(generator, model, multiple)
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
            training={"recipe": _card_recipe(recipe), **run, "chroma_gain": chroma_gain, **training},
        )
        (part / CARD_FILE).write_text(card.to_json(), encoding="utf-8")
        part.chmod(0o755)  # mkdtemp's own is for the owner alone
        _put(part, out_folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return find_model(str(out_folder))


def load_generator(model: Model) -> nn.Module:
    """A model folder back as a torch network in evaluation mode, batch norm folded: the exported weights to the bit.

    Raises
    ------
    TrainingError : the card names no generator of this package, or the weights are not its.
    """
    recipe = model.card.training.get("recipe", {})
    try:
        generator = fold_batch_norm(build("generator", model.card.generator, recipe.get("generator_options", {})))
        stored = onnx.load(model.onnx_path).graph.initializer
        weights = {i.name.removesuffix(".float16"): torch.tensor(numpy_helper.to_array(i)).float() for i in stored}
        generator.load_state_dict({name: weights[name] for name in generator.state_dict()})
    except (ImportError, KeyError, TypeError, RuntimeError) as error:
        raise TrainingError(f"{model.folder}: not an export of this package ({error}); export it again") from error
    return generator
