"""The training loop, top to bottom: ``colorize-archive train RECIPE --data DIR --out DIR`` (Isola et al., CVPR 2017).

A run writes to its folder: ``run.json`` (command, recipe, seed, data, versions), ``recipe.yaml``, ``checkpoint.pt``,
``losses.jsonl``, ``losses.csv``, ``curves.png``, ``tensorboard/``, ``samples/`` and, at the end, ``model/`` for
``colorize-archive run --model``. A run killed at any moment resumes from its last checkpoint and ends with the same
weights.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import logging
import math
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning_fabric import Fabric
from torch import Tensor

from training import checkpoint
from training.config import RUN_RECIPE, Film, Recipe, Schedule
from training.curves import draw_curves
from training.data import Batch, Collection, Subset, batches, make_batch, open_collection
from training.errors import RecipeError, TrainingError
from training.journal import LOSSES, Journal, write_csv
from training.losses import content_loss, saturation
from training.patience import Patience
from training.samples import grid, shrunk, write_grid
from training.trainer import Trainer
from training.watch import Show, Watch, unwatched

RUN = "run.json"
_REPORT_STEPS = 50
_VALIDATION_PICTURES = 64
_VALIDATION_PX = 64 * 256**2  # in all validation pictures together
_LEAST_VALIDATION_PICTURES = 3
_AT_ONCE_PX = 8 * 256**2
_BOARD_PX = 2048  # longest side of a picture in TensorBoard; the files have full size
_SAMPLE_PICTURES = 6
_PACKAGES = ("colorize-archive", "torch", "lightning-fabric", "numpy", "opencv-python-headless")


def train(
    recipe: Recipe,
    data: Path,
    out: Path,
    resume: bool = False,
    devices: int | None = None,
    report: Callable[[str], None] = print,
    show: Show = unwatched,
) -> Trainer:
    """Train ``recipe`` on the pictures of ``data`` that are not held out, into ``out``.

    Parameters
    ----------
    devices : processes to train with, one for each GPU; None is every GPU there is, or one process without any
    show : gets what the run is doing, from the first step on, for a line that is redrawn

    Raises
    ------
    DataError : no usable picture. RecipeError : ``out`` holds another run, or the recipe does not fit the data.
    TrainingError : a loss is not finite, or nothing can be written; the last checkpoint is kept.
    """
    # Fabric's own lines, such as "Using bfloat16 Automatic Mixed Precision", repeat ours.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    if out.resolve().is_relative_to(data.resolve()):
        raise RecipeError(
            f"{out}: lies in {data}, where its sample grids would be taken for photographs; give another --out"
        )
    if out.exists() and not out.is_dir():
        raise RecipeError(f"{out}: is a file, and a run needs a folder; give another --out")
    fabric = Fabric(devices=devices or "auto", strategy=_strategy(devices), precision=recipe.precision)
    fabric.launch()
    first = fabric.global_rank == 0
    report, watch = (report, Watch(show)) if first else (_silent, Watch(unwatched))
    watch.doing("looking through the photographs")
    collection = open_collection(data, subset=Subset.of(recipe))
    schedule = recipe.schedule(max(1, len(collection.train) // fabric.world_size))
    told = {"data_sha256": collection.sha256, "processes": fabric.world_size}
    state = _earlier(out, recipe, resume, told)
    trainer = Trainer(recipe, fabric, state)
    report(f"{len(collection.train)} training pictures, {len(collection.test)} held out from {data}; "
           f"{collection.describe()['left_out']} left out (see {RUN})")  # fmt: skip
    if not len(collection.test):
        report(
            "nothing is held out: there is no validation curve, and evaluate has nothing to measure; give more pictures"
        )
    if state is not None:
        report(f"continues at step {trainer.step} of {schedule.total_steps}")
    patience = Patience.of(recipe.patience, state, len(recipe.phases))
    if first and math.isinf(patience.best):
        (out / checkpoint.BEST).unlink(missing_ok=True)  # of an earlier last phase
    if recipe.patience is not None and not len(collection.test):
        raise RecipeError(
            f"patience {recipe.patience}: nothing is held out from {data}, so no evaluation would ever be better; give "
            "more pictures, or leave patience out"
        )
    if patience.is_over:
        report(f"nothing is left to do, it stopped early: {patience.reason}; a larger patience would go on from here")
        _draw_curves(out, recipe, first)
        return trainer
    if trainer.step >= schedule.total_steps:
        report("nothing is left to do; a longer phase or one more would go on from here")
        _draw_curves(out, recipe, first)
        return trainer
    report(f"starts from {trainer.started_from}, on {fabric.world_size} x {fabric.device.type}, {recipe.precision}")
    del state  # a second copy of all weights
    try:
        if first:
            out.mkdir(parents=True, exist_ok=True)
            _write_run(out, recipe, collection, trainer)
        with Journal(out if first else None, trainer.step, report) as journal:
            _Run(trainer, collection, schedule, out, told, journal, watch, patience).go()
    except OSError as error:
        raise TrainingError(
            f"{error.filename or out}: {error.strerror or error}; {_stands(out)}; make it "
            "possible to write there and go on with --resume"
        ) from error
    finally:
        _draw_curves(out, recipe, first)
    return trainer


def _draw_curves(out: Path, recipe: Recipe, first: bool) -> None:
    if first and (out / LOSSES).is_file():
        with contextlib.suppress(OSError):
            write_csv(out)
            draw_curves(out, recipe)


def _stands(out: Path) -> str:
    there = (out / checkpoint.CHECKPOINT).is_file()
    return f"the last checkpoint in {out} stands" if there else f"there is no checkpoint in {out} yet"


def _silent(_: str) -> None:
    """Only the first of several processes prints."""


def _strategy(devices: int | None) -> Any:
    if (devices or torch.cuda.device_count()) < 2:
        return "auto"
    from lightning_fabric.strategies import DDPStrategy

    # The discriminator runs forward twice before it runs backward: its buffers must not change in between.
    return DDPStrategy(forward_sync_buffers=False)


def _earlier(out: Path, recipe: Recipe, resume: bool, told: dict[str, Any]) -> dict[str, Any] | None:
    """The state to resume from; None for a new run."""
    if not (out / checkpoint.CHECKPOINT).is_file():
        if resume:
            raise RecipeError(f"{out}: no checkpoint to go on from; begin without --resume, or give the --out of a run")
        if (out / RUN_RECIPE).is_file() and not (out / RUN).is_file():
            raise RecipeError(
                f"{out}: has a {RUN_RECIPE} of its own, which the run's would replace; give another --out"
            )
        return None
    state = checkpoint.load(out)
    if not resume:
        raise RecipeError(
            f"{out}: holds a run at step {state['step']}, which would be lost; go on with --resume, or give a new --out"
        )
    checkpoint.check_same(out, state, recipe, told)
    return state


def _write_run(out: Path, recipe: Recipe, collection: Collection, trainer: Trainer) -> None:
    """Record beside the weights everything needed to reproduce them."""
    run = {
        "command": " ".join(["colorize-archive", *sys.argv[1:]]),
        "recipe": recipe.model_dump(mode="json"),
        "seed": recipe.seed,
        "data": collection.describe(),
        "left_out": [{"file": str(left.path), "reason": left.reason} for left in collection.left_out],
        "started_from": trainer.started_from,
        "device": torch.cuda.get_device_name() if trainer.fabric.device.type == "cuda" else platform.machine(),
        "processes": trainer.fabric.world_size,
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }
    text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    for name, content in ((RUN, json.dumps(run, indent=2, ensure_ascii=False) + "\n"), (RUN_RECIPE, text)):
        part = out / f"{name}.part"
        part.write_text(content, encoding="utf-8")
        os.replace(part, out / name)


@dataclass(frozen=True)
class _Run:
    """One run of the loop: trainer, data, length and folder."""

    trainer: Trainer
    collection: Collection
    schedule: Schedule
    out: Path
    told: dict[str, Any]
    journal: Journal
    watch: Watch
    patience: Patience

    def go(self) -> None:
        with _interrupts(self.trainer.fabric.world_size == 1) as interrupted:
            self._go(interrupted)

    def _go(self, interrupted: threading.Event) -> None:
        trainer, schedule = self.trainer, self.schedule
        self.watch.doing("reading the pictures that are held out")
        held_out = _held_out(self.collection, schedule)
        started = time.monotonic() - trainer.seconds
        for batch in _batches(trainer, self.collection, schedule):
            step, phase = trainer.step, schedule.phase_at(trainer.step)
            lightness, colour = _to_device(trainer.fabric, batch)
            rate, learns = schedule.rate_at(step), schedule.learns_at(step)
            self.journal.add(trainer.train_step(lightness, colour, phase, rate, learns))
            self.watch.stepped(trainer.step, schedule.total_steps, len(lightness), self.journal.means)
            epoch, last = schedule.ends_epoch(step), step + 1 == schedule.total_steps
            if trainer.step % _REPORT_STEPS == 0 or epoch is not None:
                self._refuse_nonfinite()
                trainer.seconds = time.monotonic() - started
                self._report(held_out if epoch is not None else None)
            if epoch is not None and held_out is not None and (last or epoch in trainer.recipe.sample_epochs):
                _keep_samples(trainer, held_out, self.out, epoch, self.journal)
            stopping, early = interrupted.is_set(), epoch is not None and self._any(self.patience.is_over)
            if trainer.step % trainer.recipe.checkpoint_steps == 0 or last or stopping or early:
                self._refuse_nonfinite()
                trainer.seconds = time.monotonic() - started
                self._save()
            if early and not last:
                self._end_early(held_out, epoch)
                return
            if stopping and not last:
                raise KeyboardInterrupt(trainer.step)

    def _end_early(self, held_out: Batch | None, epoch: int | None) -> None:
        trainer = self.trainer
        if held_out is not None and epoch is not None and epoch not in trainer.recipe.sample_epochs:
            _keep_samples(trainer, held_out, self.out, epoch, self.journal)
        self.journal.tell(f"stops early at step {trainer.step} of {self.schedule.total_steps}: {self.patience.reason}")

    def _report(self, held_out: Batch | None) -> None:
        trainer, done = self.trainer, self.trainer.step
        more = {"learning_rate": trainer.recipe.learning_rate * self.schedule.rate_at(done - 1)}
        if held_out is not None:
            self.watch.doing("validating")
            more |= _validate(trainer, held_out)
            more |= self._judge(more["validation"])
        epochs = self.schedule.epochs_at(done)
        means = self.journal.write(done, epochs, trainer.seconds, more)
        self.journal.watch(done, means)
        self.journal.say(done, self.schedule.total_steps, epochs, trainer.seconds, {**means, **more})

    def _judge(self, validation: float) -> dict[str, float]:
        """Keep the weights if they are the best of the last phase: losses of phases with other aims do not compare."""
        step, last = self.trainer.step, self.schedule.recipe.phases[-1]
        if self.patience.evaluations is None or self.schedule.phase_at(step - 1) is not last:
            return {}
        if self.patience.judge(step, validation):
            self._save(checkpoint.BEST)
        return {"best_validation": self.patience.best}

    def _refuse_nonfinite(self) -> None:
        """Stop all processes before a value that is not finite is saved: a single one going on would wait for ever."""
        bad = [name for name, value in self.journal.means().items() if not math.isfinite(value)]
        bad += [] if self.trainer.is_finite() else ["weights"]
        if self._any(bool(bad)):
            raise TrainingError(
                f"step {self.trainer.step}: {bad[0] if bad else 'a loss'} not finite; {_stands(self.out)}; train with "
                "a lower learning_rate or precision=32-true in a new --out"
            )

    def _save(self, name: str = checkpoint.CHECKPOINT) -> None:
        self.watch.doing("saving a checkpoint")
        failure: TrainingError | None = None
        if self.trainer.fabric.global_rank == 0:
            try:
                checkpoint.save(self.out, self.trainer.state() | self.told | self.patience.state(), name)
            except TrainingError as error:
                failure = error
        if self._any(failure is not None):
            raise failure or TrainingError("the first process could not write its checkpoint")

    def _any(self, here: bool) -> bool:
        """True if ``here`` is true in any process."""
        fabric = self.trainer.fabric
        if fabric.world_size == 1:
            return here
        return bool(fabric.all_reduce(torch.tensor(float(here), device=fabric.device), reduce_op="sum") > 0)


@contextlib.contextmanager
def _interrupts(is_alone: bool) -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C sets, to stop after the current step; a second Ctrl-C stops at once.

    Several processes would each stop at a different step, so there every Ctrl-C stops at once.
    """
    interrupted = threading.Event()
    if not is_alone or threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    before = signal.getsignal(signal.SIGINT)

    def wait_for_step(*_: object) -> None:
        interrupted.set()
        signal.signal(signal.SIGINT, before)

    # None means a handler not set from Python, which could not be restored.
    if before in (None, signal.SIG_IGN):
        yield interrupted
        return
    signal.signal(signal.SIGINT, wait_for_step)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


def _batches(trainer: Trainer, collection: Collection, schedule: Schedule) -> Iterator[Batch]:
    """The batches of this process, drawn from its own seed."""
    rank = trainer.fabric.global_rank
    if rank:
        recipe = schedule.recipe.model_copy(update={"seed": schedule.recipe.seed + 1_000_003 * rank})
        schedule = recipe.schedule(schedule.pictures)
    return batches(collection.train, schedule, trainer.step)


def _to_device(fabric: Fabric, batch: Batch) -> tuple[Tensor, Tensor]:
    lightness, colour = (
        torch.as_tensor(part).to(fabric.device, non_blocking=True, memory_format=torch.channels_last)
        for part in (batch.lightness, batch.colour)
    )
    return lightness, colour


def _held_out(collection: Collection, schedule: Schedule) -> Batch | None:
    """A fixed batch of held-out pictures, the sample pictures first; None if there are none.

    They have the crop size of the last phase; the larger they are, the fewer.
    """
    last = schedule.recipe.phases[-1]
    fitting = max(_LEAST_VALIDATION_PICTURES, _VALIDATION_PX // math.prod(last.crop_px))
    count = min(_VALIDATION_PICTURES, fitting, len(collection.test))
    if not count:
        return None
    phase = last.model_copy(update={"batch": count})
    clean = schedule.recipe.model_copy(update={"crop": "whole", "film": Film(), "flip": False})
    return make_batch(collection.test, clean, phase, 0)


def _validate(trainer: Trainer, held_out: Batch) -> dict[str, float]:
    losses, chroma, count = 0.0, 0.0, len(held_out.lightness)
    at_once = max(1, _AT_ONCE_PX // math.prod(held_out.lightness.shape[2:]))
    for start in range(0, count, at_once):
        part = slice(start, start + at_once)
        truth = torch.as_tensor(held_out.colour[part]).to(trainer.fabric.device)
        fake = trainer.predict(torch.as_tensor(held_out.lightness[part]))
        losses += _content(trainer.recipe, fake, truth).item() * len(truth) / count
        chroma += (saturation(fake).mean() / saturation(truth).mean()).item() * len(truth) / count
    return {"validation": losses, "validation_chroma": chroma}


def _content(recipe: Recipe, fake: Tensor, truth: Tensor) -> Tensor:
    return content_loss(recipe.content_loss, fake, truth, chroma_scale=recipe.chroma_scale)


def _keep_samples(trainer: Trainer, held_out: Batch, out: Path, epoch: int, journal: Journal) -> None:
    if trainer.fabric.global_rank:
        return
    lightness = torch.as_tensor(held_out.lightness[:_SAMPLE_PICTURES])
    truth = torch.as_tensor(held_out.colour[:_SAMPLE_PICTURES])
    generated = torch.cat([trainer.predict(each) for each in lightness.split(1)])
    pixels = grid(lightness[:, :1], generated, truth, trainer.recipe)
    write_grid(out / "samples" / f"epoch_{epoch:03}.png", pixels)
    journal.picture("gray, generated, truth", shrunk(pixels, _BOARD_PX), trainer.step)
