"""What the formats that libvips writes share: the picture as one of its images, and its errors as ours.

libvips reads from the top to the bottom and keeps a few rows of tiles. It is asked to write no metadata: it makes EXIF
anew and adds to it, so the formats put the blocks in themselves, as they are.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import pyvips

from pipeline.writers._beside import library_error
from pipeline.writers._picture import Picture
from pipeline.writers._plain import write_plain

_PLAIN = "plain.part"

# Warnings of libvips about nothing of ours; errors arrive as exceptions.
logging.getLogger("pyvips").setLevel(logging.CRITICAL + 1)


@contextlib.contextmanager
def image_of(
    picture: Picture, folder: Path, threads: int, *, depth: str = "", channels: int = 0
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
