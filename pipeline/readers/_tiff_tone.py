"""How light the colours of a TIFF are: by its profile, by its colour space, or as sRGB says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tifffile
from numpy.typing import NDArray

from .. import profiles
from ..types import Tone as ToneName
from ._tiff_kind import ICCLAB, Kind, photometric_of
from ._window import Samples

_ICC = 34675


@dataclass(frozen=True)
class Tone:
    """What becomes of (h, w, channels) samples of uint8 or uint16, and what they mean afterwards."""

    name: ToneName
    channels: int
    dtype: np.dtype
    convert: Callable[[Samples], Samples]
    note: str = ""
    dropped: tuple[str, ...] = ()


def tone_of(page: tifffile.TiffPage, kind: Kind, dtype: np.dtype, channels: int) -> Tone:
    """Of the directory's colours, given as ``channels`` samples of ``dtype``."""
    if kind.model == "lab":
        top = 65280 if photometric_of(page) == ICCLAB and dtype == np.uint16 else np.iinfo(dtype).max
        lightness = profiles.lab_to_lightness(top)
        return Tone("lightness", 1, np.dtype(np.uint16), lightness, "L* as the file gives it")
    plain = _plain(kind, dtype, channels)
    if _ICC not in page.tags:
        return plain
    icc = bytes(page.tags.valueof(_ICC, default=b"") or b"")
    try:
        return _by_profile(icc, dtype, channels) or plain
    except profiles.ProfileError as error:
        return Tone(plain.name, plain.channels, plain.dtype, plain.convert, plain.note, (f"ICC profile ({error})",))


def _plain(kind: Kind, dtype: np.dtype, channels: int) -> Tone:
    if kind.model == "cmyk":
        return Tone("srgb", 3, dtype, _rgb_of_cmyk, "CMYK without a profile, by the plain formula (1 - C) (1 - K)")
    return Tone("srgb", channels, dtype, _first if channels == 1 else _same)


def _by_profile(icc: bytes, dtype: np.dtype, channels: int) -> Tone | None:
    """None where the profile says what sRGB says."""
    space: profiles.Space = {1: "gray", 3: "rgb", 4: "cmyk"}[channels]  # type: ignore[assignment]
    gray = channels == 1
    spread = gray and icc[16:20] == b"RGB "  # some writers give gray pictures the profile of their screen
    function = profiles.to_lightness(icc, "rgb" if spread else space, dtype)
    if function is None:
        return None

    def convert(samples: Samples) -> Samples:
        if spread:
            samples = np.repeat(samples, 3, axis=2)
        return function(samples[:, :, 0] if gray and not spread else samples)

    note = f"through its ICC profile '{profiles.description(icc)}'"
    return Tone("lightness", 1, np.dtype(np.uint16), convert, note)


def _first(samples: Samples) -> Samples:
    return samples[:, :, 0]


def _same(samples: Samples) -> Samples:
    return samples


def _rgb_of_cmyk(samples: Samples) -> Samples:
    top = int(np.iinfo(samples.dtype).max)
    paper = top - samples.astype(np.uint64)
    return np.asarray((paper[:, :, :3] * paper[:, :, 3:4] + top // 2) // top, samples.dtype)


def unpremultiplied(samples: Samples, opacity: Samples) -> Samples:
    """Colours that were multiplied with opacity, without it; black where there is none."""
    top = int(np.iinfo(samples.dtype).max)
    alpha: NDArray = opacity.astype(np.uint64)[:, :, None]
    divided = (samples * np.uint64(top) + alpha // np.uint64(2)) // np.maximum(alpha, np.uint64(1))
    return np.asarray(np.where(alpha == 0, 0, np.minimum(divided, np.uint64(top))), samples.dtype)
