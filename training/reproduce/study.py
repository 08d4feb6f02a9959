"""Trains variants of recipes within a given time, and measures them on pictures that they never saw.

Two steps of each variant are timed, and the number of pictures follows from the report's number of epochs. The epochs
are reduced only if there would be too few pictures to learn from. The plan is kept in ``plan.json``, so that a stopped
page resumes as it began.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from engines.spec import Model, find_model
from training import checkpoint
from training.config import Recipe, load_recipe
from training.data import Subset
from training.errors import RecipeError, TrainingError
from training.evaluation import Row, evaluate
from training.export import export
from training.journal import LOSSES, read_losses
from training.loop import train
from training.trainer import Trainer

PLAN = "plan.json"
_TRAINING_SHARE = 0.6  # of the time; the rest is for reading, validation, measuring and drawing
_LEAST_PICTURES = 40  # to learn from; instead of fewer pictures there are fewer epochs
_MEASURED = 60
_PACKED_A_MINUTE = 60
_MOST_PACKED = 25_000


@dataclass(frozen=True)
class Request:
    """The user's request.

    Attributes
    ----------
    data : folder of colour photographs, of any layout that training reads
    out : folder for the page, its runs and its pictures
    minutes : approximate time for training and measuring; ignored with ``full``
    full : the report's own number and size of pictures, and its epochs
    folders : only pictures in such folders of ``data``, see :class:`training.data.Subset`
    historic : folder of photographs without colours
    unseen : folder of colour photographs from elsewhere
    answers : folder of results that people saved from the quiz
    """

    data: Path
    out: Path
    minutes: float = 10.0
    full: bool = False
    folders: tuple[str, ...] = ()
    historic: Path | None = None
    unseen: Path | None = None
    answers: Path | None = None


@dataclass(frozen=True)
class Variant:
    """A recipe by name, the changes to it, and further changes for a page made in minutes."""

    recipe: str
    changes: tuple[str, ...] = ()
    small: tuple[str, ...] = ()
    data: Path | None = None  # instead of the request's


@dataclass(frozen=True)
class Trained:
    """A variant after its training."""

    name: str
    recipe: Recipe
    folder: Path
    model: Model
    data: Path

    @property
    def losses(self) -> list[dict[str, float]]:
        return read_losses(self.folder / LOSSES)

    @property
    def curves(self) -> Path:
        return self.folder / "curves.png"


@dataclass(frozen=True)
class _Plan:
    """What fits into the time: values for all variants, and the changes to each variant's recipe."""

    pictures: int | None
    epochs_share: float
    minutes: float
    full: bool
    changes: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass
class Study:
    """The training and measuring for one page."""

    system: str
    request: Request
    report: Callable[[str], None]
    notes: list[str] = field(default_factory=list)

    def train(self, variants: Mapping[str, Variant]) -> dict[str, Trained]:
        """Train all variants one after the other, each in its own folder below ``runs``; finished runs are kept."""
        self.request.out.mkdir(parents=True, exist_ok=True)
        plan = self._plan(variants)
        self.notes += plan.notes
        return {name: self._train(name, variants[name], tuple(plan.changes[name])) for name in variants}

    def _train(self, name: str, variant: Variant, changes: tuple[str, ...]) -> Trained:
        recipe = load_recipe(variant.recipe, changes)
        folder = self.request.out / "runs" / _file_name(name)
        data = variant.data or self.request.data
        self.report(f"== {name}")
        train(recipe, data, folder, resume=(folder / checkpoint.CHECKPOINT).is_file(), report=self.report)
        model = export(folder, folder / "model", name)
        return Trained(name, recipe, folder, find_model(str(model.folder)), data)

    def measure(
        self,
        trained: Mapping[str, Trained],
        place: str,
        data: Path | None = None,
        short_side_px: int | None = None,
    ) -> list[Row]:
        """Rows for gray, a flat tint and every model, on held-out pictures or on all of the unseen ``data``.

        Tables, sheets and a quiz are written to the folder ``place``.
        """
        one = next(iter(trained.values()))
        side_px = short_side_px or min(one.recipe.phases[-1].crop_px)
        return evaluate(
            [each.model for each in trained.values()],
            data or one.data,
            self.request.out / place,
            limit=None if self.request.full else _MEASURED,
            short_side_px=side_px,
            subset=None if data else Subset.of(one.recipe),
            everything=data is not None,
            report=self.report,
        )

    def _plan(self, variants: Mapping[str, Variant]) -> _Plan:
        path = self.request.out / PLAN
        if path.is_file():
            plan = _read(path)
            if set(plan.changes) != set(variants) or (plan.minutes, plan.full) != (self._minutes, self.request.full):
                raise RecipeError(
                    f"{self.request.out}: holds a page that was begun with other settings; give those, or a new --out"
                )
            return plan
        plan = self._fitting(variants)
        part = path.with_name(f"{PLAN}.part")
        part.write_text(json.dumps(asdict(plan), indent=2) + "\n", encoding="utf-8")
        os.replace(part, path)
        return plan

    @property
    def wanted_pictures(self) -> int:
        """Number of pictures that the page's recipe asks for, or that some minutes of training could use."""
        if self.request.full:
            return load_recipe(self.system).pictures or _MOST_PACKED
        return max(_LEAST_PICTURES * 5 // 4, round(_PACKED_A_MINUTE * self.request.minutes))

    @property
    def _minutes(self) -> float:
        return 0.0 if self.request.full else self.request.minutes

    def _fitting(self, variants: Mapping[str, Variant]) -> _Plan:
        notes: list[str] = []
        folders = (f"folders={json.dumps(list(self.request.folders))}",) if self.request.folders else ()
        changes = {
            name: [*variant.changes, *(() if variant.data else folders), *(() if self.request.full else variant.small)]
            for name, variant in variants.items()
        }
        seconds = 0.0  # per picture, for all variants together
        for name, variant in variants.items():
            recipe = load_recipe(variant.recipe, tuple(changes[name]))
            trainer, lacking = _trainer(recipe)
            if lacking:
                changes[name].append("pretrained=null")
                notes.append(f"{name} begins with random weights: {lacking.partition('; ')[0]}.")
            if not self.request.full:
                seconds += _seconds_a_picture(trainer)
        if self.request.full:
            return _Plan(None, 1.0, 0.0, True, changes, notes)
        affordable = 60 * self.request.minutes * _TRAINING_SHARE / seconds
        share = min(1.0, affordable / _LEAST_PICTURES)
        learnt = max(_LEAST_PICTURES, int(affordable))
        pictures = min([learnt * 5 // 4, *(load_recipe(v.recipe).pictures or math.inf for v in variants.values())])
        for name, variant in variants.items():
            recipe = load_recipe(variant.recipe, tuple(changes[name]))
            changes[name] += [f"pictures={int(pictures)}", *_shortened(recipe, share)]
        self.report(
            f"{seconds:.3f} s for each picture and all its epochs: {int(pictures)} pictures, {share:.0%} of the epochs"
        )
        return _Plan(int(pictures), share, self._minutes, False, changes, notes)

    def intro(self, trained: Mapping[str, Trained]) -> list[str]:
        """The introduction of every page: the report, what was trained, and how it differs from the report."""
        one = next(iter(trained.values()))
        record = json.loads((one.folder / "run.json").read_text(encoding="utf-8"))
        pictures = record["data"]["pictures"]
        height, width = one.recipe.phases[-1].crop_px
        lengths = sorted({sum(phase.epochs or 0 for phase in each.recipe.phases) for each in trained.values()})
        epochs = " or ".join(f"{length:g}" for length in lengths)
        seconds = sum(checkpoint.load(each.folder)["seconds"] for each in trained.values())
        reported = load_recipe(one.recipe.name)
        size = " x ".join(map(str, dict.fromkeys(reported.phases[-1].crop_px)))
        said = (
            f"Learnt from {pictures} pictures of {height} x {width} px for {epochs} epoch{'s' * (lengths != [1])}; "
            f"{len(trained)} run{'s' * (len(trained) > 1)} took {seconds / 60:.1f} minutes. "
        )
        if not self.request.full:
            said += (
                f"This is a small copy of the report's {reported.pictures or 'own'} pictures of {size} px and "
                f"{sum(phase.epochs or 0 for phase in reported.phases):g} epochs, with narrower networks: read what "
                "differs between rows, not how good they are."
            )
        command = " ".join(["colorize-archive", *map(shlex.quote, sys.argv[1:])])
        report = one.recipe.source.partition(", system")[0] or self.system
        return [f"Report: {report}.", said, *self.notes, f"Made by: {command}"]


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in name)


def _read(path: Path) -> _Plan:
    try:
        return _Plan(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise RecipeError(f"{path}: not a plan of this version; remove it, or give a new --out") from error


def _trainer(recipe: Recipe) -> tuple[Trainer, str]:
    """A trainer for some steps, and why it lacks published weights that the recipe asks for."""
    fabric = Fabric(devices=1, precision=recipe.precision)
    try:
        return Trainer(recipe, fabric), ""
    except TrainingError as error:
        if recipe.pretrained is None:
            raise
        return Trainer(recipe.model_copy(update={"pretrained": None}), fabric), str(error)


def _seconds_a_picture(trainer: Trainer) -> float:
    """Seconds for all epochs of one picture, estimated from the second of two steps of each phase."""
    seconds = 0.0
    recipe = trainer.recipe
    for phase in recipe.phases:
        shape = (phase.batch, 1, *phase.crop_px)
        lightness = torch.rand(shape, device=trainer.fabric.device) * 2 - 1
        colour = torch.rand(phase.batch, recipe.output_channels, *phase.crop_px, device=trainer.fabric.device) - 0.5
        for _ in range(2):
            started = time.perf_counter()
            losses = trainer.train_step(lightness, colour, phase, 1.0)
            losses["content"].item()  # waits for the device
            elapsed = time.perf_counter() - started
        seconds += elapsed * (phase.epochs or 0) / phase.batch
    return seconds


def _shortened(recipe: Recipe, share: float) -> list[str]:
    """Changes that multiply a recipe's epochs, and its sample epochs, by ``share``."""
    if share >= 1:
        return []
    changes = [
        f"phases.{i}.epochs={max(1, round((phase.epochs or 0) * share))}" for i, phase in enumerate(recipe.phases)
    ]
    if recipe.sample_epochs:
        total = sum(max(1, round((phase.epochs or 0) * share)) for phase in recipe.phases)
        kept = sorted({min(total, max(1, round(epoch * share))) for epoch in recipe.sample_epochs})
        changes.append(f"sample_epochs={kept}")
    return changes


def settings(**values: Any) -> tuple[str, ...]:
    """``phases__0__crop_px=64`` as the change ``phases.0.crop_px=64``."""
    return tuple(f"{name.replace('__', '.')}={json.dumps(value)}" for name, value in values.items())
