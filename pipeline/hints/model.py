"""``NAME.hints.json``: the colours that people know of places of a scan, with who says so and from where.

``schema.json`` beside this module describes the file, ``docs/hints.md`` what is in it. What is read has been checked:
every number is finite, every colour can be shown.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np

from pipeline.errors import HintError
from pipeline.hints.colours import GRAY, lab_of
from pipeline.shapes import MOST, Shape

FORMAT, VERSION = "colorize-archive hints", 1
LIMIT_BYTES = 50 * 2**20
MOST_HINTS = 10_000
MOST_REACH = 4.0
_TEXTS = ("author", "date", "source")
_KEYS = {"at", "points", "box", "boxes", "polygon", "colour", "reach", *_TEXTS}
_MOST_TEXT = 2000


@dataclass(frozen=True)
class AsIn:
    """The colour that another picture of the same results has at a pixel."""

    picture: str
    x: float
    y: float

    def __str__(self) -> str:
        return f"as in {self.picture} at {self.x:g},{self.y:g}"


@dataclass(frozen=True)
class Hint:
    """A colour of a part of a scan.

    Attributes
    ----------
    colour : as the file has it: a colour as text, or that of another picture
    reach : how far it spreads, in short sides of the scan; None for as far as is usual, 0 for not at all
    author, date, source : who says so, when, and from what; empty if not told
    """

    shape: Shape
    colour: str | AsIn
    reach: float | None = None
    author: str = ""
    date: str = ""
    source: str = ""

    @property
    def is_gray(self) -> bool:
        """Whether the place is to stay without any colour."""
        return isinstance(self.colour, str) and lab_of(self.colour)[1:] == (0.0, 0.0)

    @property
    def spreads(self) -> float | None:
        """Its reach: that of a gray area, such as a mount, ends with the area unless another one is told."""
        return 0.0 if self.reach is None and self.is_gray and self.shape.kind != "points" else self.reach

    def to_json(self) -> dict[str, Any]:
        numbers = [list(each) for each in self.shape.numbers]
        if self.shape.kind == "points":
            where = {"at": numbers[0]} if len(numbers) == 1 else {"points": numbers}
        elif self.shape.kind == "boxes":
            where = {"box": numbers[0]} if len(numbers) == 1 else {"boxes": numbers}
        else:
            where = {"polygon": numbers}
        colour: Any = self.colour
        if isinstance(colour, AsIn):
            colour = {"as_in": colour.picture, "at": [colour.x, colour.y]}
        told = {"reach": self.reach, **{name: getattr(self, name) or None for name in _TEXTS}}
        return {**where, "colour": colour, **{name: value for name, value in told.items() if value is not None}}

    @classmethod
    def from_json(cls, values: Any) -> Hint:
        """Raises HintError, KeyError, TypeError, ValueError for anything but the output of :meth:`to_json`."""
        if not isinstance(values, Mapping):
            raise HintError("is no object with a place and a colour")
        if unknown := sorted(values.keys() - _KEYS):
            raise HintError(f"has {unknown[0]!r:.40}, which says nothing to this release; leave it out")
        if "colour" not in values:
            raise HintError(f'has no "colour"; give one such as "#556b2f" or "{GRAY}"')
        reach = values.get("reach")
        if reach is not None and not 0 <= (reach := _number(reach)) <= MOST_REACH:
            raise HintError(f"has a reach of {reach:g}, give 0 to {MOST_REACH:g} short sides of the scan")
        texts = {name: _text(name, values.get(name, "")) for name in _TEXTS}
        hint = cls(_shape(values), _colour(values["colour"]), reach, **texts)
        if isinstance(hint.colour, str):
            lab_of(hint.colour)
        return hint


def _shape(values: Mapping[str, Any]) -> Shape:
    given = [name for name in ("at", "points", "box", "boxes", "polygon") if name in values]
    if len(given) != 1:
        raise HintError(f"has {len(given) or 'no'} places; give one of at, points, box, boxes, polygon")
    name, numbers = given[0], values[given[0]]
    several = [numbers] if name in ("at", "box") else numbers
    size = 4 if name in ("box", "boxes") else 2
    if not isinstance(several, Sequence) or isinstance(several, str) or not several:
        raise HintError(f"{name} has no numbers; give pixels of the scan")
    every = tuple(_numbers(name, each, size) for each in several)
    if name == "polygon" and len(every) < 3:
        raise HintError(f"polygon has {len(every)} corners, and no area; give three or more")
    if size == 4 and any(box[2] <= 0 or box[3] <= 0 for box in every):
        raise HintError(f"{name} is empty; give x, y, width and height, both above 0")
    return Shape("points" if name in ("at", "points") else "boxes" if size == 4 else "polygon", every)


def _numbers(name: str, values: Any, size: int) -> tuple[float, ...]:
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != size:
        raise HintError(f"{name} is {values!r:.60}; give {size} numbers each, pixels of the scan")
    found = tuple(_number(value) for value in values)
    if any(abs(value) > MOST for value in found):
        raise HintError(f"{name} is {values!r:.60}, which no scan has; give pixels of the scan")
    return found


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise HintError(f"{value!r:.40} is no number")
    return value if isinstance(value, int) else float(value)


def _colour(value: Any) -> str | AsIn:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping) and set(value) == {"lab"}:
        lab = _numbers("lab", value["lab"], 3)
        return f"lab({', '.join(f'{each:g}' for each in lab)})"
    if isinstance(value, Mapping) and set(value) == {"as_in", "at"} and isinstance(value["as_in"], str):
        x, y = _numbers("at", value["at"], 2)
        return AsIn(value["as_in"], x, y)
    raise HintError(f'colour {value!r:.60}: give such as "#556b2f", or {{"as_in": "NAME", "at": [x, y]}}')


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > _MOST_TEXT or any(ord(c) < 32 for c in value):
        raise HintError(f"{name} is {value!r:.40}; give one line of text")
    return value.strip()


@dataclass(frozen=True)
class Hints:
    """All hints of a scan, in the order in which they were given."""

    hints: tuple[Hint, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, "version": VERSION, "hints": [hint.to_json() for hint in self.hints]}

    @classmethod
    def from_json(cls, values: Any) -> Hints:
        """Raises HintError for anything but the output of :meth:`to_json`."""
        if not isinstance(values, Mapping) or values.get("format") != FORMAT:
            raise HintError(f'is no file of hints: "format" is not "{FORMAT}"; see docs/hints.md')
        if values.get("version") != VERSION:
            raise HintError(
                f"is of version {values.get('version')!r:.20}, and only {VERSION} is known, so it could be taken for "
                "something else; write it in that version"
            )
        listed = values.get("hints")
        if not isinstance(listed, list) or len(listed) > MOST_HINTS:
            raise HintError(f'"hints" is no list of at most {MOST_HINTS} hints')
        hints = []
        for number, each in enumerate(listed, 1):
            try:
                hints.append(Hint.from_json(each))
            except HintError as error:
                raise HintError(f"hint {number}: {error}") from error
        return cls(tuple(hints))

    @property
    def sha256(self) -> str:
        """Of all that is told, however the file is written."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def check(self, shape_yx: tuple[int, int]) -> None:
        """Raises HintError where one lies outside a scan of this size, or two give one place different colours."""
        for number, hint in enumerate(self.hints, 1):
            if not hint.shape.is_inside(shape_yx):
                low = hint.shape.bounds
                raise HintError(
                    f"hint {number} at {low.x0},{low.y0}: is outside the scan, which has {shape_yx[1]} x {shape_yx[0]} "
                    "pixels; give pixels inside it"
                )
            pixels = hint.shape.pixels(1)
            if not len(pixels):
                raise HintError(f"hint {number}: has no pixel's middle in it, so it would do nothing; make it larger")
        self._check_overlap()

    def _check_overlap(self) -> None:
        bounds = np.array([astuple(hint.shape.bounds) for hint in self.hints]).reshape(-1, 4)
        for number, hint in enumerate(self.hints, 1):
            y0, y1, x0, x1 = bounds[: number - 1].T
            low_y, high_y, low_x, high_x = bounds[number - 1]
            meeting = (y0 < high_y) & (low_y < y1) & (x0 < high_x) & (low_x < x1)
            for before in (np.flatnonzero(meeting) + 1).tolist():
                other = self.hints[before - 1]
                # Strokes of one file have no pixel in common.
                are_strokes = min(len(hint.shape.numbers), len(other.shape.numbers)) > 1
                if other.colour == hint.colour or (are_strokes and hint.shape.kind == other.shape.kind == "boxes"):
                    continue
                if (place := _shared(hint.shape, other.shape)) is not None:
                    raise HintError(
                        f"hints {before} and {number} give {place[1]},{place[0]} two colours, {other.colour} and "
                        f"{hint.colour}; only one can hold there: remove one"
                    )

    def with_hint(self, hint: Hint) -> Hints:
        return replace(self, hints=(*self.hints, hint))


def _shared(one: Shape, other: Shape) -> tuple[int, int] | None:
    """The first pixel that belongs to both, as y, x; None where none does. It goes by bands of rows."""
    a, b = one.bounds, other.bounds
    y0, y1, x0, x1 = max(a.y0, b.y0), min(a.y1, b.y1), max(a.x0, b.x0), min(a.x1, b.x1)
    if y0 >= y1 or x0 >= x1:
        return None
    rows = max(1, _BAND_PX // (x1 - x0))
    for y in range(y0, y1, rows):
        roi = replace(a, y0=y, y1=min(y + rows, y1), x0=x0, x1=x1)
        masks = one.mask(roi), other.mask(roi)
        if masks[0] is not None and masks[1] is not None and (both := masks[0] & masks[1]).any():
            row, column = divmod(int(both.argmax()), x1 - x0)
            return y + row, x0 + column
    return None


_BAND_PX = 2**22
