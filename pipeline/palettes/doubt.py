"""The expected error of a palette's colours: the spread of its distribution, calibrated on photographs.

The spread of a cell is the root mean square distance of its possible colours, in a* and b*, from their mean. (With
CIEDE2000's compression of strong colours, it predicts less well which scans come out wrong.) The spread itself has no
meaningful unit: :class:`Calibration` maps it to the CIEDE2000 of pictures with such a spread, and to the bounds of nine
tenths of them. It was measured on photographs that neither network was trained on.

References
----------
Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World, 2005 (split conformal intervals: by quantiles of a
held-out part).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.tiling.palette import mean_ab

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Word = Literal["likely", "unsure", "a guess"]

LIKELY_BELOW, GUESS_FROM = 8.0, 11.0  # CIEDE2000; 46 % of held-out photographs are likely, 22 % a guess


@dataclass(frozen=True)
class Calibration:
    """The error by spread: knots of a line that never falls.

    Attributes
    ----------
    spreads : ascending
    expected, low, high : mean CIEDE2000 at each spread, and the bounds of the middle nine tenths
    """

    spreads: tuple[float, ...]
    expected: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def expect(self, spread: ArrayLike) -> NDArray[np.float64]:
        """Mean CIEDE2000 of results with such spreads."""
        expected: F64 = np.interp(np.asarray(spread), self.spreads, self.expected)
        return expected

    def interval(self, spread: float) -> tuple[float, float]:
        """Bounds that hold nine tenths of the results with such a spread."""
        return float(np.interp(spread, self.spreads, self.low)), float(np.interp(spread, self.spreads, self.high))


@dataclass(frozen=True)
class Doubt:
    """The doubt of one scan: the expected CIEDE2000 of its colours, its bounds, and a word for it."""

    expected: float
    low: float
    high: float

    def to_json(self) -> dict[str, float | str]:
        """JSON values, including the word for human readers."""
        return {**{name: round(value, 2) for name, value in asdict(self).items()}, "word": self.word}

    @classmethod
    def from_json(cls, values: Mapping[str, float]) -> Doubt:
        """A doubt from the output of :meth:`to_json`. Raises KeyError, TypeError, ValueError for anything else."""
        return cls(float(values["expected"]), float(values["low"]), float(values["high"]))

    def __str__(self) -> str:
        return f"{self.word}: CIEDE2000 to the truth probably {self.expected:.0f} ({self.low:.0f} to {self.high:.0f})"

    @property
    def word(self) -> Word:
        """A word for people who do not know CIEDE2000."""
        return word_of(self.expected)


def word_of(expected: float) -> Word:
    """The word for an expected CIEDE2000."""
    if expected < LIKELY_BELOW:
        return "likely"
    return "unsure" if expected < GUESS_FROM else "a guess"


def spread_of(distribution: F32, colours_ab: F32, chosen_ab: F32 | None = None) -> F32:
    """(rows, columns) spread of a (K, rows, columns) distribution over (K, 2) colours.

    Parameters
    ----------
    chosen_ab : (2, rows, columns) colours to use instead of the mean; the spread is then around these
    """
    mean = mean_ab(distribution, colours_ab)
    square = np.einsum("krc,k->rc", distribution, np.square(colours_ab).sum(axis=1))
    variance = np.maximum(square - np.square(mean).sum(axis=0), 0)
    if chosen_ab is not None:
        variance += np.square(mean - chosen_ab).sum(axis=0)
    spread: F32 = np.sqrt(variance).astype(np.float32)
    return spread


def doubt_of(spread: F32, calibration: Calibration) -> Doubt:
    """The doubt of a scan whose cells have this ``spread``."""
    mean = float(spread.mean())
    return Doubt(float(calibration.expect(mean)), *calibration.interval(mean))


def calibrated(spreads: ArrayLike, errors: ArrayLike, knots: int = 12) -> Calibration:
    """A calibration from ``knots`` parts of equal size, made monotonic.

    Parameters
    ----------
    spreads, errors : (N,) values of pictures that were not used in training, N at least ten times ``knots``

    Raises
    ------
    ValueError : too few pictures.
    """
    x, y = np.asarray(spreads, np.float64), np.asarray(errors, np.float64)
    if len(x) < 10 * knots:
        raise ValueError(f"{len(x)} pictures for {knots} knots: bounds would be chance; give {10 * knots} or more")
    parts = np.array_split(np.argsort(x, kind="stable"), knots)
    middle = [float(np.median(x[part])) for part in parts]
    mean = np.maximum.accumulate([y[part].mean() for part in parts])
    low, high = (np.maximum.accumulate([_conformal(y[part], share) for part in parts]) for share in (0.05, 0.95))
    return Calibration(tuple(middle), *(tuple(float(v) for v in line) for line in (mean, low, high)))


def _conformal(errors: F64, share: float) -> float:
    """The quantile of few samples that a further error exceeds with the intended probability."""
    count = len(errors)
    rank = np.ceil((count + 1) * share) if share > 0.5 else np.floor((count + 1) * share)
    return float(np.sort(errors)[int(np.clip(rank, 1, count)) - 1])
