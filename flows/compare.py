"""What changed between two versions of a scan's colours: figures, the windows to look at, and a heat map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from pipeline.difference import FULL_PX, Difference, difference, difference_map
from pipeline.errors import StoreError, UsageError
from pipeline.files import write_whole
from pipeline.grid import Roi
from pipeline.manifest import ResultPaths, read_sidecar, sidecar_of, version_of
from pipeline.quality import disagreement_map
from pipeline.store import ChromaVersion, ScanStore


def choose_versions(store: ScanStore, old: str | None, new: str | None) -> tuple[ChromaVersion, ChromaVersion]:
    """The two named versions (a beginning of the name will do), else the current one and the newest other.

    Raises
    ------
    StoreError : there are not two that are complete. UsageError : a name that fits none, or several.
    """
    names = [name for name in store.version_names() if store.version(name).is_complete]
    current = version_of(ResultPaths.of(store.path.parent, store.path.stem).sidecar)
    chosen_new = _named(names, new) if new else current if current in names else next(reversed(names), None)
    others = [name for name in names if name != chosen_new]
    chosen_old = _named(names, old) if old else next(reversed(others), None)
    if chosen_new is None or chosen_old is None:
        there = ", ".join(names) or "none"
        raise StoreError(f"{store.path}: two versions are needed and there are: {there}; colorize-archive reprocess")
    if chosen_old == chosen_new:
        raise UsageError(f"{chosen_new} is the current version, and would be compared with itself; give two versions")
    return store.version(chosen_old), store.version(chosen_new)


def _named(names: list[str], text: str) -> str:
    found = [name for name in names if name == text] or [name for name in names if name.startswith(text)]
    if len(found) != 1:
        raise UsageError(f"version {text!r} fits {len(found)} of: {', '.join(names)}; give one of these")
    return found[0]


def compare(store: ScanStore, old: ChromaVersion, new: ChromaVersion, full_px: int = FULL_PX) -> Difference:
    """CIEDE2000 between two versions, by windows, of at most ``full_px`` pixels. Raises StoreError."""

    def reader(version: ChromaVersion) -> Any:
        scale = np.float32(version.scale_factor)

        def read(roi: Roi) -> NDArray[np.float32]:
            return version.read(roi).astype(np.float32) * scale

        return read

    return difference(store.info.shape_yx, reader(old), reader(new), full_px=full_px)


def write_map(found: Difference, path: Path) -> None:
    """The heat map as PNG. Raises UsageError, OutputError."""
    _write_png(difference_map(found), path)


def write_disagreement(result: Path, path: Path) -> None:
    """Where the tiles of a result, or of a store's current or newest version, disagree, as PNG.

    Raises
    ------
    UsageError : the path is not a PNG's. StoreError : no store, or no complete version. OutputError : no room.
    """
    sidecar = sidecar_of(result)
    store = ScanStore.open(result if sidecar is None else _store_of(result, sidecar))
    names = [name for name in store.version_names() if store.version(name).is_complete]
    wanted = version_of(ResultPaths.of(store.path.parent, store.path.stem).sidecar if sidecar is None else sidecar)
    if wanted not in names and sidecar is not None:
        raise StoreError(
            f"{result}: its version {wanted} is not in {store.path} any more, another one's map would be wrong; "
            f"give {store.path} for that of the newest, or reprocess with --keep"
        )
    name = wanted if wanted in names else next(reversed(names), None)
    if name is None:
        raise StoreError(f"{store.path}: no complete version to map; run the same command again")
    _write_png(disagreement_map(store, store.version(name)), path)


def _store_of(result: Path, sidecar: Path) -> Path:
    try:
        return result.parent / str((read_sidecar(sidecar) or {})["result"]["store"])
    except (KeyError, TypeError) as error:
        raise StoreError(f"{result}: neither a store nor a result; give a NAME.zarr or NAME.color.tif") from error


def _write_png(picture: NDArray[np.uint8], path: Path) -> None:
    if path.suffix.lower() != ".png":
        raise UsageError(f"{path}: the map is a PNG; give a name that ends in .png")
    done, encoded = cv2.imencode(".png", picture[..., ::-1])
    if not done:
        raise UsageError(f"{path}: the map could not be encoded; leave --map out")
    write_whole(path, encoded.tobytes())


def print_difference(console: Console, store: ScanStore, old: str, new: str, found: Difference) -> None:
    """The figures as a table."""
    every = "every pixel" if found.step_px == 1 else f"every {found.step_px}th pixel of every {found.step_px}th row"
    console.print(f"{store.path.stem}: {old} -> {new}; CIEDE2000 over {every}", highlight=False, markup=False)
    figures = Table("mean", "median", "95 %", "99 %", "largest", "above 1", "above 5", "chroma before", "after")
    numbers = (found.mean, found.median, found.p95, found.p99, found.max)
    shares = (found.share_above_1, found.share_above_5)
    chroma = (found.chroma_old, found.chroma_new)
    figures.add_row(*map("{:.2f}".format, numbers), *map("{:.1%}".format, shares), *map("{:.1f}".format, chroma))
    console.print(figures)
    for window in found.worst:
        roi = window.roi
        where = f"rows {roi.y0}-{roi.y1}, columns {roi.x0}-{roi.x1}"
        console.print(f"mean {window.mean:.1f} in {where}", highlight=False, markup=False)
