"""What the formats that libvips writes share: the picture as one of its images, its errors as ours, and overviews.

libvips reads from the top to the bottom and keeps a few rows of tiles. It is asked to write no metadata: it makes EXIF
anew and adds to it, so the formats put the blocks in themselves, as they are.
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
_JPEG_SHRINKS = (8, 4, 2, 1)  # what libjpeg can decode at
_FROM_THE_TOP = {"access": "sequential"}

# Warnings of libvips about nothing of ours; errors arrive as exceptions.
logging.getLogger("pyvips").setLevel(logging.CRITICAL + 1)


@contextlib.contextmanager
def image_of(
    picture: OutputImage, folder: Path, threads: int, *, depth: str = "", channels: int = 0
) -> Iterator[pyvips.Image]:
    """``picture`` to be written from top to bottom; errors of libvips become OSErrors.

    Parameters
    ----------
    folder : where its samples may lie meanwhile
    depth : "uint8" to make 8 bit of 16
    channels : 3 to leave alpha out
    """
    write_plain(folder / _PLAIN, picture, threads, depth=depth, channels=channels)
    pyvips.cache_set_max(0)  # an operation on an older file of the same name must not answer for this one
    pyvips.concurrency_set(threads)
    with reopened(folder) as image:
        yield image


@contextlib.contextmanager
def reopened(folder: Path) -> Iterator[pyvips.Image]:
    """The image that :func:`image_of` has given, once more from its top."""
    try:
        yield pyvips.Image.tiffload(str(folder / _PLAIN), access="sequential")
    except pyvips.Error as error:
        raise library_error(error, folder) from error


def jpeg_overview(path: Path, shape_yx: tuple[int, int], side_px: int) -> NDArray:
    """Samples of a JPEG of ``shape_yx``, made smaller while it is decoded; as ``Format.overview``."""
    shrink = next(each for each in _JPEG_SHRINKS if max(shape_yx) >= each * side_px or each == 1)
    return _overview(path, side_px, lambda source: pyvips.Image.jpegload_source(source, shrink=shrink, **_FROM_THE_TOP))


def png_overview(path: Path, side_px: int) -> NDArray:
    """Samples of a PNG, which is decoded as a whole but not held as one; as ``Format.overview``."""
    return _overview(path, side_px, lambda source: pyvips.Image.pngload_source(source, **_FROM_THE_TOP))


def _overview(path: Path, side_px: int, load: Callable[[pyvips.Source], pyvips.Image]) -> NDArray:
    # By its descriptor: "%" and the like in a name mean something to libvips.
    with open_file(path) as stream:
        image = load(pyvips.Source.new_from_descriptor(stream.fileno()))
        return np.asarray(image.thumbnail_image(side_px, size="down", no_rotate=True).numpy())
