"""All steps of ``colorize-archive train palette``: features, head, reading, doubt, and a model for ``run``.

Features and head can be stopped and resumed. The last steps run the whole model, generator included, on the photographs
reserved for them.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from engines.machine import processors
from engines.spec import CARD_FILE, Model, find_model
from pipeline.palettes.doubt import Calibration, calibrated
from training.checkpoint import CHECKPOINT
from training.data import Collection, open_collection
from training.errors import RecipeError, TrainingError
from training.journal import LOSSES, read_losses
from training.palette.bins import Bins
from training.palette.choose import Reading, best, errors_at, readings
from training.palette.export import read_head, write_stem
from training.palette.features import Half, fill
from training.palette.join import join
from training.palette.learn import Lesson, learn, length_of, load_head, stopping_of
from training.palette.measured import errors_and_spreads
from training.palette.network import PaletteHead
from training.palette.published import Weights, published_file, read_weights
from training.palette.recipe import PaletteRecipe
from training.palette.transformer import BLOCKS
from training.palette.verdict import Verdict
from training.palette.views import Views
from training.watch import Show, Watch, unwatched

FEATURES = "features"
_MOST_KEPT = 400


def train_palette(
    recipe: PaletteRecipe,
    data: Path,
    out: Path,
    resume: bool = False,
    *,
    generator: str = "default",
    features: Path | None = None,
    weights: Path | None = None,
    report: Callable[[str], None] = print,
    show: Show = unwatched,
) -> Model:
    """Train a palette head on the pictures of ``data`` that are not held out, and join it with a generator.

    Parameters
    ----------
    generator : the model whose generator is joined with the head
    features : folder for the cached features, by default ``out/features``; several runs on the same data may share it
    weights : DINOv2's file, by default that of the installed package; not needed if ``recipe`` names a start
    show : gets what the run is doing, for a line that is redrawn

    Raises
    ------
    DataError : no usable picture. RecipeError : ``out`` holds a run, and ``resume`` was not given. TrainingError : the
        features are of other data, or the weights are missing.
    """
    joined = find_model(generator)  # before the work
    if not joined.card.takes_palette:
        raise TrainingError(
            f"model {joined.card.name}: its generator takes no palette, so the two would not fit; "
            "train the recipe generator"
        )
    begun = (out / CHECKPOINT).is_file()
    if begun and not resume:
        raise RecipeError(f"{out}: holds a run, which would be lost; go on with --resume, or give a new --out")
    if resume and not out.is_dir():
        raise RecipeError(f"{out}: nothing to go on from; leave out --resume")
    stem, published, start = _beginning(recipe, features or out / FEATURES, weights)
    watch = Watch(show)
    report(f"looking through {data}")
    watch.doing("looking through the photographs")
    collection = open_collection(data)
    report(f"{len(collection.train)} training pictures, {len(collection.test)} held out")
    views, folder = Views(recipe.cells, recipe.film, recipe.seed), features or out / FEATURES
    wanted: list[tuple[Half, int]] = [("train", number) for number in range(recipe.views)]
    fill(folder, collection, views, stem, (*wanted[:1], ("test", 0), *wanted[1:]), report, show)
    lesson = Lesson.of(folder, list(collection.train.photographs), recipe)
    _write_run(out, recipe, collection, lesson)
    learn(recipe, lesson, published, out, start, report, watch)
    return finish(recipe, collection, lesson, out, joined, stem, report, watch=watch)


def _beginning(
    recipe: PaletteRecipe, features: Path, weights: Path | None
) -> tuple[Path, Weights, tuple[PaletteHead, Bins] | None]:
    """The stem's file, the published weights if they are needed, and the head to continue from."""
    if recipe.start:
        model = find_model(recipe.start)
        return model.palette_paths()[0], {}, read_head(model)
    published = read_weights(published_file(weights))
    return write_stem(features, BLOCKS - recipe.trained_blocks, recipe.cells, published), published, None


def finish(
    recipe: PaletteRecipe,
    collection: Collection,
    lesson: Lesson,
    out: Path,
    generator: Model,
    stem: Path,
    report: Callable[[str], None] = print,
    name: str | None = None,
    to: Path | None = None,
    shares_stem: bool = False,
    watch: Watch | None = None,
) -> Model:
    """Choose the reading of the trained head in ``out``, calibrate its doubt, and write the model to ``to``."""
    watch = watch or Watch(unwatched)
    watch.doing("choosing temperature and gain on kept pictures")
    head, bins, _ = load_head(out)
    kept = lesson.kept if len(lesson.kept) else lesson.learnt
    reading = best(readings(head, bins, lesson.folder, "train", kept), recipe.least_chroma)
    report(
        f"kept pictures: {reading.below_gray:.1f} % below gray at {reading.chroma:.2f} of the true chroma, "
        f"with temperature {reading.temperature} and gain {reading.gain}"
    )
    if len(collection.test):
        watch.doing("measuring held-out pictures")
        verdict = _judge(recipe, head, bins, reading, lesson, [each.group for each in collection.test.photographs])
        verdict.write(out)
        for line in verdict.markdown().split("\n"):
            report(line)
    story = _story(recipe, collection, out, reading, lesson)
    target = to or out / "model"
    watch.doing("writing the model")
    model = join(
        generator, out, stem, target, name or recipe.name, reading.temperature, reading.gain, story, shares_stem
    )
    watch.doing("calibrating doubt on kept pictures")
    return _with_doubt(recipe, model, collection, kept[:_MOST_KEPT], report)


def _judge(
    recipe: PaletteRecipe, head: PaletteHead, bins: Bins, reading: Reading, lesson: Lesson, groups: Sequence[str]
) -> Verdict:
    """Compare the new head with the one it began with, on held-out pictures of the photographs ``groups``."""
    folder, rows = lesson.folder, np.arange(len(groups))
    new = errors_at(head, bins, folder, "test", rows, reading.temperature, reading.gain)
    if recipe.start is None:
        return Verdict.of(groups, new, None, None)
    model = find_model(recipe.start)
    card = model.card.palette
    assert card is not None
    before = errors_at(*read_head(model), folder, "test", rows, card.temperature, card.gain)
    return Verdict.of(groups, new, model.card.name, before)


def _with_doubt(
    recipe: PaletteRecipe, model: Model, collection: Collection, kept: Any, report: Callable[[str], None]
) -> Model:
    """The model with its doubt calibrated on the kept pictures, written to its card."""
    report(f"calibrating doubt on {len(kept)} kept pictures")
    with ThreadPoolExecutor(processors()) as pool:
        pictures = list(pool.map(lambda i: collection.train.read(int(i)), kept))
    measured = errors_and_spreads(model, pictures)
    try:
        scans = calibrated(measured.scan_spreads, measured.scan_errors)
        cells = calibrated(measured.cell_spreads, measured.cell_errors, 24)
    except ValueError as error:
        begun = find_model(recipe.start).card.palette if recipe.start else None
        if begun is None or not begun.scan_doubt:
            report(f"doubt stays uncalibrated: {error}")
            return model
        report(f"{len(pictures)} kept pictures are too few to measure doubt on: it stays as {recipe.start} has it")
        return _with_lines(model, begun.scan_doubt, begun.cell_doubt)
    return _with_lines(model, _line(scans), _line(cells))


def _with_lines(model: Model, scans: tuple[tuple[float, ...], ...], cells: tuple[tuple[float, ...], ...]) -> Model:
    assert model.card.palette is not None
    palette = dataclasses.replace(model.card.palette, scan_doubt=scans, cell_doubt=cells)
    card = dataclasses.replace(model.card, palette=palette)
    part = model.folder / f"{CARD_FILE}.part"
    part.write_text(card.to_json(), encoding="utf-8")
    os.replace(part, model.folder / CARD_FILE)
    return find_model(str(model.folder))


def _line(calibration: Calibration) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(round(v, 4) for v in line) for line in dataclasses.astuple(calibration))


def _write_run(out: Path, recipe: PaletteRecipe, collection: Collection, lesson: Lesson) -> None:
    out.mkdir(parents=True, exist_ok=True)
    run = {
        "recipe": recipe.model_dump(mode="json"),
        "data": collection.describe(),
        "learnt": len(lesson.learnt),
        "kept": len(lesson.kept),
    }
    part = out / "run.json.part"
    part.write_text(json.dumps(run, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, out / "run.json")


def _story(
    recipe: PaletteRecipe, collection: Collection, out: Path, reading: Reading, lesson: Lesson
) -> dict[str, Any]:
    """The card's section on the palette's training; licences and sources are those of the pictures used."""
    used = [collection.train.photographs[int(i)] for i in (*lesson.learnt, *lesson.kept)]
    counts: dict[str, dict[str, int]] = {"licences": {}, "sources": {}}
    for photograph in used:
        for key, value in (("licences", photograph.licence), ("sources", photograph.source)):
            counts[key][value or "unknown"] = counts[key].get(value or "unknown", 0) + 1
    lines = read_losses(out / LOSSES)
    steps, seconds = length_of(out)
    if not used:
        raise TrainingError("no picture was learnt from")
    early = (
        {"early_stop": stopping_of(out).record(int(lines[-1]["step"]) if lines else 0)}
        if recipe.patience is not None
        else {}
    )
    return {
        "recipe": recipe.model_dump(mode="json"),
        "steps": steps,
        "seconds": round(seconds),
        "pictures": len(lesson.learnt),
        "kept": len(lesson.kept),
        "data_sha256": collection.sha256,
        **{key: dict(sorted(value.items(), key=lambda item: -item[1])) for key, value in counts.items()},
        "chosen": dataclasses.asdict(reading),
        **early,
    }
