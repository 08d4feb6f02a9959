"""Errors and spreads of a whole model, for each picture and each cell."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.machine import processors
from engines.spec import Model
from pipeline.colour.ciede2000 import ciede2000
from pipeline.colour.lab import lab_from_rgb, rgb_from_lab
from pipeline.palettes.doubt import spread_of
from training.data.pictures import Sample
from training.evaluation.colorizers import OnnxColorizer
from training.palette.views import lab_of

F32 = NDArray[np.float32]

_SHORT_PX = 256


@dataclass(frozen=True)
class Measured:
    """(pictures,) mean CIEDE2000 and spread, and the same for every cell of all pictures."""

    scan_errors: NDArray[np.float64]
    scan_spreads: NDArray[np.float64]
    cell_errors: NDArray[np.float64]
    cell_spreads: NDArray[np.float64]


def errors_and_spreads(model: Model, pictures: Sequence[Sample]) -> Measured:
    """Colour each picture as a run would, and compare it with the truth."""
    colorize = OnnxColorizer(model)

    def one(sample: Sample) -> tuple[F32, F32]:
        lab = lab_of(Sample(_shrunk(sample.pixels), sample.space))
        seen = colorize.look(lab[0])
        result = lab_from_rgb(rgb_from_lab(lab[0], colorize(lab[0], seen)))
        truth = lab_from_rgb(rgb_from_lab(lab[0], lab[1:]))
        error = ciede2000(result, truth).astype(np.float32)
        spread = spread_of(seen.distribution, seen.colours_ab)
        return cv2.resize(error, spread.shape[::-1], interpolation=cv2.INTER_AREA), spread

    with ThreadPoolExecutor(processors()) as pool:
        made = list(pool.map(one, pictures))
    return Measured(
        np.array([error.mean() for error, _ in made], np.float64),
        np.array([spread.mean() for _, spread in made], np.float64),
        np.concatenate([error.ravel() for error, _ in made]).astype(np.float64),
        np.concatenate([spread.ravel() for _, spread in made]).astype(np.float64),
    )


def _shrunk(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scale = _SHORT_PX / min(pixels.shape[:2])
    size = tuple(max(_SHORT_PX, round(side * scale)) for side in pixels.shape[1::-1])
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
