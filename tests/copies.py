"""Stand-ins for coloured copies that were made elsewhere: photographs as another program might give them back."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]


@dataclass(frozen=True)
class Handling:
    """What a program does to a picture.

    Attributes
    ----------
    megapixels : of what it gives back, at most
    scale : of the picture within it
    shift_xy : in its pixels
    degrees : by which it is turned
    cropped : share of the width and of the height that is cut off, half of it on each side
    gain, offset, gamma : of its samples, which are 0 to 1
    quality : of JPEG
    """

    megapixels: float = 1.0
    scale: float = 1.012
    shift_xy: tuple[float, float] = (3.0, -2.0)
    degrees: float = 0.4
    cropped: float = 0.02
    gain: float = 0.9
    offset: float = 0.06
    gamma: float = 1.0
    quality: int = 85


USUAL = Handling()
ONLY_SHRUNK = Handling(scale=1, shift_xy=(0, 0), degrees=0, cropped=0, gain=1, offset=0)


def handled(rgb: U8, handling: Handling = USUAL) -> tuple[U8, NDArray[np.float64]]:
    """The (h, w, 3) copy of a photograph, and the (2, 3) matrix from its places to those of the copy (corner first)."""
    height, width = rgb.shape[:2]
    less = min(1.0, np.sqrt(handling.megapixels * 1e6 / (height * width)))
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), -handling.degrees, less * handling.scale)
    cut_x, cut_y = width * less * handling.cropped / 2, height * less * handling.cropped / 2
    size = round(width * less - 2 * cut_x), round(height * less - 2 * cut_y)
    middle = np.array([width, height]) * (less - 1) / 2 - (cut_x, cut_y)
    turn[:, 2] += middle + handling.shift_xy
    centres = turn.copy()  # OpenCV counts from the middle of the first pixel
    centres[:, 2] += turn[:, :2] @ (0.5, 0.5) - 0.5
    small = cv2.GaussianBlur(rgb, (0, 0), 0.4 / less) if less < 0.8 else rgb
    laid = cv2.warpAffine(small, centres, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    toned = handling.gain * (laid / 255.0) ** handling.gamma + handling.offset
    return through_jpeg(np.rint(np.clip(toned, 0, 1) * 255).astype(np.uint8), handling.quality), turn


def warped(rgb: U8, share: float) -> U8:
    """The picture with its places moved by up to ``share`` of its short side, as edit models do."""
    height, width = rgb.shape[:2]
    short = min(height, width)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    along, down = x + share * short * np.sin(8 * y / short), y + share * short * np.cos(7 * x / short)
    return np.asarray(cv2.remap(rgb, along, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT), np.uint8)


def through_jpeg(rgb: U8, quality: int) -> U8:
    """Written as JPEG and read again."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), np.uint8)
