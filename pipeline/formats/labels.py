"""What a copy for the public says in the picture itself: a strip below it, or a mark in its corner.

Only copies that are made for it are labelled, never a result: the result's lightness is the scan's own.

The text is set by Pango, which shapes every script and its direction. The font is DejaVu Sans, which is beside this
module, so that a label looks the same everywhere; it has the Latin, Greek, Cyrillic, Armenian, Georgian, Hebrew and
Arabic letters. For others the fonts of the machine are asked, and a text that none of them has is refused: a label of
empty boxes says nothing.

References
----------
DejaVu Fonts 2.37 (https://dejavu-fonts.github.io/); Pango's markup (``lang`` chooses among forms of one character).
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import pyvips
from numpy.typing import NDArray

from pipeline.errors import UsageError
from pipeline.formats._orientation import upright
from pipeline.formats.picture import OutputImage
from pipeline.metadata.description import NO_LANGUAGE

Place = Literal["strip", "corner"]
PLACES: tuple[Place, ...] = ("strip", "corner")

_FONT, _FONT_FILE = "DejaVu Sans", Path(__file__).with_name("dejavu_sans.ttf")
# Letters of a fiftieth of the shorter side can be read where the whole picture can be seen.
_PART, _SMALLEST_PX, _LARGEST_PX = 50, 12, 200
_CORNER_PARTS_YX = (4, 2)  # a mark covers at most a quarter of the height and half of the width
_INK, _PAPER = 0.1, 1.0
# No font has them; Pango draws boxes for them, of one size for all of four digits and one for those of more.
_IN_NO_FONT = ("\ufdd0", "\U0010fffe")


@dataclass(frozen=True)
class Label:
    """What a picture says of itself.

    Attributes
    ----------
    texts : language (BCP 47, or "none") and text; every text is shown, each in a line of its own
    place : "strip", below the picture; "corner", on the picture, at its lower right
    """

    texts: tuple[tuple[str, str], ...]
    place: Place = "strip"

    def __str__(self) -> str:
        return " / ".join(text for _, text in self.texts)


def as_one(labels: Iterable[Label]) -> Label | None:
    """One label that says all; in a strip, if any of them is. None for none."""
    every = tuple(labels)
    if not every:
        return None
    texts = tuple(dict.fromkeys(text for label in every for text in label.texts))
    return Label(texts, "strip" if any(label.place == "strip" for label in every) else "corner")


def labelled(picture: OutputImage, label: Label) -> OutputImage:
    """The picture, upright and with its label. A mark that would cover too much becomes a strip.

    Raises UsageError for a text that no font here can show.
    """
    picture = upright(picture)
    drawn = _drawn(label, picture.shape_yx)
    return _with_strip(picture, drawn) if drawn.is_strip else _with_mark(picture, drawn.ink)


def with_room(picture: OutputImage, label: Label) -> OutputImage:
    """The picture, upright and of the size that :func:`labelled` gives it, with an empty strip. Raises UsageError."""
    picture = upright(picture)
    drawn = _drawn(label, picture.shape_yx)
    return _with_strip(picture, replace(drawn, ink=np.zeros_like(drawn.ink))) if drawn.is_strip else picture


@dataclass(frozen=True)
class _Drawn:
    """The text, (h, w) from 0 for paper to 1 for ink, with its margin."""

    ink: NDArray[np.float32]
    is_strip: bool


def _drawn(label: Label, shape_yx: tuple[int, int]) -> _Drawn:
    height, width = shape_yx
    size_px = min(max(min(shape_yx) // _PART, _SMALLEST_PX), _LARGEST_PX)
    if label.place == "corner" and width >= _CORNER_PARTS_YX[1]:
        ink = _set(label.texts, size_px, width // _CORNER_PARTS_YX[1])
        if ink.shape[0] <= height // _CORNER_PARTS_YX[0] and ink.shape[1] <= width // _CORNER_PARTS_YX[1]:
            return _Drawn(ink, False)
    return _Drawn(_set(label.texts, size_px, width), True)


def _set(texts: Sequence[tuple[str, str]], size_px: int, width_px: int) -> NDArray[np.float32]:
    """The texts, one below the other, with a margin; a letter that is wider than ``width_px`` is cut."""
    margin = min(size_px // 2, max(width_px - 1, 0) // 2)
    inks = [_line(language, text, size_px, max(width_px - 2 * margin, 1)) for language, text in texts]
    height = sum(ink.shape[0] for ink in inks) + (len(inks) + 1) * margin
    made = np.zeros((height, min(max(ink.shape[1] for ink in inks) + 2 * margin, width_px)), np.float32)
    top = margin
    for ink in inks:
        shown = ink[:, : made.shape[1] - margin]
        made[top : top + ink.shape[0], margin : margin + shown.shape[1]] = shown
        top += ink.shape[0] + margin
    return made


def _line(language: str, text: str, size_px: int, width_px: int) -> NDArray[np.float32]:
    """One text, in as many lines as it needs; raises UsageError."""
    if missing := sorted(set(filter(_is_missing, text))):
        raise UsageError(
            f"label {text!r:.80}: no font here has {' '.join(missing[:5])}, and it would be boxes; "
            "install a font of that script, such as one of Noto's"
        )
    return _rendered(text, "" if language == NO_LANGUAGE else language, size_px, width_px)


def _rendered(text: str, language: str, size_px: int, width_px: int) -> NDArray[np.float32]:
    marked = html.escape(text)
    marked = f'<span lang="{html.escape(language)}">{marked}</span>' if language else marked
    try:
        # At 72 dots an inch a point is a pixel.
        image = pyvips.Image.text(
            marked, font=f"{_FONT} {size_px}", fontfile=str(_FONT_FILE), dpi=72, width=width_px, wrap="word-char"
        )
    except pyvips.Error as error:
        raise UsageError(f"label {text!r:.80}: has nothing that can be shown; give another text") from error
    ink: NDArray[np.float32] = image.numpy().reshape(image.height, image.width).astype(np.float32) / 255
    return ink


@lru_cache(4096)
def _is_missing(letter: str) -> bool:
    """True if no font has a letter: what is drawn then has the frame of the box of one that no font has."""
    if unicodedata.category(letter) in ("Zs", "Cc", "Cf", "Mn", "Mc", "Me"):
        return False  # spaces, controls, and marks, which are drawn on another letter
    size_px = 20
    seen = _rendered(letter, "", size_px, 10 * size_px)
    box = _rendered(_IN_NO_FONT[ord(letter) > 0xFFFF], "", size_px, 10 * size_px)
    return seen.shape == box.shape and all(map(np.array_equal, _frame(seen), _frame(box)))


def _frame(box: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
    return box[0], box[-1], box[:, 0], box[:, -1]


def _with_strip(picture: OutputImage, drawn: _Drawn) -> OutputImage:
    height, width = picture.shape_yx

    def window(rows: slice, columns: slice) -> NDArray:
        parts = []
        if rows.start < height:
            parts.append(picture.read_window(slice(rows.start, min(rows.stop, height)), columns))
        if rows.stop > height:
            parts.append(strip(slice(max(rows.start - height, 0), rows.stop - height), columns))
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def strip(rows: slice, columns: slice) -> NDArray:
        ink = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.float32)
        part = drawn.ink[rows, columns]
        ink[:, : part.shape[1]] = part
        return _samples(_PAPER - ink * (_PAPER - _INK), picture)

    return replace(picture, shape_yx=(height + drawn.ink.shape[0], width), read_window=window)


def _with_mark(picture: OutputImage, ink: NDArray[np.float32]) -> OutputImage:
    (height, width), (mark_height, mark_width) = picture.shape_yx, ink.shape
    margin = mark_height // 4
    top, left = max(height - mark_height - margin, 0), max(width - mark_width - margin, 0)
    mark = _samples(_INK + ink * (_PAPER - _INK), picture)

    def window(rows: slice, columns: slice) -> NDArray:
        samples = picture.read_window(rows, columns)
        y0, y1 = max(rows.start, top), min(rows.stop, top + mark_height)
        x0, x1 = max(columns.start, left), min(columns.stop, left + mark_width)
        if y0 >= y1 or x0 >= x1:
            return samples
        samples = samples.copy()
        covered = mark[y0 - top : y1 - top, x0 - left : x1 - left]
        samples[y0 - rows.start : y1 - rows.start, x0 - columns.start : x1 - columns.start] = covered
        return samples

    return replace(picture, read_window=window)


def _samples(gray: NDArray[np.floating], picture: OutputImage) -> NDArray:
    """Gray of 0 to 1 as samples of a picture; alpha is opaque."""
    top = np.iinfo(picture.dtype).max
    made = np.repeat(np.round(gray * top).astype(picture.dtype)[..., None], picture.channels, axis=2)
    if picture.channels == 4:
        made[..., 3] = top
    return made
