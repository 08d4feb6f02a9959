"""Bytes of a picture file to 8-bit RGB, and whether a picture is fit to learn colour from."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.colour.lab import lab_from_rgb
from training.data.files import read_bytes
from training.data.pairs import colour_half

U8 = NDArray[np.uint8]

SMALLEST_PX = 32
LARGEST_PX = 2**27  # every decoding thread holds a whole picture, at three bytes a pixel
_LEAST_CHROMA = 3.0
_GRAY_CHECK_PX = 64
_REDUCED_BYTES = 2**16  # larger files are checked at a quarter of their scale, which is three times faster


def _by_opencv(data: bytes, flags: int) -> U8 | None:
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None
    return None if bgr is None else cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def _by_pillow(data: bytes, flags: int) -> U8 | None:
    # Pillow's decoders raise nearly any built-in exception on damaged files, and such a file must not end the search.
    try:
        from PIL import Image, ImageOps

        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception:
        return None


def decode_rgb(data: bytes, flags: int = cv2.IMREAD_COLOR) -> U8 | None:
    """A picture file's bytes as (H, W, 3) RGB, turned upright by its EXIF orientation, or None if it is unreadable."""
    # OpenCV is faster, but ignores the orientation of AVIF.
    readers = (_by_pillow, _by_opencv) if data[4:12] == b"ftypavif" else (_by_opencv, _by_pillow)
    rgb = readers[0](data, flags)
    return readers[1](data, flags) if rgb is None else rgb


def read_rgb(path: Path) -> U8 | None:
    """(H, W, 3) RGB, for a pair of pictures its colour half, or None if the file cannot be read as a picture."""
    rgb = decode_rgb(read_bytes(path))
    return None if rgb is None else colour_half(rgb)


def is_colour(rgb: U8) -> bool:
    """False for pictures that are gray by any practical standard: mean chroma below 3."""
    small = cv2.resize(rgb, (_GRAY_CHECK_PX, _GRAY_CHECK_PX), interpolation=cv2.INTER_AREA)
    return is_chromatic(lab_from_rgb(small.astype(np.float32) / np.float32(255))[1:])


def is_chromatic(chroma_ab: NDArray[np.float32]) -> bool:
    """True if (2, ...) a*, b* have a mean chroma of at least 3."""
    return float(np.hypot(chroma_ab[0], chroma_ab[1]).mean()) >= _LEAST_CHROMA


def why_unfit(data: bytes) -> str | None:
    """The reason not to train on a picture file with these bytes; None if it is fit."""
    factor = 4 if len(data) >= _REDUCED_BYTES else 1
    rgb = decode_rgb(data, cv2.IMREAD_REDUCED_COLOR_4 if factor > 1 else cv2.IMREAD_COLOR)
    if rgb is None:
        return "unreadable"
    rgb = colour_half(rgb)
    if factor > 1 and min(rgb.shape[:2]) < SMALLEST_PX:  # the true size is unknown: it may not have been reduced
        factor, rgb = 1, decode_rgb(data)
        if rgb is None:
            return "unreadable"
        rgb = colour_half(rgb)
    if min(rgb.shape[:2]) < SMALLEST_PX:
        return f"smaller than {SMALLEST_PX} px"
    if rgb.shape[0] * rgb.shape[1] * factor**2 > LARGEST_PX:
        return f"larger than {LARGEST_PX // 10**6} megapixels"
    return None if is_colour(rgb) else "gray"


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """Silence the decoders' own messages about damaged files, which are listed with a reason anyway."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        cv2.utils.logging.setLogLevel(level)
