"""Hints that were painted: a transparent PNG of the scan's proportions, in which every stroke has its colour."""

from __future__ import annotations

import struct

import cv2
import numpy as np

from pipeline.errors import HintError
from pipeline.hints.model import Hint, Hints
from pipeline.shapes import Shape

# Painting programs write at most so many; a photograph has more colours than any painter's palette.
_MOST_COLOURS = 256
_MOST_PIXELS = 2**27
_LONG_PX = 4096
_OPAQUE = 128
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PROPORTION = 0.02


def from_strokes(data: bytes, shape_yx: tuple[int, int]) -> Hints:
    """The hints of a painted PNG, one of each colour; it may be smaller than the scan. Raises HintError."""
    if data[:8] != _SIGNATURE or len(data) < 33:
        raise HintError("is no PNG; give a transparent one with strokes")
    width, height = struct.unpack(">II", data[16:24])
    if not 0 < width * height <= _MOST_PIXELS:
        raise HintError(f"declares {width} x {height} pixels, too many for strokes; shrink it")
    if abs(width * shape_yx[0] / (height * shape_yx[1]) - 1) > _PROPORTION:
        raise HintError(
            f"has {width} x {height} pixels, not the proportions of the scan's {shape_yx[1]} x {shape_yx[0]}, so the "
            "strokes would lie elsewhere; paint over the whole scan"
        )
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise HintError("is a damaged PNG; write it again")
    if picture.ndim != 3 or picture.shape[2] != 4:
        raise HintError("has no transparency, so all of it would be one stroke; give strokes on nothing")
    if picture.dtype == np.uint16:
        picture = (picture >> 8).astype(np.uint8)
    step = -(-max(width, height) // _LONG_PX)
    picture = picture[::step, ::step]
    there = picture[..., 3] >= _OPAQUE
    packed = picture[..., 2].astype(np.int64) << 16 | picture[..., 1].astype(np.int64) << 8 | picture[..., 0]
    colours = np.unique(packed[there])
    if not len(colours):
        raise HintError("has no strokes in it: nothing of it is opaque; paint some, or remove it")
    if len(colours) > _MOST_COLOURS:
        raise HintError(f"has {len(colours)} colours, a picture and no strokes; paint with a hard brush in a few")
    down, across = shape_yx[0] / (height / step), shape_yx[1] / (width / step)
    hints = []
    for colour in colours.tolist():
        boxes = _runs(there & (packed == colour))
        scaled = [(x * across, y * down, w * across, down) for x, y, w in boxes]
        inside = [
            (x, y, min(w, shape_yx[1] - x), min(h, shape_yx[0] - y))
            for x, y, w, h in scaled
            if x < shape_yx[1] and y < shape_yx[0]
        ]
        hints.append(Hint(Shape("boxes", tuple(inside)), f"#{colour:06x}"))
    return Hints(tuple(hints))


def _runs(mask: np.ndarray) -> list[tuple[int, int, int]]:
    """x, y and length of every run of pixels in a row."""
    padded = np.pad(mask.astype(np.int8), ((0, 0), (1, 1)))
    change = np.diff(padded, axis=1)
    rows, starts = np.nonzero(change == 1)
    ends = np.nonzero(change == -1)[1]
    return list(zip(starts.tolist(), rows.tolist(), (ends - starts).tolist(), strict=True))
