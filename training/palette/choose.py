"""Choose temperature and gain, which turn a distribution into colours, on photographs reserved for this.

The mean is the safest answer and the least colourful. A temperature below 1 sharpens the distribution first, a gain
above 1 makes its mean stronger. Among the settings that reach a required share of the true chroma, the one with the
least CIEDE2000 is chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.difference import chroma_difference
from training.palette.bins import Bins
from training.palette.features import FeatureCache, Half, opened
from training.palette.network import PaletteHead

TEMPERATURES = (1.0, 0.8, 0.65, 0.5)
GAINS = (0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.6)
_BATCH = 32


@dataclass(frozen=True)
class Reading:
    """Results of a temperature and a gain, as means over pictures.

    Attributes
    ----------
    ciede2000, gray : error of the cells' colours, and of gray
    chroma : mean chroma over the truth's
    """

    temperature: float
    gain: float
    ciede2000: float
    gray: float
    chroma: float

    @property
    def below_gray(self) -> float:
        """How far the error is below gray's, in per cent."""
        return 100 * (1 - self.ciede2000 / self.gray)


@dataclass(frozen=True)
class PictureErrors:
    """(N,) means over the cells of each picture.

    Attributes
    ----------
    ciede2000, gray : error of the cells' colours, and of gray
    chroma, true_chroma : chroma of the cells' colours, and of the truth
    """

    ciede2000: NDArray[np.float64]
    gray: NDArray[np.float64]
    chroma: NDArray[np.float64]
    true_chroma: NDArray[np.float64]

    @property
    def chroma_of_truth(self) -> float:
        """Mean chroma over the truth's."""
        return float(self.chroma.mean() / self.true_chroma.mean())


@torch.inference_mode()
def logits_of(head: PaletteHead, view: FeatureCache, rows: NDArray[np.int64]) -> Tensor:
    """(N, K, cells, cells) logits for some rows of a view, in half precision to save memory."""
    made = []
    for start in range(0, len(rows), _BATCH):
        tokens = torch.from_numpy(view.tokens[rows[start : start + _BATCH]].astype(np.float32))
        with torch.autocast("cpu", torch.bfloat16):
            made.append(head(tokens).half())
    return torch.cat(made)


def readings(head: PaletteHead, bins: Bins, folder: Path, half: Half, rows: NDArray[np.int64]) -> list[Reading]:
    """Readings for every temperature with every gain, on view 0 of some pictures."""
    view = opened(folder, half, 0)
    logits = logits_of(head, view, rows)
    truth = torch.from_numpy(view.chroma[rows].astype(np.float32))
    return [_reading(logits, truth, bins, temperature, gain) for temperature in TEMPERATURES for gain in GAINS]


def best(found: list[Reading], least_chroma: float) -> Reading:
    """The reading with the least CIEDE2000 among those with enough chroma; if there are none, that with the most."""
    enough = [reading for reading in found if reading.chroma >= least_chroma]
    return min(enough, key=lambda r: r.ciede2000) if enough else max(found, key=lambda r: r.chroma)


def errors_at(
    head: PaletteHead, bins: Bins, folder: Path, half: Half, rows: NDArray[np.int64], temperature: float, gain: float
) -> PictureErrors:
    """Errors of each picture in view 0, read with a temperature and a gain."""
    view = opened(folder, half, 0)
    truth = torch.from_numpy(view.chroma[rows].astype(np.float32))
    return _errors(logits_of(head, view, rows), truth, bins, temperature, gain)


def _reading(logits: Tensor, truth: Tensor, bins: Bins, temperature: float, gain: float) -> Reading:
    made = _errors(logits, truth, bins, temperature, gain)
    error, gray = float(made.ciede2000.mean()), float(made.gray.mean())
    return Reading(temperature, gain, error, gray, made.chroma_of_truth)


@torch.inference_mode()
def _errors(logits: Tensor, truth: Tensor, bins: Bins, temperature: float, gain: float) -> PictureErrors:
    centres = torch.from_numpy(bins.centres)
    parts: list[list[Tensor]] = [[], [], [], []]
    for one, wanted in zip(logits.split(_BATCH), truth.split(_BATCH), strict=True):
        shares = torch.softmax(one.float() / temperature, dim=1)
        mean = torch.einsum("nkrc,kp->nrcp", shares, centres).reshape(-1, 2) * gain
        flat = wanted.permute(0, 2, 3, 1).reshape(-1, 2)
        error, gray = (chroma_difference(each, flat) for each in (mean, torch.zeros_like(flat)))
        for part, cells in zip(parts, (error, gray, mean.norm(dim=1), flat.norm(dim=1)), strict=True):
            part.append(cells.reshape(len(one), -1).mean(dim=1))
    return PictureErrors(*(torch.cat(part).numpy().astype(np.float64) for part in parts))
