"""The colorizers to measure: model folders on whole pictures, and the two baselines that every model must beat."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from engines.palette import PaletteNetwork, palette_spec
from engines.spec import Model
from pipeline.colour.lab import lab_from_rgb
from pipeline.palettes.windows import distribution_of, palette_of
from pipeline.tiling.palette import Palette
from pipeline.types import Roi
from training.data import is_colour
from training.errors import DataError
from training.evaluation.subjects import Subject, spread

F32 = NDArray[np.float32]

TILE_PX = 256
_TILE_WARMUPS = 2
_TILE_RUNS = 9
_MEAN_OF = 2048  # pictures that the flat tint is the mean of; with 256, the mean b* was still off by 1


class Colorizer(Protocol):
    """(H, W) L* in [0, 100] to (2, H, W) a*, b*."""

    def __call__(self, lightness: F32) -> F32: ...


@dataclass(frozen=True)
class Look:
    """A picture's (K, rows, columns) distribution over (K, 2) colours, and the palette read from it."""

    distribution: F32
    colours_ab: F32
    palette: Palette


class OnnxColorizer:
    """A model folder run by onnxruntime on whole pictures of any size; may be called from several threads.

    A model with a palette network looks at the picture first, as a run does.

    Parameters
    ----------
    threads : processor threads of one call

    Raises
    ------
    ModelError : the model takes a palette, but has no palette network.
    """

    def __init__(self, model: Model, threads: int = 1) -> None:
        self._palette = PaletteNetwork(palette_spec(model, threads)) if model.card.takes_palette else None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(str(model.onnx_path), options, ["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._card = model.card

    def __call__(self, lightness: F32, seen: Look | None = None) -> F32:
        """Colour a picture; with ``seen``, the palette network does not run again."""
        height, width = lightness.shape
        multiple = self._card.size_multiple
        before_after = [(-n % multiple // 2, -n % multiple - -n % multiple // 2) for n in (height, width)]
        scaled = lightness[None] * np.float32(self._card.lightness_scale) + np.float32(self._card.lightness_offset)
        if self._palette is not None:
            palette = (seen or self.look(lightness)).palette.under((0, 0), (height, width))
            scaled = np.concatenate([scaled, palette / np.float32(self._card.chroma_scale)])
        given = np.pad(scaled, [(0, 0), *before_after], mode="reflect")[None]
        chroma = self._session.run(None, {self._input: given})[0][0] * np.float32(self._card.chroma_scale)
        top, left = before_after[0][0], before_after[1][0]
        return chroma[:, top : top + height, left : left + width]

    @property
    def has_palette(self) -> bool:
        """True if the model has a palette network, which looks at the whole picture first."""
        return self._palette is not None

    def look(self, lightness: F32) -> Look:
        """The palette network's prediction for a whole picture."""
        assert self._palette is not None
        card = self._palette.card
        shape_yx = lightness.shape[0], lightness.shape[1]

        def read(roi: Roi) -> F32:
            return lightness[roi.rows, roi.columns]

        distribution = distribution_of(read, shape_yx, card.side_px, card.cells, self._palette.see)
        colours_ab = np.array(card.colours_ab, np.float32)
        return Look(distribution, colours_ab, palette_of(distribution, colours_ab, shape_yx, card.gain))


class FlatColorizer:
    """The same a*, b* for every pixel: (0, 0) is the gray baseline."""

    def __init__(self, chroma_ab: tuple[float, float]) -> None:
        self._chroma = np.array(chroma_ab, np.float32)[:, None, None]

    def __call__(self, lightness: F32) -> F32:
        return np.broadcast_to(self._chroma, (2, *lightness.shape)).copy()


def tile_ms(model: OnnxColorizer) -> float:
    """Milliseconds for a single tile of 256 x 256 px: the median of nine, after two to warm up.

    The palette network is not included, because it runs once per scan and not once per tile.
    """
    tile = np.random.default_rng(0).uniform(0, 100, (TILE_PX, TILE_PX)).astype(np.float32)
    seen = model.look(tile) if model.has_palette else None
    seconds = []
    for _ in range(_TILE_WARMUPS + _TILE_RUNS):
        started = time.perf_counter()
        model(tile, seen)
        seconds.append(time.perf_counter() - started)
    return 1000 * float(np.median(seconds[_TILE_WARMUPS:]))


def _mean_chroma(subject: Subject) -> NDArray | None:
    rgb = subject.read()
    if rgb is None or not is_colour(rgb):
        return None
    small = cv2.resize(rgb, (32, 32), interpolation=cv2.INTER_AREA)
    mean: NDArray = lab_from_rgb(small.astype(np.float32) / np.float32(255))[1:].mean(axis=(1, 2))
    return mean


def mean_chroma(subjects: Sequence[Subject]) -> tuple[float, float]:
    """Mean a*, b* of up to 2048 of the pictures: the prediction of a model that learned only the average.

    Raises
    ------
    DataError : none of them is a readable colour photograph.
    """
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(_mean_chroma, spread(subjects, _MEAN_OF)))
    means = [mean for mean in found if mean is not None]
    if not means:
        raise DataError(
            f"none of {len(subjects)} pictures to take a mean tint from is a readable colour photograph; "
            "add colour photographs"
        )
    a, b = np.mean(means, axis=0)
    return float(a), float(b)


def named(models: list[Model]) -> dict[str, Model]:
    """Models by their own name, numbered if several have the same name."""
    found: dict[str, Model] = {}
    for model in models:
        same = sum(other.card.name == model.card.name for other in found.values())
        found[model.card.name + (f" ({same + 1})" if same else "")] = model
    return found
