"""Small pictures of scans and results, for the contact sheet: ``<output>/thumbs/NAME.before.jpg`` and ``.after.jpg``.

Beside each lies a large one of at most 2048 px for a closer look, ``NAME.before.2048.jpg``, unless the scan is no
larger than a thumbnail. Scan and result have the same size, to the pixel.

A result's picture comes from the smallest sufficient copy in its own file. The scan has no smaller copies, so it is
read once, window by window, from the store or else from the scan file: memory does not grow with the scan. The JPEG
comment of a picture says what it was made from; one that is up to date is not made again.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.colour.lab import lightness_from_samples, samples_from_lab
from pipeline.errors import OutputError, StoreError
from pipeline.formats import ENDINGS, FORMATS
from pipeline.readers import open_scan
from pipeline.results.sidecar import Sidecar, SourceRecord
from pipeline.store import ScanStore
from pipeline.support.files import open_file, write_whole, writing
from pipeline.support.text import reason_of
from pipeline.types import ReadOptions, Roi, Tone

Kind = Literal["before", "after"]
Read = Callable[[Roi], NDArray]

FOLDER = "thumbs"
KINDS: tuple[Kind, ...] = ("before", "after")
LONG_SIDE_PX, LARGE_SIDE_PX = 320, 2048

_QUALITY, _LARGE_QUALITY = 82, 85
_WINDOW_PX = 2048  # as the store's shards, so that each is read once
_COMMENT, _OURS = b"\xff\xfe", b"colorize-archive "
HEAD_BYTES = 1024  # what a picture was made from stands in them
_TURNED = (5, 6, 7, 8)  # orientations that exchange rows and columns


@dataclass(frozen=True)
class Shown:
    """A result as the sheet shows it.

    Attributes
    ----------
    before, after : paths of the thumbnails; None if one could not be made
    before_large, after_large : paths of the large pictures; None where there is none
    troubles : the reasons, one line each
    """

    before: Path | None = None
    after: Path | None = None
    before_large: Path | None = None
    after_large: Path | None = None
    troubles: tuple[str, ...] = ()

    @property
    def paths(self) -> set[Path]:
        """All pictures that are there."""
        every = (self.before, self.after, self.before_large, self.after_large)
        return {path for path in every if path is not None}


def thumbnail_path(output: Path, stem: str, kind: Kind) -> Path:
    """Path of a scan's thumbnail; ``stem`` may contain sub-folders."""
    return output / FOLDER / f"{stem}.{kind}.jpg"


def large_path(output: Path, stem: str, kind: Kind) -> Path:
    """Path of a scan's large picture. No scan's thumbnail has such a name, for it has another ending."""
    return output / FOLDER / f"{stem}.{kind}.{LARGE_SIDE_PX}.jpg"


def thumbnails(output: Path, stem: str, sidecar: Sidecar, makes_large: bool = True) -> Shown:
    """Make the thumbnails and large pictures of a current result that are missing or out of date.

    Parameters
    ----------
    sidecar : the sidecar of the result
    makes_large : make all large pictures that are missing; without it, only those of thumbnails that are made

    Raises
    ------
    SidecarError : the sidecar does not name the scan and version of the result.
    OutputError : the pictures cannot be written.
    """
    source, result = sidecar.needed("source", sidecar.whole_source), sidecar.needed("result", sidecar.result)
    folder, store = (output / stem).parent, Path(result.store).name
    makers: dict[Kind, tuple[str, Callable[[int], NDArray]]] = {
        "before": (
            f"{source.sha256} {source.page}",
            lambda side_px: _before(folder / store, source, side_px),
        ),
        "after": (
            f"{result.version} {sidecar.finished}",
            lambda side_px: _after(folder / Path(stem).name, sidecar.pictures, source, side_px),
        ),
    }
    made: dict[str, Path] = {}
    troubles = []
    for kind, (of, make) in makers.items():
        try:
            _make(output, stem, kind, of, source.shape_yx, make, makes_large)
        except OutputError:
            raise
        except Exception as error:  # a foreign file in the picture's place must not stop the list
            troubles.append(f"no picture of it {kind}: {reason_of(error)}")
        for name, path in ((kind, thumbnail_path), (f"{kind}_large", large_path)):
            if _made_of(found := path(output, stem, kind)) == of:
                made[name] = found
    return Shown(**made, troubles=tuple(troubles))


def _make(
    output: Path,
    stem: str,
    kind: Kind,
    of: str,
    shape_yx: tuple[int, int],
    make: Callable[[int], NDArray],
    makes_large: bool,
) -> None:
    """Make the thumbnail and the large picture of one kind, as far as they are not there, from one reading."""
    small, large = thumbnail_path(output, stem, kind), large_path(output, stem, kind)
    wants_small = _made_of(small) != of
    wants_large = (makes_large or wants_small) and max(shape_yx) > LONG_SIDE_PX and _made_of(large) != of
    if not (wants_small or wants_large):
        return
    picture = make(LARGE_SIDE_PX if wants_large else LONG_SIDE_PX)
    if wants_large:
        _write(large, picture, _LARGE_QUALITY, of)
    if wants_small:
        _write(small, _fitted(picture, picture.shape[:2], LONG_SIDE_PX), _QUALITY, of)


def remove_others(output: Path, keep: Collection[Path]) -> None:
    """Remove our pictures that are not in ``keep``, and folders left empty. Raises OutputError."""
    root = output / FOLDER
    endings = tuple(ending for kind in KINDS for ending in (f".{kind}.jpg", f".{kind}.{LARGE_SIDE_PX}.jpg"))
    with writing(root):
        for parent, _, names in os.walk(root, topdown=False):
            for name in names:
                path = Path(parent, name)
                if name.endswith(endings) and path not in keep and _made_of(path) is not None:
                    path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty
                Path(parent).rmdir()


def upright(picture: NDArray, orientation: int | None) -> NDArray:
    """A picture (h, w) or (h, w, 3) turned upright by TIFF's tag 274; unknown orientations change nothing."""
    turned: dict[int, Callable[[], NDArray]] = {
        2: lambda: picture[:, ::-1],
        3: lambda: picture[::-1, ::-1],
        4: lambda: picture[::-1],
        5: lambda: picture.swapaxes(0, 1),
        6: lambda: np.rot90(picture, -1),
        7: lambda: np.rot90(picture, 2).swapaxes(0, 1),
        8: lambda: np.rot90(picture),
    }
    return turned.get(orientation or 1, lambda: picture)()


def shrunk(read: Read, shape_yx: tuple[int, int], side_px: int = LONG_SIDE_PX) -> NDArray:
    """Means over squares of 2**n px, window by window, to a long side of ``side_px`` to twice that.

    Scans that are smaller keep their size.
    """
    factor = 1
    while max(shape_yx) >= 2 * factor * side_px:
        factor *= 2
    side = max(_WINDOW_PX, factor)
    height, width = (-(-extent // factor) for extent in shape_yx)
    small: NDArray | None = None
    for y, x in itertools.product(range(0, shape_yx[0], side), range(0, shape_yx[1], side)):
        part = _square_means(read(Roi(y, y + side, x, x + side).clipped(shape_yx)), factor)
        if small is None:
            small = np.empty((height, width, *part.shape[2:]), part.dtype)
        top, left = y // factor, x // factor
        small[top : top + part.shape[0], left : left + part.shape[1]] = part
    assert small is not None, shape_yx
    return small


def _square_means(samples: NDArray, factor: int) -> NDArray:
    below, right = (-extent % factor for extent in samples.shape[:2])
    if below or right:
        samples = cv2.copyMakeBorder(samples, 0, below, 0, right, cv2.BORDER_REPLICATE)
    height, width = (extent // factor for extent in samples.shape[:2])
    return np.asarray(cv2.resize(samples, (width, height), interpolation=cv2.INTER_AREA))


def _before(store_path: Path, source: SourceRecord, side_px: int) -> NDArray[np.uint8]:
    """The scan upright, from its store or else its file, if these still have the same bytes."""
    shape_yx, turn = source.shape_yx, source.metadata.get("orientation")
    try:
        store = ScanStore.open(store_path)
        if store.source.sha256 == source.sha256 and store.has_whole_scan():
            samples = _fitted(shrunk(store.read_scan, shape_yx, side_px), shape_yx, side_px)
            return upright(_eight_bit(samples, store.info.tone), turn)
    except StoreError:
        pass  # users may delete stores
    path = Path(source.path)
    if path.is_file() and path.stat().st_size != source.bytes:
        raise StoreError(f"{path} has changed since it was coloured")
    with open_scan(path, ReadOptions(page=source.page, salvage=bool(source.holes))) as reader:
        if reader.info.shape_yx != shape_yx:
            raise StoreError(f"{path} has changed since it was coloured")
        samples = shrunk(lambda roi: reader.read(roi.rows, roi.columns), shape_yx, side_px)
        return upright(_eight_bit(_fitted(samples, shape_yx, side_px), reader.info.tone), turn)


def _eight_bit(samples: NDArray, tone: Tone = "srgb") -> NDArray[np.uint8]:
    """Samples (h, w) or (h, w, 3) as sRGB of 8 bits, for display."""
    if tone == "lightness":
        lightness = lightness_from_samples(samples, tone)
        no_chroma = np.zeros((2, *lightness.shape), np.float32)
        return np.asarray(samples_from_lab(lightness, no_chroma, np.dtype(np.uint8)))
    if samples.dtype == np.uint16:
        samples = ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if samples.ndim == 3:  # gray with or without transparency has one or two channels
        samples = samples[..., :3] if samples.shape[2] >= 3 else samples[..., 0]
    return np.asarray(samples, np.uint8)


def _after(start: Path, pictures: Collection[str], source: SourceRecord, side_px: int) -> NDArray[np.uint8]:
    """The result upright, from the picture whose overview costs least."""
    there = [name for name in FORMATS if name in pictures and _picture(start, name).exists()]
    if not there:
        raise StoreError(f"{start}.color.*: the picture is not there")
    name = min(there, key=lambda each: FORMATS[each].OVERVIEW_COST)
    turn = source.metadata.get("orientation")
    shape_yx = source.shape_yx
    if FORMATS[name].is_upright:
        shape_yx, turn = (shape_yx[::-1] if turn in _TURNED else shape_yx), None
    samples = _copy(_picture(start, name), name, shape_yx, side_px)
    return upright(_eight_bit(_fitted(samples, shape_yx, side_px)), turn)


def _copy(path: Path, name: str, shape_yx: tuple[int, int], side_px: int) -> NDArray:
    """The smallest copy of a picture of ``shape_yx`` that has ``side_px`` or all of it."""
    samples = FORMATS[name].overview(path, shape_yx, side_px)
    if max(samples.shape[:2]) >= min(side_px, max(shape_yx)):
        return samples
    # Whole pictures in a IIIF folder end at some size; its tiles do not.
    with FORMATS[name].open_levels(path, shape_yx) as levels:
        sizes = list(enumerate(levels.levels_yx))
        level, (height, width) = next((s for s in reversed(sizes) if max(s[1]) >= side_px), sizes[0])
        return levels.read(level, slice(0, height), slice(0, width))


def _picture(start: Path, name: str) -> Path:
    return start.with_name(start.name + ENDINGS[name])


def _fitted(samples: NDArray, shape_yx: tuple[int, int], side_px: int) -> NDArray:
    """Samples (h, w[, channels]) of a picture of ``shape_yx``, with a long side of at most ``side_px``.

    The size comes from ``shape_yx`` alone, so that scan and result get the same.
    """
    scale = min(1.0, side_px / max(shape_yx))
    height, width = (max(1, round(extent * scale)) for extent in shape_yx)
    if samples.shape[:2] == (height, width):
        return samples
    return np.asarray(cv2.resize(np.ascontiguousarray(samples), (width, height), interpolation=cv2.INTER_AREA))


def _write(path: Path, picture: NDArray, quality: int, of: str) -> None:
    """Write a JPEG with ``of`` as its comment. Raises OutputError."""
    bgr = np.ascontiguousarray(picture if picture.ndim == 2 else picture[..., ::-1])
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    comment = _OURS + of.encode()
    segment = _COMMENT + (len(comment) + 2).to_bytes(2, "big") + comment
    data = encoded.tobytes()
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, data[:2] + segment + data[2:])


def _made_of(path: Path) -> str | None:
    """The comment of a thumbnail, which is its first segment; None if there is no thumbnail of ours."""
    try:
        with open_file(path) as stream:
            head = stream.read(HEAD_BYTES)
    except OSError:
        return None
    comment = head[6 : 4 + int.from_bytes(head[4:6], "big")]
    if head[2:4] != _COMMENT or not comment.startswith(_OURS):
        return None
    return comment.removeprefix(_OURS).decode("utf-8", "replace")
