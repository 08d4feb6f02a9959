"""A scan of any size out of real photographs: python -m tests.benchmarks.giga SIDE OUT.tif [--photographs DIR]

SIDE x SIDE pixels, gray uint8, TIFF of 512-px tiles (deflate with predictor; BigTIFF where needed). Shelves of pictures
from top to bottom, like albums photographed page beside page: every picture is another crop of a photograph at another
scale, perhaps mirrored, in a tone of its own, cut plainly or mounted on paper with a soft border. No crop comes twice.

Over all of it lies film grain: noise of about two gray levels, a little wider than a pixel, strongest in the middle
tones. Real scans have it, and without it enlarged photographs would compress, and so be read, unlike any scan: with it
about half of the bytes are left, as of scanned film.

The pixels follow from side, seed and photographs alone. One shelf and one row of tiles is all that memory holds.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import tifffile

from pipeline.endings import SCANS

PHOTOGRAPHS = Path(__file__).parents[1] / "scans"
TILE_PX = 512
_SHELF_PX = (500, 1400)
_SCALES = (0.5, 2.0)  # pixels of the scan for one of the photograph; more where the photograph is too small
_LONGEST_PX = 4096
_GRAIN = 3.6  # gray levels before it is widened, which leaves about 60 %
_CLASSIC_MAX_BYTES = 3_900_000_000

Gray = np.ndarray  # (h, w) uint8


def find_photographs(folder: Path) -> list[Path]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SCANS)
    if not paths:
        raise SystemExit(f"{folder}: no photographs ({' '.join(SCANS)})")
    return paths


@lru_cache(maxsize=12)
def _photograph(path: Path) -> Gray:
    gray = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if gray is None:
        raise SystemExit(f"{path}: cannot be read as a photograph")
    factor = _LONGEST_PX / max(gray.shape)
    return gray if factor >= 1 else cv2.resize(gray, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


def _lengths(total: int, shortest: float, longest: float, rng: np.random.Generator) -> Iterator[int]:
    """Pieces of about ``shortest`` to ``longest`` that add up to ``total``."""
    while total > longest + shortest:
        piece = int(rng.uniform(shortest, longest))
        yield piece
        total -= piece
    yield total


def _crop(photograph: Gray, shape_yx: tuple[int, int], rng: np.random.Generator) -> Gray:
    """A random part of ``photograph`` at a random scale, of ``shape_yx`` pixels."""
    scale = np.exp(rng.uniform(*np.log(_SCALES)))
    scale = max(scale, *(wanted / have for wanted, have in zip(shape_yx, photograph.shape, strict=True)))
    sides = [min(have, round(wanted / scale)) for wanted, have in zip(shape_yx, photograph.shape, strict=True)]
    y, x = (int(rng.integers(have - side + 1)) for side, have in zip(sides, photograph.shape, strict=True))
    part = photograph[y : y + sides[0], x : x + sides[1]]
    if rng.random() < 0.5:
        part = part[:, ::-1]
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(part, shape_yx[::-1], interpolation=method)


def _toned(picture: Gray, rng: np.random.Generator) -> Gray:
    """Another exposure: a gamma, and neither full black nor full white."""
    black, white = rng.uniform(4, 24), rng.uniform(225, 250)
    curve = black + (white - black) * (np.arange(256) / 255) ** rng.uniform(0.75, 1.3)
    return cv2.LUT(picture, np.rint(curve).astype(np.uint8))


def _mounted(picture: Gray, rng: np.random.Generator) -> Gray:
    """On pale paper: a margin, and a border that fades over a few pixels."""
    margin, fade, paper = rng.uniform(6, 40), rng.uniform(2, 24), np.float32(rng.uniform(200, 235))
    ramps = []
    for side in picture.shape:
        at = np.arange(side, dtype=np.float32)
        ramps.append(np.clip((np.minimum(at, side - 1 - at) - margin) / fade, 0, 1))
    mask = np.outer(*ramps)
    return np.rint(paper + mask * (picture - paper)).astype(np.uint8)


def _shelves(side: int, photographs: list[Path], seed: int) -> Iterator[Gray]:
    """(h, side) rows of pictures, top to bottom."""
    rng = np.random.default_rng([seed, side])
    waiting: list[int] = []
    for height in _lengths(side, *_SHELF_PX, rng):
        pictures = []
        for width in _lengths(side, 0.6 * height, 1.7 * height, rng):
            waiting = waiting or list(rng.permutation(len(photographs)))
            picture = _crop(_photograph(photographs[waiting.pop()]), (height, width), rng)
            picture = _toned(picture, rng)
            pictures.append(_mounted(picture, rng) if rng.random() < 0.5 else picture)
        yield np.concatenate(pictures, axis=1)


def _bands(shelves: Iterator[Gray], rows: int) -> Iterator[Gray]:
    """The same pixels in pieces of ``rows`` rows; the last may be shorter."""
    held: list[Gray] = []
    for shelf in shelves:
        held.append(shelf)
        while sum(len(piece) for piece in held) >= rows:
            joined = np.concatenate(held)
            yield joined[:rows]
            held = [joined[rows:]]
    if len(last := np.concatenate(held)):
        yield last


def _grained(tile: Gray, rng: np.random.Generator) -> Gray:
    noise = cv2.GaussianBlur(rng.standard_normal(tile.shape, np.float32), (3, 3), 0.55)
    tone = tile / np.float32(255)
    noise *= np.float32(_GRAIN) * (np.float32(0.5) + 2 * tone * (1 - tone))
    return np.rint(np.clip(tile + noise, 0, 255)).astype(np.uint8)


def tiles(side: int, photographs: list[Path], seed: int) -> Iterator[Gray]:
    """The scan's tiles in raster order; those at the right and lower edge may be smaller."""
    for row, band in enumerate(_bands(_shelves(side, photographs, seed), TILE_PX)):
        for column in range(-(-side // TILE_PX)):
            tile = band[:, column * TILE_PX : (column + 1) * TILE_PX]
            yield _grained(tile, np.random.default_rng([seed, side, row, column]))


def write_scan(path: Path, side: int, folder: Path = PHOTOGRAPHS, seed: int = 1) -> None:
    """Write the scan beside ``path`` and rename it when it is whole."""
    part = path.with_name(f"{path.name}.part")
    tifffile.imwrite(
        part,
        tiles(side, find_photographs(folder), seed),
        shape=(side, side),
        dtype=np.uint8,
        photometric="minisblack",
        tile=(TILE_PX, TILE_PX),
        compression="adobe_deflate",
        predictor=True,
        bigtiff=side * side > _CLASSIC_MAX_BYTES,
        software=False,
        metadata=None,
        maxworkers=os.cpu_count(),
        buffersize=-(-side // TILE_PX) * TILE_PX**2,
    )
    part.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("side", type=int)
    parser.add_argument("out", type=Path)
    parser.add_argument("--photographs", type=Path, default=PHOTOGRAPHS)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    started = time.perf_counter()
    write_scan(arguments.out, arguments.side, arguments.photographs, arguments.seed)
    seconds, written = time.perf_counter() - started, arguments.out.stat().st_size
    left = written / arguments.side**2
    print(f"{arguments.out}: {written / 1e6:.0f} MB, {left:.2f} of its pixels' bytes, in {seconds:.0f} s")


if __name__ == "__main__":
    main()
