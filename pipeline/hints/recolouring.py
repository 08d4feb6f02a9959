"""What hints make of a scan's chroma: exact where they are, corrected where they spread, else untouched.

:func:`recolouring` looks at a scan once; :meth:`Recolouring.apply` then corrects any region of it by itself, in about
the time that it takes to show it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.hints.spreading import REACH, Correction, Sample, Seen, spread
from pipeline.shapes import Shape
from pipeline.types import Roi

F32 = NDArray[np.float32]
Read = Callable[[Roi], F32]

_SAMPLES, _MOST_OF_ONE = 256, 48
# A place is looked at in a square of so many pixels at least, and in it at those of nearly its lightness.
_LEAST_PX = 3
_SAME_LIGHTNESS = 8.0


@dataclass(frozen=True)
class Known:
    """A part of a scan whose a*, b* are known; ``reach`` is how far they spread, in short sides."""

    shape: Shape
    ab: tuple[float, float]
    reach: float = REACH


@dataclass(frozen=True)
class Recolouring:
    """The hints of a scan, ready to be applied to any region."""

    known: tuple[Known, ...]
    correction: Correction

    def touches(self, roi: Roi) -> bool:
        """Whether anything in ``roi`` can change."""
        return self.correction.touches(roi) or any(_meet(each.shape.bounds, roi) for each in self.known)

    def apply(self, chroma_ab: F32, roi: Roi, lightness: F32, coloured: NDArray[np.bool_] | None = None) -> F32:
        """The chroma of ``roi`` with the hints: outside their reach as given, to the bit.

        Parameters
        ----------
        chroma_ab : (2, h, w) a*, b*
        lightness : (h, w) L* of the same pixels
        coloured : (h, w) where there is a picture; None is everywhere
        """
        made = np.array(chroma_ab, np.float32)
        self.correction.add_to(made, roi, lightness, coloured)
        for each in self.known:
            mask = each.shape.mask(roi) if _meet(each.shape.bounds, roi) else None
            if mask is None:
                continue
            if coloured is not None:
                mask &= coloured
            made[:, mask] = np.array(each.ab, np.float32)[:, None]
        return made


def recolouring(known: Sequence[Known], seen: Seen, read_chroma: Read, read_lightness: Read) -> Recolouring:
    """Look at a scan under its hints, and spread them.

    Parameters
    ----------
    known : inside the scan, without two colours for one pixel
    seen : the shrunk scan
    read_chroma, read_lightness : (2, h, w) a*, b* that are there, and (h, w) L*, of a region
    """
    most = int(np.clip(_SAMPLES // max(1, len(known)), 1, _MOST_OF_ONE))
    places = [(each, int(y), int(x)) for each in known if each.reach > 0 for y, x in each.shape.pixels(most)]
    # Those that share a chunk of the store one after the other.
    places.sort(key=lambda place: (place[1] // 512, place[2] // 512))
    samples = [_sample(each, y, x, seen, read_chroma, read_lightness) for each, y, x in places]
    return Recolouring(tuple(known), spread(seen, samples))


def _sample(known: Known, y: int, x: int, seen: Seen, read_chroma: Read, read_lightness: Read) -> Sample:
    around = max(_LEAST_PX, seen.factor) // 2
    roi = Roi(max(0, y - around), y + around + 1, max(0, x - around), x + around + 1).clipped(seen.shape_yx)
    lightness = read_lightness(roi)
    level = float(np.sort(lightness, axis=None)[lightness.size // 2])  # that of a pixel, also of an even number
    same = np.abs(lightness - level) <= _SAME_LIGHTNESS
    a, b = (float(plane[same].mean()) for plane in read_chroma(roi))
    return Sample(y, x, level, (known.ab[0] - a, known.ab[1] - b), known.reach)


def _meet(one: Roi, other: Roi) -> bool:
    return one.y0 < other.y1 and other.y0 < one.y1 and one.x0 < other.x1 and other.x0 < one.x1
