"""Shared by the formats that libvips writes: the picture as a libvips image, translation of errors, and overviews.

libvips reads from top to bottom and keeps a few rows of tiles. It writes no metadata, because it would rebuild EXIF and
add to it; the formats insert the blocks themselves, unchanged.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyvips
from numpy.typing import NDArray

from pipeline.formats._plain_tiff import write_plain
from pipeline.formats._staging import library_error
from pipeline.formats.picture import OutputImage
from pipeline.support.files import open_file

_PLAIN = "plain.part"
_JPEG_SHRINKS = (8, 4, 2, 1)  # factors that libjpeg supports while decoding
_FROM_THE_TOP = {"access": "sequential"}

# Several workers of one image may wait for each other for ever (libvips issue 4068). Decoding and encoding have one
# thread anyway; what takes time besides is done before, in `write_plain`.
pyvips.concurrency_set(1)
# libvips's warnings do not concern our pictures; errors arrive as exceptions.
logging.getLogger("pyvips").setLevel(logging.CRITICAL + 1)


@contextlib.contextmanager
def image_of(
    picture: OutputImage, folder: Path, threads: int, *, depth: str = "", channels: int = 0
) -> Iterator[pyvips.Image]:
    """``picture`` as an image to write from top to bottom; errors of libvips become OSErrors.

    Parameters
    ----------
    folder : for a temporary file of its samples
    depth : "uint8" to reduce 16 bits to 8
    channels : 3 to leave alpha out
    """
    write_plain(folder / _PLAIN, picture, threads, depth=depth, channels=channels)
    pyvips.cache_set_max(0)  # an operation on an older file of the same name must not answer for this one
    with reopened(folder) as image:
        yield image


@contextlib.contextmanager
def reopened(folder: Path) -> Iterator[pyvips.Image]:
    """The image of :func:`image_of`, once more from its top."""
    try:
        yield pyvips.Image.tiffload(str(folder / _PLAIN), access="sequential")
    except pyvips.Error as error:
        raise library_error(error, folder) from error


def jpeg_overview(path: Path, shape_yx: tuple[int, int], side_px: int) -> NDArray:
    """Samples of a JPEG of ``shape_yx``, reduced during decoding; as ``Format.overview``."""
    shrink = next(each for each in _JPEG_SHRINKS if max(shape_yx) >= each * side_px or each == 1)
    return _overview(path, side_px, lambda source: pyvips.Image.jpegload_source(source, shrink=shrink, **_FROM_THE_TOP))


def png_overview(path: Path, side_px: int) -> NDArray:
    """Samples of a PNG, which is decoded completely but never held as a whole; as ``Format.overview``."""
    return _overview(path, side_px, lambda source: pyvips.Image.pngload_source(source, **_FROM_THE_TOP))


def _overview(path: Path, side_px: int, load: Callable[[pyvips.Source], pyvips.Image]) -> NDArray:
    # By its descriptor: libvips interprets "%" and other characters in a name.
    with open_file(path) as stream:
        image = load(pyvips.Source.new_from_descriptor(stream.fileno()))
        return np.asarray(image.thumbnail_image(side_px, size="down", no_rotate=True).numpy())
