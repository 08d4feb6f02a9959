"""Other colours from colours that are there: calmer or stronger, warmer or cooler, some hues changed.

A grade is a function of a pixel's a*, b* and L* alone, and of where it is in a region, and changes no L*: it is done
block by block, and the lightness stays the scan's. What leaves the gamut is brought back when a picture is made of it,
as always (:func:`pipeline.colour.lab.samples_from_lab`).

References
----------
CIE 15:2018, 8.2.1 (a*, b*, chroma C*_ab, hue angle h_ab) and 4.1.2 (illuminants D).
"""

from __future__ import annotations

import cmath
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.colour.colourfulness import colourfulness
from pipeline.colour.hues import HUES, darkness, smooth_step
from pipeline.colour.lab import rgb_from_lab
from pipeline.colour.regions import Region
from pipeline.errors import UsageError
from pipeline.support.row_bands import row_strips
from pipeline.types import Roi

F32 = NDArray[np.float32]
C64 = NDArray[np.complex64]
Mask = NDArray[np.bool_]

MOST_FACTOR = 4.0
MOST_WARMTH = 20.0
MOST_COLOURFULNESS = 150.0
# From D65 to D50, along which daylight becomes warmer, in a*, b*: 17.8 units in all.
_WARM_AB = (0.1347, 0.9909)
# L* over which warmth comes and goes, counted from ink and from paper.
_UNTINTED, _TINTED = 5.0, 25.0
# Of the colourfulness that is asked for; the pictures that it is measured on leave the rest of two per cent.
_TOLERANCE, _LEAST_TOLERANCE = 0.002, 0.02
_STEPS = 24
# Places round the hue circle: the furthest apart are 0.02 degrees away from each other.
_ROUND = 2**14


@dataclass(frozen=True, order=True)
class HueChange:
    """What becomes of one hue: its chroma times ``factor``, or where ``to`` names another hue, turned to that."""

    hue: str
    to: str = ""
    factor: float = 1.0

    @property
    def is_none(self) -> bool:
        return self.factor == 1 and self.to in ("", self.hue)

    def __str__(self) -> str:
        return f"{self.hue}>{self.to}" if self.to else f"{self.hue}:{str(self.factor).removesuffix('.0')}"


@dataclass(frozen=True)
class Grade:
    """What is done to colours, in this order.

    Attributes
    ----------
    hues : changes of hues, all by the hue that a colour has before; their order does not matter
    saturation : factor on a*, b*, and so on C*_ab; 0 is gray
    warmth : CIELAB units that colours are moved by along daylight's own line, from D65 towards D50 where above 0, which
        is 17.8 away; it fades to nothing from L* 25 down to 5 and from 75 up to 95, so that ink and paper stay as they
        are
    colourfulness : to be reached by a further factor on a*, b* (:func:`factor_for`); None for no such goal
    regions : what is done to parts of the picture after all this, one after the other
    """

    saturation: float = 1.0
    warmth: float = 0.0
    hues: tuple[HueChange, ...] = ()
    colourfulness: float | None = None
    regions: tuple[LocalGrade, ...] = ()

    @classmethod
    def parse(
        cls,
        saturation: str | float | None = None,
        warmth: str | float | None = None,
        hue_map: str | None = None,
        colourfulness: str | float | None = None,
    ) -> Grade:
        """What a user asks for; None leaves a part as it is. Raises UsageError.

        Parameters
        ----------
        hue_map : entries with commas between: ``violet:0.4`` for a factor, ``blue>brown`` to turn one to another
        """
        factor = _number("saturation", saturation, 0, MOST_FACTOR, "0, gray, to 4; 1 changes nothing")
        goal = _number("colourfulness", colourfulness, 0, MOST_COLOURFULNESS, "0, gray, to 150; 33 is moderate")
        if factor is not None and goal is not None:
            raise UsageError(
                "saturation and colourfulness are both a factor on all chroma, and the second would undo the first; "
                "give one of them"
            )
        return cls(
            saturation=1.0 if factor is None else factor,
            warmth=_number("warmth", warmth, -MOST_WARMTH, MOST_WARMTH, "-20, cool, to 20, warm") or 0.0,
            hues=_parse_hues(hue_map or ""),
            colourfulness=goal,
        )

    @property
    def is_identity(self) -> bool:
        """Whether every colour stays as it is."""
        return self == Grade()

    def to_json(self) -> dict[str, Any]:
        hues = ", ".join(map(str, self.hues))
        whole = {
            "saturation": self.saturation,
            "warmth": self.warmth,
            "hue_map": hues,
            "colourfulness": self.colourfulness,
        }
        # Without regions it has the text, and with it the version's name, that it had before there were any.
        return whole | ({"regions": [each.to_json() for each in self.regions]} if self.regions else {})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Grade:
        """What :meth:`to_json` gave. Raises KeyError, TypeError, ValueError where it is something else."""
        goal = values["colourfulness"]
        return cls(
            float(values["saturation"]),
            float(values["warmth"]),
            _parse_hues(values["hue_map"]),
            None if goal is None else float(goal),
            tuple(map(LocalGrade.from_json, values.get("regions", ()))),
        )

    @property
    def whole(self) -> Grade:
        """What is done to the picture as a whole."""
        return replace(self, regions=())

    def then(self, other: Grade) -> Grade:
        """What becomes of this grade when another is asked for.

        A grade of the whole picture takes its place. One of regions is added; it takes the place of what was done to
        the same region before, and one that changes nothing ends that.
        """
        if not other.regions:
            return other
        others = {each.region.shapes for each in other.regions}  # the same part fades in over another width, too
        kept = tuple(each for each in self.regions if each.region.shapes not in others)
        return replace(self, regions=kept + tuple(each for each in other.regions if not each.grade.is_identity))

    def __str__(self) -> str:
        parts = [
            f"saturation {self.saturation:g}" if self.saturation != 1 else "",
            f"warmth {self.warmth:+g}" if self.warmth else "",
            f"hues {' '.join(map(str, self.hues))}" if self.hues else "",
            "" if self.colourfulness is None else f"colourfulness {self.colourfulness:g}",
            *(f"within {each.region}: {each.grade}" for each in self.regions),
        ]
        return ", ".join(filter(None, parts)) or "as it is"

    def apply(self, chroma_ab: F32, lightness: F32, coloured: Mask | None = None, factor: float = 1.0) -> F32:
        """The chroma of a block after what is done to the whole picture.

        Parameters
        ----------
        chroma_ab : (2, h, w) a*, b*
        lightness : (h, w) CIE L* in [0, 100]
        coloured : (h, w) where there is a picture; elsewhere nothing is tinted. None is everywhere
        factor : that of :func:`factor_for`, where a colourfulness was asked for

        Returns
        -------
        (2, h, w) a*, b*; as given, to the bit, where the grade is none
        """
        graded = np.array(chroma_ab, np.float32)
        scale = np.float32(self.saturation * factor)
        for rows in row_strips(lightness.shape):
            strip = graded[:, rows]
            if self.hues:
                strip[:] = _changed(self.hues, strip, lightness[rows])
            if scale != 1:
                strip *= scale
            if self.warmth:
                tint = np.float32(self.warmth) * _tintable(lightness[rows])
                if coloured is not None:
                    tint *= coloured[rows]
                for plane, share in zip(strip, _WARM_AB, strict=True):
                    plane += tint * np.float32(share)
        return graded

    def apply_regions(
        self, chroma_ab: F32, roi: Roi, shape_yx: tuple[int, int], lightness: F32, coloured: Mask | None = None
    ) -> F32:
        """The chroma of ``roi`` after what is done to regions; outside them as given, to the bit.

        Parameters
        ----------
        chroma_ab, lightness, coloured : as for :meth:`apply`, which came before
        shape_yx : of the scan
        """
        made = np.array(chroma_ab, np.float32)
        for each in self.regions:
            part = each.region.part_of(roi)
            weight = None if part is None else each.region.weight(part, shape_yx)
            if part is None or weight is None:
                continue
            rows, columns = slice(part.y0 - roi.y0, part.y1 - roi.y0), slice(part.x0 - roi.x0, part.x1 - roi.x0)
            there, bare = made[:, rows, columns], None if coloured is None else coloured[rows, columns]
            graded = each.grade.apply(there, np.ascontiguousarray(lightness[rows, columns]), bare)
            mixed = np.where(weight < 1, there + weight * (graded - there), graded)
            made[:, rows, columns] = np.where(weight > 0, mixed, there)
        return made

    def touches(self, roi: Roi) -> bool:
        """Whether any colour in ``roi`` can change."""
        return not self.whole.is_identity or any(each.region.part_of(roi) for each in self.regions)


@dataclass(frozen=True)
class LocalGrade:
    """What is done to a part of a picture; ``grade`` has no regions of its own and no goal."""

    region: Region
    grade: Grade

    def to_json(self) -> dict[str, Any]:
        values = self.grade.to_json()
        del values["colourfulness"]
        return {**self.region.to_json(), **values}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LocalGrade:
        """What :meth:`to_json` gave. Raises KeyError, TypeError, ValueError where it is something else."""
        return cls(Region.from_json(values), Grade.from_json({**values, "colourfulness": None, "regions": ()}))


def factor_for(grade: Grade, chroma_ab: F32, lightness: F32) -> float:
    """The factor on chroma with which a graded picture has the colourfulness that is asked for; 1 where none is.

    Parameters
    ----------
    chroma_ab, lightness : (2, h, w) a*, b* and (h, w) L* of the picture, or of pixels from all over it. A picture that
        was shrunk by means would be too calm: their colours have less spread

    Returns
    -------
    0 to 4, found by bisection to 0.2 % of the goal; the gamut is that of the finished picture

    Raises
    ------
    UsageError : no such factor reaches it.

    References
    ----------
    Hasler and Süsstrunk, as in :func:`pipeline.colour.colourfulness.colourfulness`.
    """
    goal = grade.colourfulness
    if goal is None or not lightness.size:
        return 1.0
    # The hues that colours have before do not hang on the factor.
    changed = replace(grade, warmth=0.0).apply(chroma_ab, lightness)
    rest = Grade(warmth=grade.warmth)

    def reached(factor: float) -> float:
        return colourfulness(rgb_from_lab(lightness, rest.apply(changed, lightness, factor=factor)))

    low, high = 0.0, MOST_FACTOR
    least, most = reached(low), reached(high)
    within = max(_TOLERANCE * goal, _LEAST_TOLERANCE)
    if goal < least - within:
        raise UsageError(
            f"colourfulness {goal:g}: the warmth alone comes to {least:.1f}; give more, or less warmth", "colourfulness"
        )
    if goal > most + within:
        raise UsageError(
            f"colourfulness {goal:g}: {MOST_FACTOR:g} times the colours that are there come to {most:.1f} only; give "
            "less, or other colours first (--vivid)",
            "colourfulness",
        )
    for _ in range(_STEPS):
        middle = (low + high) / 2
        there = reached(middle)
        if abs(there - goal) <= within:
            return middle
        low, high = (middle, high) if there < goal else (low, middle)
    return (low + high) / 2


def _changed(hues: tuple[HueChange, ...], chroma_ab: F32, lightness: F32) -> F32:
    """Colours with some hues changed: each is a* + i b* times a complex number that depends smoothly on its hue.

    The hues round the circle share it out, so the same factor for each of them is that factor; brown comes on top.
    Between a hue that is turned and its neighbours the turned and the plain colour are averaged: that passes through
    less chroma, not through the hues between them.
    """
    place, (bright, dark) = _place_round(chroma_ab), _tables(hues)
    factor = bright.take(place, mode="clip")
    if dark.size:
        dim = darkness(lightness)
        for more in dark:
            factor *= 1 + dim * more.take(place, mode="clip")
    colour = np.empty(lightness.shape, np.complex64)
    colour.real, colour.imag = chroma_ab
    colour *= factor
    return np.stack([colour.real, colour.imag])


def _place_round(chroma_ab: F32) -> NDArray[np.intp]:
    """Where round the circle a colour lies, in steps of :func:`_tables`.

    A hue angle takes an arc tangent, which is slower than all else that is done to a pixel. Round the square
    abs(a*) + abs(b*) = 1 a place is as good, and takes a division; it comes to the same bits wherever a pixel lies.
    """
    a, b = chroma_ab
    place = np.abs(a)
    place += np.abs(b)
    np.maximum(place, np.float32(1e-30), out=place)  # gray has no hue, and any does
    np.divide(b, place, out=place)
    # From -1 to 1 where a* is positive, and then from 1 to 3.
    np.subtract(np.float32(1), place, out=place)
    np.copysign(place, a, out=place)
    np.subtract(np.float32(2), place, out=place)
    place *= np.float32(_ROUND / 4)
    place += np.float32(0.5)
    index: NDArray[np.intp] = place.astype(np.intp)
    return index


@lru_cache(maxsize=8)
def _tables(hues: tuple[HueChange, ...]) -> tuple[C64, C64]:
    """What the colours at each place round the circle are multiplied by, and what each change of a dark hue adds to 1.

    Returns
    -------
    (_ROUND + 1,) factors, and (changes, _ROUND + 1), which are still to be multiplied by how dark a colour is
    """
    along = np.arange(_ROUND + 1) * (4 / _ROUND)
    b = np.where(along < 2, along - 1, 3 - along)
    a = np.where(along < 2, 1, -1) * (1 - np.abs(b))
    degrees = np.degrees(np.arctan2(b, a)).astype(np.float32)
    gain, turn = (np.ones(degrees.shape, np.complex128) for _ in range(2))
    dark = []
    for change in hues:
        more = HUES[change.hue].weight(degrees, np.zeros_like(degrees)) * (_multiplier(change) - 1)
        if HUES[change.hue].is_dark:
            dark.append(more)
        elif change.to:
            turn += more
        else:
            gain += more
    return (gain * turn).astype(np.complex64), np.array(dark, np.complex64).reshape(-1, degrees.size)


def _multiplier(change: HueChange) -> complex:
    if not change.to:
        return change.factor
    return cmath.exp(1j * math.radians(HUES[change.hue].turn_to(HUES[change.to])))


def _tintable(lightness: F32) -> F32:
    """How much of the warmth a lightness takes, from 0 for ink and paper to 1."""
    inside = np.minimum(lightness, np.float32(100) - lightness)
    return smooth_step((inside - np.float32(_UNTINTED)) / np.float32(_TINTED - _UNTINTED))


def _number(name: str, value: str | float | None, least: float, most: float, range_text: str) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        raise UsageError(
            f"{name} {value!r}: not a number that colours can be changed by; give one from {range_text}",
            name.partition(" ")[0],
        )
    return number + 0.0  # minus zero is another text


def _parse_hues(text: str) -> tuple[HueChange, ...]:
    """The changes of a hue map, in one order whatever the text's; what changes nothing is left out. UsageError."""
    changes = [_parse_hue(entry) for entry in filter(None, (part.strip() for part in text.split(",")))]
    named = [(change.hue, bool(change.to)) for change in changes]
    for change in changes:
        if named.count((change.hue, bool(change.to))) > 1:
            raise UsageError(
                f"hue-map {text!r}: {change.hue} is changed twice, and only once would count; give one", "hue-map"
            )
    return tuple(sorted(change for change in changes if not change.is_none))


def _parse_hue(entry: str) -> HueChange:
    match = re.fullmatch(r"(\w+)\s*(?:>\s*(\w+)|:\s*(\S+))", entry)
    if match is None:
        raise UsageError(
            f"hue-map {entry!r}: neither a factor nor a hue; give such as violet:0.4 or blue>brown", "hue-map"
        )
    hue, to, factor = match[1].lower(), (match[2] or "").lower(), match[3]
    for name in filter(None, (hue, to)):
        if name not in HUES:
            raise UsageError(
                f"hue-map {entry!r}: {name} is not a hue that is known; give one of {', '.join(HUES)}", "hue-map"
            )
    number = _number(f"hue-map {entry!r}: factor", factor, 0, MOST_FACTOR, "0, gray, to 4")
    return HueChange(hue, to, 1.0 if number is None else number)
