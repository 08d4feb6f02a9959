"""Images a second of the training loop against a bare PyTorch loop of the same step.

python -m tests.benchmarks.training_speed --data DIR [--recipe NAME] [--steps N] [--rounds N]

The bare loop has the same networks, losses, optimizers and precision, one batch made beforehand and nothing else: no
loading, moving average, journal, validation or checkpoint. Both run in turns in one process; the ratio is what counts.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from training.config import Recipe, load_recipe
from training.data import batches, make_batch, open_collection
from training.loop import train
from training.losses import adversarial_loss, content_loss, discriminator_loss
from training.trainer import build_discriminator, build_generator


def bare_images_per_second(recipe: Recipe, data: Path, steps: int) -> float:
    """What a page of PyTorch does with the recipe's last phase."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    phase = recipe.phases[-1]
    generator = build_generator(recipe).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    discriminator = build_discriminator(recipe).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    optimizers = [kind(network.parameters(), recipe.learning_rate) for network in (generator, discriminator)]
    batch = make_batch(open_collection(data).train, recipe, phase, 0)
    lightness, colour = (
        torch.as_tensor(part).to(device, memory_format=torch.channels_last) for part in (batch.lightness, batch.colour)
    )
    lightness = lightness.expand(-1, recipe.input_channels, -1, -1)
    mixed = recipe.precision != "32-true"

    def judge(picture: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            return discriminator(torch.cat([lightness, picture], 1)).float()

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            fake = generator(lightness).float()
        loss = content_loss(recipe.content_loss, fake, colour, phase.vivid_weight) * phase.content_weight
        if phase.adversarial_weight:
            critic = discriminator_loss(recipe.adversarial_loss, judge(colour), judge(fake.detach()))
            optimizers[1].zero_grad()
            critic.backward()
            optimizers[1].step()
            discriminator.requires_grad_(False)
            loss = loss + adversarial_loss(recipe.adversarial_loss, judge(fake)) * phase.adversarial_weight
            discriminator.requires_grad_(True)
        optimizers[0].zero_grad()
        loss.backward()
        optimizers[0].step()

    step()
    started = time.perf_counter()
    for _ in range(steps):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return steps * phase.batch / (time.perf_counter() - started)


def loop_images_per_second(recipe: Recipe, data: Path, steps: int) -> float:
    """The whole loop from its second step to its return: loading, average, journal, validation, checkpoint, curves."""
    last = recipe.phases[-1].model_copy(update={"steps": steps, "epochs": None})
    short = recipe.model_copy(update={"phases": (last,)})
    begun: list[float] = []

    def take_time(*arguments: Any) -> Iterator[Any]:
        for batch in batches(*arguments):
            # The first step warms the processor's caches up, here as in the bare loop.
            if len(begun) < 2:
                begun.append(time.perf_counter())
            yield batch

    with tempfile.TemporaryDirectory() as folder, mock.patch("training.loop.batches", take_time):
        train(short, data, Path(folder), report=lambda _: None)
        ended = time.perf_counter()
    return (steps - 1) * last.batch / (ended - begun[1])


def loading_images_per_second(recipe: Recipe, data: Path, steps: int) -> float:
    """Loading alone, as from the second epoch on: pictures decoded, crops and conversion to do."""
    last = recipe.phases[-1].model_copy(update={"steps": 2 * steps, "epochs": None})
    pictures = open_collection(data).train
    for index in range(len(pictures)):
        pictures.read(index)
    made = batches(pictures, recipe.model_copy(update={"phases": (last,)}).schedule(len(pictures)))
    for _ in range(steps):
        next(made)
    started = time.perf_counter()
    for _ in range(steps):
        next(made)
    return steps * last.batch / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--recipe", default="efficientnet-unet")
    parser.add_argument("--set", dest="changes", action="append", default=[])
    parser.add_argument("--steps", type=int, default=200, help="about a checkpoint's worth, as in a long run")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    recipe = load_recipe(options.recipe, tuple(options.changes))
    rows = []
    for _ in range(options.rounds):
        bare = bare_images_per_second(recipe, options.data, options.steps)
        loop = loop_images_per_second(recipe, options.data, options.steps)
        rows.append((bare, loop, loading_images_per_second(recipe, options.data, 40)))
    bare, loop, loading = (statistics.median(column) for column in zip(*rows, strict=True))
    ratio = statistics.median(loop / bare for bare, loop, _ in rows)
    plenty = statistics.median(loading / loop for _, loop, loading in rows)
    last = recipe.phases[-1]
    heads = [
        "recipe",
        "crop px",
        "batch",
        "bare loop, images/s",
        "this loop",
        "this / bare",
        "loading alone",
        "loading / this",
    ]
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    cells = [
        recipe.name,
        f"{last.crop_px[0]}x{last.crop_px[1]}",
        last.batch,
        f"{bare:.1f}",
        f"{loop:.1f}",
        f"{ratio:.2f}",
    ]
    print("| " + " | ".join(map(str, [*cells, f"{loading:.0f}", f"{plenty:.1f}"])) + " |")


if __name__ == "__main__":
    main()
