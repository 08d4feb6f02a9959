"""Small pictures of scans and results, for the contact sheet: ``<output>/thumbs/NAME.before.jpg`` and ``.after.jpg``.

A result's thumbnail comes from the smallest sufficient copy in its own file. The scan has no smaller copies, so it is
read once, window by window, from the store or else from the scan file: memory does not grow with the scan. The JPEG
comment of a thumbnail says what it was made from; a thumbnail that is up to date is not made again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator
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
LONG_SIDE_PX = 320

_QUALITY = 82
_WINDOW_PX = 2048  # as the store's shards, so that each is read once
_COMMENT, _OURS = b"\xff\xfe", b"colorize-archive "
_HEAD_BYTES = 1024


@dataclass(frozen=True)
class Shown:
    """A result as the sheet shows it.

    Attributes
    ----------
    before, after : paths of the thumbnails; None if one could not be made
    troubles : the reasons, one line each
    """

    before: Path | None = None
    after: Path | None = None
    troubles: tuple[str, ...] = ()


def thumbnail_path(output: Path, stem: str, kind: Kind) -> Path:
    """Path of a scan's thumbnail; ``stem`` may contain sub-folders."""
    return output / FOLDER / f"{stem}.{kind}.jpg"


def thumbnails(output: Path, stem: str, sidecar: Sidecar) -> Shown:
    """Make the thumbnails of a current result that are missing or out of date.

    Parameters
    ----------
    sidecar : the sidecar of the result

    Raises
    ------
    SidecarError : the sidecar does not name the scan and version of the result.
    OutputError : the thumbnails cannot be written.
    """
    source, result = sidecar.needed("source", sidecar.whole_source), sidecar.needed("result", sidecar.result)
    folder, store = (output / stem).parent, Path(result.store).name
    makers: dict[Kind, tuple[str, Callable[[], NDArray[np.uint8]]]] = {
        "before": (
            f"{source.sha256} {source.page}",
            lambda: _before(folder / store, source),
        ),
        "after": (
            f"{result.version} {sidecar.finished}",
            lambda: _after(folder / Path(stem).name, sidecar.pictures, source.shape_yx),
        ),
    }
    made: dict[str, Path] = {}
    troubles = []
    for kind, (of, make) in makers.items():
        path = thumbnail_path(output, stem, kind)
        try:
            if _made_of(path) != of:
                _write(path, upright(make(), source.metadata.get("orientation")), of)
            made[kind] = path
        except OutputError:
            raise
        except Exception as error:  # a foreign file in the picture's place must not stop the list
            troubles.append(f"no picture of it {kind}: {reason_of(error)}")
    return Shown(made.get("before"), made.get("after"), tuple(troubles))


def remove_others(output: Path, keep: Collection[Path]) -> None:
    """Remove our thumbnails that are not in ``keep``, and folders left empty. Raises OutputError."""
    root = output / FOLDER
    endings = tuple(f".{kind}.jpg" for kind in KINDS)
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


def shrunk(read: Read, shape_yx: tuple[int, int]) -> NDArray:
    """Means over squares of 2**n px, window by window, to a long side of 320 to 640 px; small scans keep their size."""
    factor = 1
    while max(shape_yx) >= 2 * factor * LONG_SIDE_PX:
        factor *= 2
    side = max(_WINDOW_PX, factor)

    def band(y: int) -> Iterator[NDArray]:
        for x in range(0, shape_yx[1], side):
            yield _square_means(read(Roi(y, y + side, x, x + side).clipped(shape_yx)), factor)

    return np.concatenate([np.concatenate(list(band(y)), axis=1) for y in range(0, shape_yx[0], side)])


def _square_means(samples: NDArray, factor: int) -> NDArray:
    below, right = (-extent % factor for extent in samples.shape[:2])
    if below or right:
        samples = cv2.copyMakeBorder(samples, 0, below, 0, right, cv2.BORDER_REPLICATE)
    height, width = (extent // factor for extent in samples.shape[:2])
    return np.asarray(cv2.resize(samples, (width, height), interpolation=cv2.INTER_AREA))


def _before(store_path: Path, source: SourceRecord) -> NDArray[np.uint8]:
    """A small picture of the scan, from its store or else its file, if these still have the same bytes."""
    shape_yx = source.shape_yx
    try:
        store = ScanStore.open(store_path)
        if store.source.sha256 == source.sha256 and store.has_whole_scan():
            return _eight_bit(shrunk(store.read_scan, shape_yx), store.info.tone)
    except StoreError:
        pass  # users may delete stores
    path = Path(source.path)
    if path.is_file() and path.stat().st_size != source.bytes:
        raise StoreError(f"{path} has changed since it was coloured")
    with open_scan(path, ReadOptions(page=source.page, salvage=bool(source.holes))) as reader:
        if reader.info.shape_yx != shape_yx:
            raise StoreError(f"{path} has changed since it was coloured")
        return _eight_bit(shrunk(lambda roi: reader.read(roi.rows, roi.columns), shape_yx), reader.info.tone)


def _eight_bit(samples: NDArray, tone: Tone = "srgb") -> NDArray[np.uint8]:
    """Samples (h, w) or (h, w, 3) as sRGB of 8 bits, for display."""
    if tone == "lightness":
        lightness = lightness_from_samples(samples, tone)
        no_chroma = np.zeros((2, *lightness.shape), np.float32)
        return np.asarray(samples_from_lab(lightness, no_chroma, np.dtype(np.uint8)))
    if samples.dtype == np.uint16:
        samples = ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.asarray(samples[..., :3] if samples.ndim == 3 else samples, np.uint8)


def _after(start: Path, pictures: Collection[str], shape_yx: tuple[int, int]) -> NDArray[np.uint8]:
    """A small picture of the result, from the picture whose overview costs least."""
    there = [name for name in FORMATS if name in pictures and _picture(start, name).exists()]
    if not there:
        raise StoreError(f"{start}.color.*: the picture is not there")
    name = min(there, key=lambda each: FORMATS[each].OVERVIEW_COST)
    return _eight_bit(FORMATS[name].overview(_picture(start, name), shape_yx, LONG_SIDE_PX))


def _picture(start: Path, name: str) -> Path:
    return start.with_name(start.name + ENDINGS[name])


def _write(path: Path, picture: NDArray, of: str) -> None:
    """Write a JPEG with a long side of at most 320 px and ``of`` as its comment. Raises OutputError."""
    scale = min(1.0, LONG_SIDE_PX / max(picture.shape[:2]))
    width, height = (max(1, round(extent * scale)) for extent in picture.shape[1::-1])
    small = cv2.resize(np.ascontiguousarray(picture), (width, height), interpolation=cv2.INTER_AREA)
    bgr = small if small.ndim == 2 else cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
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
            head = stream.read(_HEAD_BYTES)
    except OSError:
        return None
    comment = head[6 : 4 + int.from_bytes(head[4:6], "big")]
    if head[2:4] != _COMMENT or not comment.startswith(_OURS):
        return None
    return comment.removeprefix(_OURS).decode("utf-8", "replace")
