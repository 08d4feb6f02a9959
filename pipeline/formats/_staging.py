"""Shared by all formats that a library writes: write into a folder beside the target, move the result when complete.

The folder is called NAME.part. It is deleted with everything that a library left in it, also that of an earlier run
that was killed. No file in it has a picture's ending, so that none is mistaken for a scan.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.endings import PART
from pipeline.errors import UsageError
from pipeline.formats.picture import SRGB_PROFILE, OutputImage
from pipeline.support.files import remove, writing

_FULL_BELOW_BYTES = 2**20
_MESSAGE_CHARACTERS = 200


class WindowError(Exception):
    """Carries an error of ``read_window`` past the handlers of write errors."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


@contextlib.contextmanager
def writing_picture(path: Path) -> Iterator[None]:
    """Turn an OSError of the body into an OutputError about ``path``; raise an error from :func:`window` unchanged."""
    failure: Exception | None = None
    try:
        with writing(path):
            yield
    except WindowError as error:
        failure = error.reason
    if failure is not None:
        # Outside of "writing", so that an OSError from reading is not reported as a write error.
        raise failure


@contextlib.contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path``, under a name that libraries accept; errors as in ``writing_picture``.

    Raises
    ------
    UsageError : its name is not UTF-8, and this system offers no other name for it
    """
    part = path.with_name(path.name + PART)
    with writing_picture(path):
        try:
            remove(part)
            part.mkdir()
            with _in_utf8(part) as folder:
                yield folder
        finally:
            with contextlib.suppress(OSError):
                remove(part)


@contextlib.contextmanager
def _in_utf8(folder: Path) -> Iterator[Path]:
    """``folder``, or another path to it if its name is not UTF-8, because libraries accept only UTF-8."""
    if os.fsencode(folder) == str(folder).encode("utf-8", "replace"):
        yield folder
        return
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        numbered = Path(f"/proc/self/fd/{opened}")  # proc(5): valid in all threads of this process
        if not numbered.is_dir():
            raise UsageError(
                f"{str(folder.parent)!r}: a name that is not UTF-8, which libraries cannot be given here; "
                "rename it, or write tiff"
            )
        yield numbered
    finally:
        os.close(opened)


def place_file(made: Path, path: Path) -> int:
    """Move the finished file ``made`` to ``path``, replacing an older one. Returns its size in bytes."""
    with made.open("rb") as stream:
        os.fsync(stream.fileno())
    size_bytes = made.stat().st_size
    os.replace(made, path)
    return size_bytes


def place_folder(made: Path, path: Path) -> int:
    """Move the finished folder ``made`` to ``path``, replacing an older one. Returns the bytes of its files."""
    size_bytes = 0
    for file in sorted(made.rglob("*")):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
            size_bytes += file.stat().st_size
    if not path.is_dir():
        made.rename(path)  # a file in its place is an error, as is a folder in the place of a file
        return size_bytes
    old = made.with_name(f"{path.name}.old")
    path.rename(old)
    try:
        made.rename(path)
    except OSError:
        old.rename(path)
        raise
    return size_bytes


def library_error(error: Exception, folder: Path) -> OSError:
    """The OSError that a C library reported as text while it wrote into ``folder``."""
    text = " ".join(str(error).split())
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS):
        if os.strerror(code) in text:
            return OSError(code, os.strerror(code))
    with contextlib.suppress(OSError):
        # Less free space than the picture takes counts as a full disk: the library may have removed its own file.
        largest = max((file.stat().st_size for file in folder.iterdir()), default=0)
        if shutil.disk_usage(folder).free < largest + _FULL_BELOW_BYTES:
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return OSError(errno.EIO, text[:_MESSAGE_CHARACTERS] or type(error).__name__)


def window(picture: OutputImage, rows: slice, columns: slice) -> NDArray:
    """(h, w, channels) samples of ``picture``, checked for shape and type; errors are raised as WindowError."""
    try:
        samples = picture.read_window(rows, columns)
    except Exception as error:
        raise WindowError(error) from error
    expected = (rows.stop - rows.start, columns.stop - columns.start, picture.channels)
    if samples.shape != expected or samples.dtype != picture.dtype:
        raise UsageError(
            f"rows {rows.start}-{rows.stop}, columns {columns.start}-{columns.stop}: {samples.dtype} {samples.shape} "
            f"where {picture.dtype} {expected} was announced, the picture would be sheared; return one window as asked"
        )
    return samples


def to_uint8(samples: NDArray) -> NDArray[np.uint8]:
    """Samples of 8 or 16 bits scaled to 8 bits, rounded.

    >>> to_uint8(np.array([0, 128, 129, 65535], np.uint16)).tolist()
    [0, 0, 1, 255]
    """
    if samples.dtype == np.uint8:
        return samples
    wide: NDArray[np.uint32] = samples.astype(np.uint32)
    wide *= 255
    wide += 32767
    wide //= 65535
    return wide.astype(np.uint8)


def left_out(picture: OutputImage, reasons: Mapping[str, str]) -> dict[str, str]:
    """The ``reasons``, by what a format cannot hold, that apply to ``picture``."""
    embedded, place = picture.embedded, picture.embedded.place
    has: dict[str, Any] = {
        "depth": picture.dtype != np.uint8,
        "alpha": picture.channels == 4,
        "nodata": picture.nodata is not None,
        "icc": embedded.icc not in (b"", SRGB_PROFILE),
        "exif": embedded.exif,
        "iptc": embedded.iptc,
        "xmp": embedded.xmp,
        "photoshop": embedded.photoshop,
        "tags": embedded.tags,
        "resolution": picture.resolution,
        "orientation": picture.orientation not in (None, 1),
        "place": place and (place.crs or place.transform or place.tags),
        "gcps": place and place.gcps,
        "rpcs": place and place.rpcs,
    }
    return {name: reason for name, reason in reasons.items() if has[name]}
