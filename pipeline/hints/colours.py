"""The colour that a hint gives: as a browser names it, or as CIE L*a*b*."""

from __future__ import annotations

import re
from functools import cache

import numpy as np

from pipeline.colour.lab import lab_from_rgb, rgb_from_lab
from pipeline.errors import HintError

GRAY = "gray"
_HEX = re.compile(r"#([0-9a-fA-F]{3}|[0-9a-fA-F]{6})")
# Of a* and b*, which sRGB with 8 bits cannot tell apart near white.
_IN_GAMUT = 1.0


@cache
def _names() -> dict[str, tuple[int, int, int]]:
    from pydantic.color import COLORS_BY_NAME  # only where a colour is given by its name

    return {**COLORS_BY_NAME, "rebeccapurple": (102, 51, 153)}


def lab_of(text: str) -> tuple[float, float, float]:
    """L*, a*, b* (D65) of ``#556b2f``, ``#ccc``, a CSS name, or ``lab(42, -18, 31)``. Raises HintError.

    References
    ----------
    W3C, CSS Color Module Level 4, 6.1 (names) and 5.2 (hexadecimal); IEC 61966-2-1 (sRGB); CIE 15:2018, 8.2.1.
    """
    given = text.strip()
    if found := re.fullmatch(r"lab\(([^()]*)\)", given, re.IGNORECASE):
        parts = re.split(r"[\s,]+", found[1].strip())
        try:
            lightness, a, b = map(float, parts)
        except ValueError as error:
            raise HintError(
                f"colour {text!r}: not three numbers, so it is no colour; give such as lab(42, -18, 31)"
            ) from error
        return in_gamut((lightness, a, b))
    if _HEX.fullmatch(given):
        digits = given[1:] if len(given) == 7 else "".join(2 * digit for digit in given[1:])
        return _of_rgb(tuple(bytes.fromhex(digits)))
    if (rgb := _names().get(given.lower())) is not None:
        return _of_rgb(rgb)
    raise HintError(
        f"colour {text!r:.60}: not a colour that is known; give one such as #556b2f, a CSS name such as olivedrab, "
        "lab(42, -18, 31) or gray"
    )


def _of_rgb(rgb: tuple[int, ...]) -> tuple[float, float, float]:
    if len(set(rgb)) == 1:
        return float(lab_from_rgb(np.full((1, 1, 3), rgb[0] / 255, np.float32))[0, 0, 0]), 0.0, 0.0
    lightness, a, b = (
        float(plane[0, 0]) for plane in lab_from_rgb(np.array(rgb, np.float32)[None, None] / np.float32(255))
    )
    return lightness, a, b


def in_gamut(lab: tuple[float, float, float]) -> tuple[float, float, float]:
    """``lab`` as it is. Raises HintError where no picture can show it."""
    if not (all(np.isfinite(lab)) and 0 <= lab[0] <= 100):
        raise HintError(f"colour lab{lab}: L* is from 0 to 100, and all three are numbers; give one that is")
    lightness, a, b = (np.full((1, 1), value, np.float32) for value in lab)
    shown = lab_from_rgb(rgb_from_lab(lightness, np.stack([a, b])))
    if float(np.hypot(shown[1] - a, shown[2] - b)[0, 0]) > _IN_GAMUT:
        near = ", ".join(f"{float(plane[0, 0]):.0f}" for plane in shown)
        raise HintError(
            f"colour lab({', '.join(f'{value:g}' for value in lab)}): is outside sRGB, no picture could show it; the "
            f"nearest one of its hue and lightness is lab({near})"
        )
    return lab
