"""What changed between two versions of a scan's colours: figures, the windows to look at, and a heat map."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.colour.lab import samples_from_lab
from pipeline.errors import StoreError, UsageError
from pipeline.quality.difference import FULL_PX, Difference, difference, difference_map
from pipeline.quality.score import disagreement_map
from pipeline.results.sidecar import Sidecar, sidecar_of, version_of
from pipeline.results.versions import ResultPaths
from pipeline.store import ChromaVersion, ScanStore
from pipeline.support.files import write_whole
from pipeline.types import Roi

# Answers with a smaller share than this are not reported.
_LEAST_SHARE = 0.02


def choose_versions(store: ScanStore, old: str | None, new: str | None) -> tuple[ChromaVersion, ChromaVersion]:
    """The two named versions (a prefix of the name will do), by default the current one and the newest of the others.

    Raises
    ------
    StoreError : fewer than two versions are complete. UsageError : a name matches no version, or several.
    """
    names = [name for name in store.version_names() if store.version(name).is_complete]
    current = version_of(ResultPaths.of(store.path.parent, store.path.stem).sidecar)
    chosen_new = named_version(names, new) if new else current if current in names else next(reversed(names), None)
    others = [name for name in names if name != chosen_new]
    chosen_old = named_version(names, old) if old else next(reversed(others), None)
    if chosen_new is None or chosen_old is None:
        there = ", ".join(names) or "none"
        raise StoreError(f"{store.path}: two versions are needed and there are: {there}; colorize-archive reprocess")
    if chosen_old == chosen_new:
        raise UsageError(f"{chosen_new} is the current version, and would be compared with itself; give two versions")
    return store.version(chosen_old), store.version(chosen_new)


def named_version(names: list[str], text: str) -> str:
    """The one of ``names`` that is, or else begins with, ``text``. Raises UsageError."""
    found = [name for name in names if name == text] or [name for name in names if name.startswith(text)]
    if len(found) != 1:
        raise UsageError(f"version {text!r} fits {len(found)} of: {', '.join(names)}; give one of these")
    return found[0]


def compare(store: ScanStore, old: ChromaVersion, new: ChromaVersion, full_px: int = FULL_PX) -> Difference:
    """CIEDE2000 between two versions, window by window, over at most ``full_px`` pixels. Raises StoreError."""

    def reader(version: ChromaVersion) -> Any:
        scale = np.float32(version.scale_factor)

        def read(roi: Roi) -> NDArray[np.float32]:
            return version.read(roi).astype(np.float32) * scale

        return read

    return difference(store.info.shape_yx, reader(old), reader(new), full_px=full_px)


def write_map(found: Difference, path: Path) -> None:
    """The heat map as PNG. Raises UsageError, OutputError."""
    _write_png(difference_map(found), path)


def write_disagreement(result: Path, path: Path) -> str:
    """Write a PNG that maps the doubt of a version or, without doubt, the disagreement of its tiles.

    The version is that of a result, or a store's current or newest. Returns what the map's colours mean.

    Raises
    ------
    UsageError : the path is not a PNG's. StoreError : no store, or no complete version. OutputError : no room.
    """
    store, version = _version_of(result)
    _write_png(disagreement_map(store, version), path)
    if version.doubt is not None:
        return "dark where colours are likely, yellow where a CIEDE2000 of 20 and more to the truth is to be expected"
    return "dark where tiles agree, yellow where they differ by 20 CIELAB units and more, in squares of 32 px"


def answers_at(result: Path, place: str) -> tuple[str, ...]:
    """The colours that the palette network thinks possible at ``place`` (X,Y in pixels of the scan), a line for each.

    Raises
    ------
    UsageError : no such place. StoreError : no store, no complete version, or its model has no palette network.
    """
    store, version = _version_of(result)
    height, width = store.info.shape_yx
    numbers = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*", place)
    x, y = map(int, numbers.groups()) if numbers else (width, height)
    if not (x < width and y < height):
        raise UsageError(
            f"--at {place!r}: not a pixel of {store.source.name}; give X,Y from 0,0 to {width - 1},{height - 1}"
        )
    answers = version.answers()
    if answers is None:
        raise StoreError(
            f"{store.path}: version {version.name} is of a model without a palette network; leave --at out"
        )
    rows, columns = answers.shape[2:]
    cell = answers[:, :, y * rows // height, x * columns // width]
    lightness = np.full((1, 1), store.read_lightness(Roi(y, y + 1, x, x + 1)).mean(), np.float32)

    def line(a: float, b: float, share: float) -> str:
        red, green, blue = samples_from_lab(lightness, np.array([[[a]], [[b]]], np.float32), np.dtype(np.uint8))[0, 0]
        return f"{share:.0%} a* {a:.0f}, b* {b:.0f} (#{red:02x}{green:02x}{blue:02x})"

    return tuple(line(*answer) for answer in cell if answer[2] >= _LEAST_SHARE)


def _version_of(result: Path) -> tuple[ScanStore, ChromaVersion]:
    """The store and version of a result; for a store, its current or newest version."""
    sidecar = sidecar_of(result)
    store = ScanStore.open(result if sidecar is None else _store_of(result, sidecar))
    names = [name for name in store.version_names() if store.version(name).is_complete]
    wanted = version_of(ResultPaths.of(store.path.parent, store.path.stem).sidecar if sidecar is None else sidecar)
    if wanted not in names and sidecar is not None:
        raise StoreError(
            f"{result}: its version {wanted} is not in {store.path} any more, another one's would be wrong; "
            f"give {store.path} for that of the newest, or reprocess with --keep"
        )
    name = wanted if wanted in names else next(reversed(names), None)
    if name is None:
        raise StoreError(f"{store.path}: no complete version; run the same command again")
    return store, store.version(name)


def _store_of(result: Path, path: Path) -> Path:
    sidecar = Sidecar.find(path)
    if sidecar is None or sidecar.result is None:
        raise StoreError(f"{result}: neither a store nor a result; give a NAME.zarr or NAME.color.tif")
    return result.parent / sidecar.result.store


def _write_png(picture: NDArray[np.uint8], path: Path) -> None:
    if path.suffix.lower() != ".png":
        raise UsageError(f"{path}: the map is a PNG; give a name that ends in .png")
    done, encoded = cv2.imencode(".png", picture[..., ::-1])
    if not done:
        raise UsageError(f"{path}: the map could not be encoded; leave --map out")
    write_whole(path, encoded.tobytes())
