"""Train a palette head on cached features: ``colorize-archive train palette --data DIR --out DIR``.

A run writes ``checkpoint.pt``, ``bins.npz``, ``losses.jsonl`` and ``losses.csv``; one with patience ``best.pt``, too,
the checkpoint of its best evaluation. It may be stopped at any time and resumes from its last checkpoint.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.checkpoint import BEST, CHECKPOINT, save
from training.data.files import Photograph
from training.difference import chroma_difference
from training.errors import RecipeError, TrainingError
from training.journal import LOSSES, forget_after, write_csv
from training.palette.bins import Bins, SoftBins
from training.palette.features import FeatureCache, is_filled, opened
from training.palette.network import PaletteHead
from training.palette.published import Weights
from training.palette.recipe import PaletteRecipe
from training.patience import Patience
from training.watch import Watch, unwatched

_KEPT_OF = 12
_MOST_JUDGED = 512
_SECONDS_BETWEEN_LINES = 20.0


def is_kept(photograph: Photograph) -> bool:
    """True for the twelfth of the training photographs that is reserved to choose temperature, gain and doubt."""
    return hashlib.sha256(photograph.group.encode()).digest()[1] % _KEPT_OF == 0


@dataclass(frozen=True)
class Lesson:
    """The features of the training half, and which of their rows are used.

    Attributes
    ----------
    learnt, kept : rows to train on, and rows to choose settings by
    """

    folder: Path
    pictures: int
    learnt: NDArray[np.int64]
    kept: NDArray[np.int64]

    @classmethod
    def of(cls, folder: Path, photographs: list[Photograph], recipe: PaletteRecipe) -> Lesson:
        usable = [i for i, p in enumerate(photographs) if recipe.licences == "all" or p.is_free]
        learnt = [i for i in usable if not is_kept(photographs[i])]
        kept = [i for i in usable if is_kept(photographs[i])]
        if not learnt:
            raise TrainingError("no picture is left to learn from; with licences: clean, say licences in MANIFEST.tsv")
        return cls(folder, len(photographs), np.array(learnt, np.int64), np.array(kept, np.int64))

    def views(self, recipe: PaletteRecipe) -> list[FeatureCache]:
        """The views that are complete."""
        numbers = [n for n in range(recipe.views) if is_filled(self.folder, "train", n, self.pictures)]
        return [opened(self.folder, "train", number) for number in numbers]


def learn(
    recipe: PaletteRecipe,
    lesson: Lesson,
    weights: Weights,
    out: Path,
    start: tuple[PaletteHead, Bins] | None = None,
    report: Callable[[str], None] = print,
    watch: Watch | None = None,
) -> PaletteHead:
    """Train, or resume from a checkpoint in ``out``; returns the moving average in evaluation mode.

    Parameters
    ----------
    start : a head to continue from, and its bins; by default the published blocks and a new head

    Raises
    ------
    RecipeError : the recipe has patience, and no picture is kept to evaluate on.
    """
    if recipe.patience is not None and not len(lesson.kept):
        raise RecipeError(
            f"patience {recipe.patience}: of {len(lesson.learnt)} pictures none is kept to evaluate on, so no "
            "evaluation would ever be better; give more pictures, or leave patience out"
        )
    watch = watch or Watch(unwatched)
    watch.doing("counting the colours")
    out.mkdir(parents=True, exist_ok=True)
    bins = _bins(out, lesson, recipe, start[1] if start else None)
    head = PaletteHead(len(bins.centres), recipe.cells, recipe.trained_blocks, recipe.dropout)
    if start:
        head.load_state_dict(start[0].state_dict())
    else:
        head.start_published(weights)
    run = _Run(recipe, lesson, head, SoftBins(bins, _device()), out, report, watch)
    run.resume()
    run.go()
    return run.average.eval()


def load_head(out: Path) -> tuple[PaletteHead, Bins, PaletteRecipe]:
    """The averaged head of a run, its bins and its recipe; of a run with patience, the head of its best evaluation.

    Raises
    ------
    TrainingError : ``out`` has no checkpoint.
    """
    if not (out / CHECKPOINT).is_file():
        raise TrainingError(f"{out}: no {CHECKPOINT}; train first")
    state, recipe = _kept(out)
    stored = np.load(out / "bins.npz")
    bins = Bins(stored["centres"], stored["weights"])
    head = PaletteHead(len(bins.centres), recipe.cells, recipe.trained_blocks, recipe.dropout)
    head.load_state_dict(state["average"])
    return head.eval(), bins, recipe


def _kept(out: Path) -> tuple[dict[str, Any], PaletteRecipe]:
    """The checkpoint whose weights are taken, and the recipe."""
    state = torch.load(out / CHECKPOINT, map_location="cpu", weights_only=True)
    recipe = PaletteRecipe(**json.loads(state["recipe"]))
    if recipe.patience is not None and (out / BEST).is_file():
        state = torch.load(out / BEST, map_location="cpu", weights_only=True)
    return state, recipe


def length_of(out: Path) -> tuple[int, float]:
    """Steps and seconds after which the weights that are taken were learnt."""
    state, _ = _kept(out)
    return state["step"], state["seconds"]


def stopping_of(out: Path) -> Patience:
    """What evaluations the run in ``out`` had, by its last checkpoint."""
    state = torch.load(out / CHECKPOINT, map_location="cpu", weights_only=True)
    return Patience.of(PaletteRecipe(**json.loads(state["recipe"])).patience, state)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _bins(out: Path, lesson: Lesson, recipe: PaletteRecipe, start: Bins | None) -> Bins:
    path = out / "bins.npz"
    if not path.is_file():
        view = opened(lesson.folder, "train", 0)
        chroma = view.chroma[lesson.learnt].astype(np.float32).transpose(0, 2, 3, 1).reshape(-1, 2)
        bins = start or Bins.of(chroma, 1 - recipe.rare_weight)
        with (out / "bins.part").open("wb") as stream:
            np.savez(stream, centres=bins.centres, weights=bins.weights)
        os.replace(out / "bins.part", path)
    stored = np.load(path)
    return Bins(stored["centres"], stored["weights"])


class _Run:
    def __init__(
        self,
        recipe: PaletteRecipe,
        lesson: Lesson,
        head: PaletteHead,
        bins: SoftBins,
        out: Path,
        report: Callable[[str], None],
        watch: Watch,
    ) -> None:
        self.recipe, self.lesson, self.bins, self.out, self.report = recipe, lesson, bins, out, report
        self.watch, self.patience = watch, Patience(recipe.patience)
        self.head = head.to(_device())
        self.average = copy.deepcopy(self.head).eval()
        self.step, self.seconds = 0, 0.0
        self.steps = max(1, round(recipe.epochs * len(lesson.learnt) / recipe.batch))
        self.optimizer = torch.optim.AdamW(_groups(self.head, recipe), betas=(0.9, 0.98))

    def resume(self) -> None:
        path = self.out / CHECKPOINT
        if not path.is_file():
            return
        state = torch.load(path, map_location=_device(), weights_only=True)
        self.head.load_state_dict(state["head"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        forget_after(self.out / LOSSES, self.step)
        self.patience = Patience.of(self.recipe.patience, state)
        if self.patience.is_over:
            self.report(f"stopped early before: {self.patience.reason}; a larger patience would go on from here")
            return
        self.report(f"goes on at step {self.step} of {self.steps}")

    def go(self) -> None:
        if self.patience.is_over:
            return
        try:
            self._go()
        finally:
            if (self.out / LOSSES).is_file():
                write_csv(self.out)

    def _go(self) -> None:
        started, told = time.monotonic() - self.seconds, time.monotonic()
        network = torch.compile(self.head) if self.recipe.compile else self.head
        losses: list[tuple[float, float]] = []
        for tokens, chroma in self._batches():
            losses.append(self._learn(network, tokens, chroma))
            self.step += 1
            self.seconds = time.monotonic() - started
            last = {"cross-entropy": losses[-1][0]}
            self.watch.stepped(self.step, self.steps, self.recipe.batch, last.copy)
            if time.monotonic() - told > _SECONDS_BETWEEN_LINES or self.step == self.steps:
                told = time.monotonic()
                self._say(losses)
                losses = []
            if self.step % self.recipe.checkpoint_steps == 0 or self.step == self.steps:
                self._judge()
                self._save(CHECKPOINT)
            if self.patience.is_over and self.step < self.steps:
                if losses:
                    self._say(losses)
                self.report(f"stops early at step {self.step} of {self.steps}: {self.patience.reason}")
                break

    def _judge(self) -> None:
        """Evaluate the moving average on kept pictures, and keep it if it is the best so far."""
        if self.recipe.patience is None:
            return
        self.watch.doing(f"evaluating at step {self.step}")
        validation = self._validation()
        is_best = self.patience.judge(self.step, validation)
        self._write({"validation": validation, "best_validation": self.patience.best, "seconds": self.seconds})
        if is_best:
            self._save(BEST)

    @torch.no_grad()
    def _validation(self) -> float:
        """The loss of training, on at most 512 kept pictures as they are."""
        view, rows = opened(self.lesson.folder, "train", 0), self.lesson.kept[:_MOST_JUDGED]
        total = 0.0
        for first in range(0, len(rows), self.recipe.batch):
            part = rows[first : first + self.recipe.batch]
            tokens, chroma = _tensors([(view, row) for row in part])
            with torch.autocast(tokens.device.type, torch.bfloat16):
                logits = self.average(tokens)
            entropy, difference = self._losses(logits, chroma)
            total += (entropy + self.recipe.difference_weight * difference).item() * len(part)
        return total / len(rows)

    def _losses(self, logits: Tensor, chroma: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy, and CIEDE2000 of the mean colour."""
        flat = logits.float().permute(0, 2, 3, 1).reshape(-1, logits.shape[1])
        return self.bins.cross_entropy(flat, chroma), chroma_difference(self.bins.mean(flat), chroma).mean()

    def _learn(self, network: Any, tokens: Tensor, chroma: Tensor) -> tuple[float, float]:
        share = _rate(self.step, self.steps, self.recipe.warmup_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["highest"] * share
        self.head.train()
        with torch.autocast(tokens.device.type, torch.bfloat16):
            logits = network(tokens)
        entropy, difference = self._losses(logits, chroma)
        self.optimizer.zero_grad(set_to_none=True)
        (entropy + self.recipe.difference_weight * difference).backward()
        nn.utils.clip_grad_norm_(self.head.parameters(), 1.0)
        self.optimizer.step()
        decay = min(self.recipe.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, now in zip(self.average.parameters(), self.head.parameters(), strict=True):
                mean.lerp_(now, 1 - decay)
        return entropy.item(), difference.item()

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        views, count = self.lesson.views(self.recipe), len(self.lesson.learnt)
        for step in range(self.step, self.steps):
            if step % 50 == 0:
                views = self.lesson.views(self.recipe)
            rng = np.random.default_rng([self.recipe.seed, step])
            dealt = range(step * self.recipe.batch, (step + 1) * self.recipe.batch)
            rows = [self.lesson.learnt[_order(self.recipe.seed, n // count, count)[n % count]] for n in dealt]
            chosen = [(views[rng.integers(len(views))], row) for row in rows]
            yield _tensors(chosen)

    def _say(self, losses: list[tuple[float, float]]) -> None:
        entropy, difference = np.mean(losses, axis=0)
        left = self.seconds / self.step * (self.steps - self.step)
        rate = self.step * self.recipe.batch / self.seconds
        self._write({"entropy": float(entropy), "ciede2000": float(difference), "seconds": self.seconds})
        self.report(
            f"step {self.step} of {self.steps}: cross-entropy {entropy:.3f}, CIEDE2000 {difference:.2f}, "
            f"{rate:.1f} pictures a second, {left:.0f} s left"
        )

    def _write(self, figures: dict[str, float]) -> None:
        line = {"step": self.step, **figures}
        with (self.out / LOSSES).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({name: round(value, 4) for name, value in line.items()}) + "\n")

    def _save(self, name: str) -> None:
        self.watch.doing("saving a checkpoint")
        state = {
            "head": self.head.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "recipe": self.recipe.model_dump_json(),
            **self.patience.state(),
        }
        save(self.out, state, name)


def _tensors(chosen: Sequence[tuple[FeatureCache, int]]) -> tuple[Tensor, Tensor]:
    """(N, tokens, width) tokens and (N * cells, 2) chroma of rows of views."""
    tokens = np.stack([view.tokens[row] for view, row in chosen]).astype(np.float32)
    chroma = np.stack([view.chroma[row] for view, row in chosen]).astype(np.float32)
    flat = chroma.transpose(0, 2, 3, 1).reshape(-1, 2)
    return torch.from_numpy(tokens).to(_device()), torch.from_numpy(flat).to(_device())


def _groups(head: PaletteHead, recipe: PaletteRecipe) -> list[dict[str, Any]]:
    """Parameter groups of blocks and head with their rates; biases, norms and scales have no weight decay."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in head.named_parameters():
        groups.setdefault((name.startswith("blocks."), parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "highest": recipe.block_rate if in_blocks else recipe.head_rate,
            "weight_decay": recipe.weight_decay if is_matrix else 0.0,
        }
        for (in_blocks, is_matrix), parameters in groups.items()
    ]


def _order(seed: int, round_: int, count: int) -> NDArray[np.int64]:
    key = (seed, round_, count)
    if key not in _ORDERS:
        _ORDERS.clear()
        _ORDERS[key] = np.random.default_rng([seed, round_]).permutation(count)
    return _ORDERS[key]


_ORDERS: dict[tuple[int, int, int], NDArray[np.int64]] = {}


def _rate(step: int, steps: int, warmup: int) -> float:
    warm = min(1.0, (step + 1) / max(1, warmup))
    return warm * 0.5 * (1 + math.cos(math.pi * step / steps))
