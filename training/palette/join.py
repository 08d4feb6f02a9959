"""Join a generator and a palette network into one model folder for ``run --model``."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path
from typing import Any

from engines.spec import CARD_FILE, INT8_FILE, MODEL_FILE, SHARED, Model, find_model
from training.errors import TrainingError
from training.export import put_folder
from training.palette.export import palette_card, write_head
from training.palette.learn import load_head


def join(
    generator: Model,
    palette_run: Path,
    stem: Path,
    out: Path,
    name: str,
    temperature: float,
    gain: float,
    story: dict[str, Any],
    shares_stem: bool = False,
) -> Model:
    """Write ``model.onnx``, ``palette.onnx``, the stem and ``card.json`` into ``out``, whole or not at all.

    Parameters
    ----------
    generator : a model that takes a palette
    palette_run : the folder of a finished palette run
    stem : the ONNX file that the head was trained on
    temperature, gain : how the distribution is read, as chosen by :mod:`training.palette.choose`
    story : the card's section on the palette's training
    shares_stem : keep the stem in the folder shared by shipped models, not in ``out``

    Raises
    ------
    TrainingError : the generator takes no palette, or the run has no checkpoint.
    """
    if not generator.card.takes_palette:
        raise TrainingError(f"model {generator.card.name} takes no palette; train the recipe generator first")
    head, bins, recipe = load_head(palette_run)
    place = SHARED if shares_stem else None
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}.part.", dir=out.parent))
    try:
        copy = (place or part) / stem.name
        if not copy.is_file():
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(stem, copy)
        card = palette_card(stem, write_head(part, head), recipe.cells, bins, temperature, gain)
        shutil.copyfile(generator.onnx_path, part / MODEL_FILE)
        if generator.card.int8_sha256:  # the same generator in int8
            shutil.copyfile(generator.folder / INT8_FILE, part / INT8_FILE)
        told = {"generator": generator.card.training, "palette": story}
        joined = dataclasses.replace(generator.card, name=name, palette=card, training=told)
        (part / CARD_FILE).write_text(joined.to_json(), encoding="utf-8")
        part.chmod(0o755)  # mkdtemp's folder is readable by its owner only
        put_folder(part, out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return find_model(str(out))
