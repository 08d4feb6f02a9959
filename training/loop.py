"""The pix2pix training loop: python -m training train RECIPE --data DIR --out DIR (Isola et al., CVPR 2017, section 3).

Content loss (L1 or Huber, times lambda) plus, where the phase asks for it, binary cross-entropy against a conditional
PatchGAN, generator and discriminator in alternating steps. An exponential moving average of the generator is what is
exported. A checkpoint is written beside and renamed, so a killed run always leaves a good one.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.config import Phase, Recipe
from training.data import batches, find_photographs, is_test, load_pictures
from training.errors import TrainingError

CHECKPOINT = "checkpoint.pt"
_REPORT_STEPS = 50


def build(kind: str, name: str, options: dict[str, Any]) -> nn.Module:
    """A generator or discriminator by its file name under ``training/generators`` or ``training/discriminators``."""
    module = importlib.import_module(f"training.{kind}s.{name}")
    network: nn.Module = getattr(module, kind.capitalize())(**options)
    return network


class Trainer:
    """Both networks, their optimizers, the moving average and the step they have reached."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.device = device
        self.generator = build("generator", recipe.generator, recipe.generator_options).to(device)
        self.discriminator = build("discriminator", recipe.discriminator, recipe.discriminator_options).to(device)
        if recipe.pretrained:
            self.generator.encoder.load_pretrained(Path(recipe.pretrained))  # type: ignore[union-attr,operator]
        self.generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.discriminator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.generator).eval()
        self.optimizer = torch.optim.AdamW(
            self.generator.parameters(), recipe.learning_rate, recipe.betas, weight_decay=recipe.weight_decay
        )
        self.discriminator_optimizer = torch.optim.AdamW(
            self.discriminator.parameters(), recipe.discriminator_learning_rate, recipe.betas, weight_decay=0.0
        )
        self.step = 0
        self.seconds = 0.0

    def _content(self, fake: Tensor, chroma: Tensor, vivid_weight: float) -> Tensor:
        if self.recipe.content_loss == "l1":
            loss = functional.l1_loss(fake, chroma, reduction="none")
        else:
            loss = functional.smooth_l1_loss(fake, chroma, beta=0.05, reduction="none")
        # Saturated colours are rare (Zhang et al., ECCV 2016, section 2.2): without a weight the mean is gray.
        weight = 1 + vivid_weight * torch.linalg.vector_norm(chroma, dim=1, keepdim=True) * 4
        return (loss * weight).sum() / weight.expand_as(loss).sum()

    def train_step(self, lightness: Tensor, chroma: Tensor, phase: Phase) -> dict[str, float]:
        """One step of both networks on (N, 1, S, S) and (N, 2, S, S); returns the losses by name."""
        self.optimizer.param_groups[0]["lr"] = self.recipe.learning_rate_at(self.step)
        losses: dict[str, float] = {}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            fake = self.generator(lightness).float()
        if phase.adversarial_weight > 0:
            losses["discriminator"] = self._discriminator_step(lightness, chroma, fake.detach())
        content = self._content(fake, chroma, phase.vivid_weight)
        total = content * phase.content_weight
        losses["content"] = content.item()
        if phase.adversarial_weight > 0:
            adversarial = self._adversarial(lightness, fake, real=True)
            losses["adversarial"] = adversarial.item()
            total = total + adversarial * phase.adversarial_weight
        if not torch.isfinite(total):
            raise TrainingError(f"step {self.step}: the loss is not finite; lower learning_rate and use --resume")
        self.optimizer.zero_grad()
        total.backward()
        self.optimizer.step()
        self._follow()
        self.step += 1
        return losses

    def _adversarial(self, lightness: Tensor, chroma: Tensor, real: bool) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            logits = self.discriminator(torch.cat([lightness, chroma], dim=1)).float()
        return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))

    def _discriminator_step(self, lightness: Tensor, chroma: Tensor, fake: Tensor) -> float:
        real_loss = self._adversarial(lightness, chroma, real=True)
        loss = 0.5 * (real_loss + self._adversarial(lightness, fake, real=False))
        self.discriminator_optimizer.zero_grad()
        loss.backward()
        self.discriminator_optimizer.step()
        return loss.item()

    @torch.no_grad()
    def _follow(self) -> None:
        decay = min(self.recipe.ema_decay, (1 + self.step) / (10 + self.step))
        for mean, now in zip(self.average.state_dict().values(), self.generator.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(now, 1 - decay)
            else:
                mean.copy_(now)

    def save(self, folder: Path) -> None:
        """Write the checkpoint beside and rename it over the last one."""
        state = {
            "recipe": dataclasses.asdict(self.recipe),
            "step": self.step,
            "seconds": self.seconds,
            "generator": self.generator.state_dict(),
            "average": self.average.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "discriminator_optimizer": self.discriminator_optimizer.state_dict(),
        }
        part = folder / f"{CHECKPOINT}.part"
        torch.save(state, part)
        os.replace(part, folder / CHECKPOINT)

    def load(self, folder: Path) -> None:
        """Continue from the checkpoint in ``folder``."""
        state = torch.load(folder / CHECKPOINT, map_location=self.device, weights_only=True)
        for name in ("generator", "average", "discriminator", "optimizer", "discriminator_optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.step, self.seconds = state["step"], state["seconds"]


def train(
    recipe: Recipe, data: Path, out: Path, resume: bool = False, report: Callable[[str], None] = print
) -> Trainer:
    """Train ``recipe`` on the four fifths of ``data`` that are not test pictures, into ``out``.

    Leaves ``checkpoint.pt`` (every ``checkpoint_steps``) and ``losses.jsonl`` in ``out``.

    Raises
    ------
    DataError : no usable picture. TrainingError : the loss is not finite; the last checkpoint stands.
    """
    out.mkdir(parents=True, exist_ok=True)
    photographs = [p for p in find_photographs(data) if not is_test(p)]
    pictures, left_out = load_pictures(photographs)
    report(f"{len(pictures)} training photographs from {data}; {len(left_out)} left out (unreadable or gray)")
    trainer = Trainer(recipe, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if resume and (out / CHECKPOINT).is_file():
        trainer.load(out)
        report(f"continues at step {trainer.step} of {recipe.total_steps}")
    started, sums, count = time.monotonic() - trainer.seconds, dict[str, float](), 0
    with (out / "losses.jsonl").open("a") as log:
        for lightness, chroma in batches(pictures, recipe, trainer.step):
            phase = recipe.phase_at(trainer.step)
            scans, truth = (
                torch.from_numpy(x).to(trainer.device, memory_format=torch.channels_last) for x in (lightness, chroma)
            )
            for name, value in trainer.train_step(scans, truth, phase).items():
                sums[name] = sums.get(name, 0.0) + value
            count += 1
            trainer.seconds = time.monotonic() - started
            if trainer.step % _REPORT_STEPS == 0 or trainer.step == recipe.total_steps:
                means = {name: round(total / count, 5) for name, total in sums.items()}
                log.write(json.dumps({"step": trainer.step, "seconds": round(trainer.seconds), **means}) + "\n")
                log.flush()
                left = trainer.seconds / trainer.step * (recipe.total_steps - trainer.step) / 60
                report(f"step {trainer.step}/{recipe.total_steps} {means} {left:.0f} min left")
                sums, count = {}, 0
            if trainer.step % recipe.checkpoint_steps == 0 or trainer.step == recipe.total_steps:
                trainer.save(out)
    return trainer
