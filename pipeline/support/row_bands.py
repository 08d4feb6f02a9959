"""Work on pictures by strips of whole rows, so that temporaries stay small and in the processor's cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

# Long enough to hide NumPy's cost per call, short enough that a dozen float32 planes stay in the last-level cache.
# Measured on samples_from_lab, in-gamut colours: 21 ns a pixel at 16,384, 11 at 65,536, 10 at 131,072.
STRIP_PX = 65_536


def row_strips(shape_yx: tuple[int, ...]) -> Iterator[slice]:
    """Slices of rows that hold about ``STRIP_PX`` pixels each."""
    step = max(1, STRIP_PX // max(1, shape_yx[1]))
    return (slice(start, min(start + step, shape_yx[0])) for start in range(0, shape_yx[0], step))


def by_strips(convert: Callable[[NDArray], NDArray], samples: NDArray) -> NDArray:
    """``convert(samples)``, computed strip by strip, for a function of (h, w, ...) arrays that treats every row alike.

    If ``convert`` returns a view of its argument, so does this.
    """
    converted: NDArray | None = None
    for rows in row_strips(samples.shape):
        strip = convert(samples[rows])
        if converted is None:
            if rows.stop == samples.shape[0]:
                return strip
            if np.may_share_memory(strip, samples):
                return convert(samples)
            converted = np.empty((samples.shape[0], *strip.shape[1:]), strip.dtype)
        converted[rows] = strip
    return convert(samples) if converted is None else converted
