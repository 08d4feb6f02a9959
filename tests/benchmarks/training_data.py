"""How quickly training pictures are loaded: python -m tests.benchmarks.training_data --data DIR

Batches of 16 random crops, pictures already decoded, as they are from the second epoch on. A training step waits for
nothing as long as this is some three times what it consumes.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from training.config import Film, Phase, Recipe
from training.data import Pictures, batches, open_collection

BATCH = 16
SIZES_PX = (128, 256)
WORKERS = (0, 1, 2)
FILM = Film(gamma=0.4, fade=0.15, grain=0.06, blur_px=1.5)
_FIRST = 4  # batches that are made while workers start


@dataclass(frozen=True)
class Row:
    """The median of several rounds."""

    crop_px: int
    film: bool
    workers: int
    images_per_second: float

    @property
    def ms_per_batch(self) -> float:
        return 1000 * BATCH / self.images_per_second


def images_per_second(pictures: Pictures, crop_px: int, film: Film, workers: int, steps: int) -> float:
    """Of one round of ``steps`` batches, after the first few."""
    recipe = Recipe(
        name="speed", generator="unet", film=film, phases=(Phase(steps=_FIRST + steps, crop_px=crop_px, batch=BATCH),)
    )
    stream = batches(pictures, recipe.schedule(len(pictures)), workers=workers)
    for _ in itertools.islice(stream, _FIRST):
        pass
    started = time.perf_counter()
    made = sum(len(batch.lightness) for batch in stream)
    return made / (time.perf_counter() - started)


def measure(pictures: Pictures, steps: int, rounds: int) -> list[Row]:
    for index in range(len(pictures)):
        pictures.read(index)
    return [
        Row(
            crop_px,
            film is FILM,
            workers,
            statistics.median(images_per_second(pictures, crop_px, film, workers, steps) for _ in range(rounds)),
        )
        for crop_px, film, workers in itertools.product(SIZES_PX, (Film(), FILM), WORKERS)
    ]


def to_table(rows: list[Row]) -> str:
    lines = ["| crop px | film | workers | images/s | ms a batch of 16 |", "|---|---|---|---|---|"]
    for row in rows:
        film = "yes" if row.film else "no"
        figures = f"{row.images_per_second:.0f} | {row.ms_per_batch:.1f}"
        lines.append(f"| {row.crop_px} | {film} | {row.workers or 'thread'} | {figures} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder of colour photographs")
    parser.add_argument("--steps", type=int, default=40, help="batches a round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that the median is of")
    options = parser.parse_args()
    started = time.perf_counter()
    collection = open_collection(options.data)
    pictures = collection.train
    print(f"{len(pictures)} pictures, opened in {time.perf_counter() - started:.1f} s\n")
    print(to_table(measure(pictures, options.steps, options.rounds)))


if __name__ == "__main__":
    main()
