"""Pictures for the page: tiles of scans and results in 8 bits as JPEG, small ones, and maps that lie over them.

Nothing is written. Tiles come from the smaller copies that a result has; the scan's are the lightness of the same,
which is the scan's own (:mod:`pipeline.colour.lab`), so that both sides of the curtain fit to the pixel at every size.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from flows.review.previews import Change, Window, changed
from flows.review.upright import Turn
from flows.sheet.thumbnails import LONG_SIDE_PX, thumbnail_path, upright
from pipeline.colour.lab import lightness_from_samples, samples_from_lab
from pipeline.errors import ColorizeError, StoreError
from pipeline.formats import Levels, open_levels
from pipeline.quality.score import disagreement_map
from pipeline.results.sidecar import SIDECAR_ENDING, Sidecar
from pipeline.results.versions import ResultPaths, has_recorded_size
from pipeline.store import ScanStore
from pipeline.support.files import open_file
from pipeline.support.text import reason_of
from pipeline.types import Roi

Side = Literal["scan", "colour"]
TILE_PX = 512
# The formats with smaller copies first, and of these the ones whose tiles cost least.
_ORDER = ("tiff", "cog", "omezarr", "iiif", "jp2", "jpeg", "png")
_QUALITY = 90
_OPEN = 6
_THUMBNAIL_LIMIT_BYTES = 2**20


@dataclass
class _Picture:
    """An open picture; ``users`` are the requests that read it just now."""

    levels: Levels
    users: int = 0
    is_dropped: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class Pictures:
    """Open pictures, the last few of which stay open; threads may share it."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self._open: OrderedDict[tuple[Path, str], _Picture] = OrderedDict()
        self._lock = threading.Lock()

    def sizes(self, sidecar: Path) -> list[tuple[int, int]]:
        """Rows, columns of each level of a result, largest first. Raises ColorizeError if none of it can be read."""
        with self._levels(sidecar) as levels:
            return [(int(height), int(width)) for height, width in levels.levels_yx]

    def tile(
        self,
        sidecar: Path,
        side: Side,
        level: int,
        x: int,
        y: int,
        changes: Sequence[Change] = (),
        turn: Turn | None = None,
    ) -> bytes:
        """A tile as JPEG; ``level`` counts from the whole picture, ``x`` and ``y`` in tiles.

        ``changes`` are tried on what is shown and change nothing that is stored; ``turn`` is that of the whole scan.

        Raises
        ------
        LookupError : no such tile. ColorizeError : the picture cannot be read.
        """
        with self._levels(sidecar) as levels:
            if not 0 <= level < len(levels.levels_yx):
                raise LookupError(level)
            height, width = levels.levels_yx[level]
            # A viewer rounds up where some writers of pyramids round down: its last tile may begin where these end.
            top, left = min(y * TILE_PX, height - 1), min(x * TILE_PX, width - 1)
            if y * TILE_PX > height or x * TILE_PX > width:
                raise LookupError((x, y))
            rows, columns = slice(top, min(top + TILE_PX, height)), slice(left, min(left + TILE_PX, width))
            samples = levels.read(level, rows, columns)
        if side == "scan":
            return _jpeg(_gray(samples))
        if not changes:
            return _jpeg(_eight_bit(samples))
        size_yx = int(height), int(width)
        here = turn.resized(size_yx) if turn else Turn(size_yx)
        return _jpeg(changed(samples, changes, Window(Roi(top, rows.stop, left, columns.stop), here)))

    def samples(self, sidecar: Path, roi: Roi) -> NDArray:
        """(h, w, 3 or 4) samples of a result, upright, at full size and depth. Raises as :meth:`tile`."""
        with self._levels(sidecar) as levels:
            return levels.read(0, roi.rows, roi.columns)

    def small(self, stem: str, sidecar: Path, side: Side) -> bytes:
        """A small picture as JPEG: the contact sheet's, or one that is made now. Raises as :meth:`tile`."""
        path = thumbnail_path(self._output, stem, "before" if side == "scan" else "after")
        with contextlib.suppress(OSError), open_file(path) as stream:
            data = stream.read(_THUMBNAIL_LIMIT_BYTES)
            if data.startswith(b"\xff\xd8") and len(data) < _THUMBNAIL_LIMIT_BYTES:
                return data
        with self._levels(sidecar) as levels:
            sizes = list(enumerate(levels.levels_yx))
            level, (height, width) = next((s for s in reversed(sizes) if max(s[1]) >= LONG_SIDE_PX), sizes[0])
            if max(height, width) > 8 * LONG_SIDE_PX:
                raise StoreError("it has no small copy")
            samples = levels.read(level, slice(0, height), slice(0, width))
        picture = _gray(samples) if side == "scan" else _eight_bit(samples)
        scale = min(1.0, LONG_SIDE_PX / max(picture.shape[:2]))
        size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
        return _jpeg(np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8))

    def doubt(self, sidecar: Path) -> bytes:
        """A map of where colours are doubtful, or tiles disagree, upright, as PNG. Raises StoreError, SidecarError."""
        told = Sidecar.read(sidecar)
        result, source = told.needed("result", told.result), told.needed("source", told.source)
        store = ScanStore.open(sidecar.parent / Path(result.store).name)
        picture = upright(disagreement_map(store, store.version(result.version)), source.metadata.get("orientation"))
        _, encoded = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))
        return encoded.tobytes()

    def close(self) -> None:
        """Close all pictures."""
        with self._lock:
            for picture in self._open.values():
                picture.levels.close()
            self._open.clear()

    @contextlib.contextmanager
    def _levels(self, sidecar: Path) -> Iterator[Levels]:
        """The picture of a result, open as long as it is used, and a while longer."""
        told = Sidecar.read(sidecar)
        key = sidecar, f"{told.version} {told.finished}"
        with self._lock:
            picture = self._open.get(key)
            if picture is None:
                picture = self._open[key] = _Picture(_opened(sidecar, told))
            self._open.move_to_end(key)
            picture.users += 1
            for old in [k for k in self._open if k != key][: max(0, len(self._open) - _OPEN)]:
                dropped = self._open.pop(old)
                dropped.is_dropped = True
                if not dropped.users:
                    dropped.levels.close()
        try:
            yield picture.levels
        except ColorizeError:
            raise
        except LookupError:
            raise
        except Exception as error:  # libraries raise many types
            raise StoreError(f"{sidecar}: its picture cannot be read ({reason_of(error)})") from error
        finally:
            with self._lock:
                picture.users -= 1
                if picture.is_dropped and not picture.users:
                    picture.levels.close()


def _opened(sidecar: Path, told: Sidecar) -> Levels:
    """The first picture of a result that is whole. Raises StoreError."""
    source = told.needed("source", told.whole_source)
    stem = sidecar.name.removesuffix(SIDECAR_ENDING)
    paths = ResultPaths(sidecar.with_name(f"{stem}.zarr"), stem)
    why = "no picture of it is there"
    for name in _ORDER:
        if name not in told.pictures or not has_recorded_size(paths.picture(name), told.pictures[name]):
            continue
        try:
            return open_levels(name, paths.picture(name), source.shape_yx, int(source.metadata.get("orientation") or 1))
        except Exception as error:  # libraries raise many types; another format may be readable
            why = reason_of(error)
    raise StoreError(f"{sidecar}: {why}")


def _eight_bit(samples: NDArray) -> NDArray[np.uint8]:
    """(h, w, 3) of 8 bits for display; transparent parts show what lies in them."""
    if samples.dtype == np.uint16:
        samples = ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.ascontiguousarray(samples[..., :3])


def _gray(samples: NDArray) -> NDArray[np.uint8]:
    """(h, w, 3): the lightness alone."""
    lightness = lightness_from_samples(_eight_bit(samples))
    return np.asarray(samples_from_lab(lightness, np.zeros((2, *lightness.shape), np.float32), np.dtype(np.uint8)))


def _jpeg(picture: NDArray[np.uint8]) -> bytes:
    done, encoded = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not done:
        raise StoreError("a tile that cannot be encoded")
    return encoded.tobytes()
