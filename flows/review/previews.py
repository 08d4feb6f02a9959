"""Colours that are shown before they are made: hints, a more vivid palette, a grade, on what is in view.

Each is a change of the a*, b* of a window of a picture at the size in which it is shown, by the code that makes the
version later. Lightness stays. Only the window's pixels are touched, so that a gigapixel scan answers as fast as a
postcard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from flows.review.upright import Turn
from pipeline.colour.grading import Grade
from pipeline.colour.lab import lab_from_rgb, samples_from_lab
from pipeline.hints.recolouring import Known, Recolouring
from pipeline.hints.spreading import Correction
from pipeline.palettes.answers import Taste, annealed
from pipeline.shapes import Shape
from pipeline.tiling.palette import Palette
from pipeline.types import Roi

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Window:
    """What is shown of a picture: an upright rectangle of a level, and how that level is turned."""

    roi: Roi
    turn: Turn

    def scale(self, shape_yx: tuple[int, int]) -> float:
        """Pixels of a whole scan of this stored size to one of the level, along a side."""
        return max(shape_yx) / max(self.turn.shape_yx)


class Change(Protocol):
    """A change of colours."""

    def apply(self, chroma_ab: F32, lightness: F32, window: Window) -> F32:
        """The changed (2, h, w) a*, b* of an upright window, of whose pixels (h, w) L* is told."""
        ...


@dataclass(frozen=True)
class GradeChange:
    """A grade as :mod:`pipeline.colour.grading` makes it."""

    grade: Grade

    def apply(self, chroma_ab: F32, lightness: F32, window: Window) -> F32:
        del window  # a grade looks at single pixels
        return self.grade.apply(chroma_ab, lightness)


@dataclass(frozen=True)
class HintChange:
    """Hints, spread over a scan of ``shape_yx``; ``shown`` is the correction that is in the picture already."""

    made: Recolouring
    shape_yx: tuple[int, int]
    shown: Correction | None = None

    def apply(self, chroma_ab: F32, lightness: F32, window: Window) -> F32:
        turn, scale = window.turn, window.scale(self.shape_yx)
        roi = turn.stored_roi(window.roi)
        correction = self.made.correction
        if self.shown is not None:
            correction = replace(correction, values=correction.values - self.shown.values)
        here = Recolouring(
            tuple(Known(_shrunk(each.shape, scale), each.ab, each.reach) for each in self.made.known),
            replace(correction, cell_px=correction.cell_px / scale),
        )
        planes = np.stack([turn.stored(plane) for plane in chroma_ab])
        made = here.apply(planes, roi, np.ascontiguousarray(turn.stored(lightness)))
        return np.stack([turn.upright(plane) for plane in made])


def _shrunk(shape: Shape, scale: float) -> Shape:
    """A place in a smaller copy."""
    return Shape(shape.kind, tuple(tuple(number / scale for number in each) for each in shape.numbers))


@dataclass(frozen=True)
class VividChange:
    """Another choice among the stored answers of a palette network; ``more`` has the a*, b* that it adds.

    The network that makes the version then chooses among all colours and not among its three best answers, and aligns
    them with edges: this is nearly what it comes to.
    """

    more: Palette
    shape_yx: tuple[int, int]

    @classmethod
    def of(cls, answers: F32, palette: Palette, before: float, vivid: float, shape_yx: tuple[int, int]) -> VividChange:
        """The step from one vividness to another.

        Parameters
        ----------
        answers : (n, 3, rows, columns) a*, b* and share of the likeliest answers of each cell
        palette : the palette that was chosen with ``before``, for the gain of its network
        """
        one, other = chosen_ab(answers, before), chosen_ab(answers, vivid)
        energy = float((one * one).sum())
        gain = float((one * palette.cells).sum()) / energy if energy > 0 and one.shape == palette.cells.shape else 1.0
        return cls(Palette((other - one) * np.float32(gain), palette.cell_yx), shape_yx)

    def apply(self, chroma_ab: F32, lightness: F32, window: Window) -> F32:
        del lightness
        scale, roi = window.scale(self.shape_yx), window.turn.stored_roi(window.roi)
        cell_yx = self.more.cell_yx[0] / scale, self.more.cell_yx[1] / scale
        added = replace(self.more, cell_yx=cell_yx).under((roi.y0, roi.x0), roi.shape_yx)
        return chroma_ab + np.stack([window.turn.upright(plane) for plane in added])


def chosen_ab(answers: F32, vivid: float) -> F32:
    """(2, rows, columns) a*, b* that are chosen among (n, 3, rows, columns) answers, as from a whole distribution."""
    shares = np.maximum(answers[:, 2], np.float32(1e-6))
    sharp = annealed(shares, vivid)
    chosen = (answers[:, :2] * sharp[:, None]).sum(axis=0) / sharp.sum(axis=0)
    return np.asarray(chosen * np.float32(Taste(vivid).gain), np.float32)


def changed(samples: NDArray, changes: Sequence[Change], window: Window) -> NDArray[np.uint8]:
    """(h, w, 3) of 8 bits: samples of a picture, uint8 or uint16, with other colours."""
    maximum = np.float32(np.iinfo(samples.dtype).max)
    lightness, a, b = lab_from_rgb((samples[..., :3] / maximum).astype(np.float32))
    chroma = np.stack([a, b])
    for each in changes:
        chroma = each.apply(chroma, lightness, window)
    return np.asarray(samples_from_lab(lightness, np.ascontiguousarray(chroma, np.float32), np.dtype(np.uint8)))
