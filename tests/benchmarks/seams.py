"""Seams and colour of strides, windows, tile sizes, the anchor and the one-pass way, on colour originals turned gray.

python -m tests.benchmarks.seams --originals DIR --out DIR [--limit N]

Every original's tiles are predicted once at stride 32, and every variant blends those that it has. Beside each variant:
seam score (``pipeline.quality.seams``), CIEDE2000 to the original, colourfulness (Hasler and Süsstrunk), tiles, and the
time of engine and blending together, with the engine's seconds a tile as measured on the same picture. ``one pass, 512
px square`` is what DeOldify and DDColor do, with this project's network: the whole picture squeezed to 512 x 512 px,
its chroma laid over the lightness; ``one pass, 512 px`` keeps the picture's proportions and is the anchor by itself.

A picture that was measured is kept in ``--out`` and not measured again. Sheets of 1:1 crops, and a
plot, are written too.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from skimage.color import deltaE_ciede2000

from engines.registry import open_engine
from engines.select import choose
from engines.spec import Engine, EngineSpec, find_model
from pipeline.colour.lab import lab_from_rgb, rgb_from_lab
from pipeline.quality.score import tiles_to_add
from pipeline.quality.seams import seam_score
from pipeline.tiling.anchor import LONGEST_PX, Anchor, anchor_of, apply_anchor
from pipeline.tiling.blend import BlockBlender
from pipeline.tiling.grid import Block, TileGrid
from pipeline.tiling.overlap_stats import OverlapAccumulator, OverlapStats
from pipeline.tiling.weights import WINDOWS
from training.metrics import colourfulness

matplotlib.use("Agg")

TILE, FINEST, BATCH = 256, 32, 8
STRIDES = (256, 128, 64, 32)
CROP_PX = 448


@dataclass(frozen=True)
class Variant:
    """A way of blending tiles of one size: every ``stride`` px, weighted by ``window``, with the anchor or without."""

    stride: int
    window: str
    anchor: bool = False
    tile: int = TILE

    @property
    def name(self) -> str:
        tile = "" if self.tile == TILE else f"tile {self.tile}, "
        return f"{tile}stride {self.stride}, {self.window}{' + anchor' if self.anchor else ''}"


VARIANTS = (
    *(Variant(stride, window) for stride in STRIDES for window in WINDOWS if stride != TILE or window == "average"),
    *(Variant(stride, "hann", anchor=True) for stride in (128, 64)),
    Variant(128, "average", anchor=True),
)
LARGE = (Variant(256, "hann", tile=512), Variant(256, "hann", anchor=True, tile=512))


def whole(grid: TileGrid) -> Block:
    """All of the picture as one block."""
    return grid.block((0, 0), 1 << 20)


class Blends:
    """Several variants of one tile size, filled at once."""

    def __init__(self, shape_yx: tuple[int, int], variants: tuple[Variant, ...], anchor: Anchor) -> None:
        self.finest = TileGrid.of(
            shape_yx, *[(size, size) for size in (variants[0].tile, min(v.stride for v in variants))]
        )
        self._anchor = anchor
        self._parts = []
        for variant in variants:
            grid = TileGrid.of(shape_yx, (variant.tile, variant.tile), (variant.stride, variant.stride))
            starts = set(whole(grid).tile_origins)
            self._parts.append((variant, starts, BlockBlender(grid, whole(grid), variant.window)))

    def add(self, tile_yx: tuple[int, int], chroma: np.ndarray) -> None:
        fused = apply_anchor(chroma, tile_yx, self._anchor)
        for variant, starts, blender in self._parts:
            if tile_yx in starts:
                blender.add(tile_yx, fused if variant.anchor else chroma)

    def results(self) -> Iterator[tuple[str, int, np.ndarray]]:
        """Name, tiles and (2, H, W) chroma of each variant."""
        for variant, starts, blender in self._parts:
            yield variant.name, len(starts), blender.mean()


def predicted(engine: Engine, lightness: np.ndarray, tiles: list[tuple[int, int]], side: int, batch: int) -> Iterator:
    """Each tile's first pixel and its prediction."""
    for first in range(0, len(tiles), batch):
        part = tiles[first : first + batch]
        cut = np.stack([lightness[y : y + side, x : x + side] for y, x in part])[:, None]
        yield from zip(part, engine.predict(np.ascontiguousarray(cut)), strict=True)


def upsampled(chroma: np.ndarray, shape_yx: tuple[int, int]) -> np.ndarray:
    """(2, h, w) to (2, H, W), linearly."""
    size = shape_yx[::-1]
    return np.stack([cv2.resize(np.ascontiguousarray(p), size, interpolation=cv2.INTER_LINEAR) for p in chroma])


class Bench:
    """Engines of a model that sees nothing but its tile, opened once."""

    def __init__(self) -> None:
        backend, folder = choose()[0].backend, str(find_model("efficientnet-unet").folder)
        shapes = {TILE: BATCH, 512: 1}
        self.engines = {
            side: open_engine(EngineSpec(backend, folder, (side, side), batch, 2, 1)) for side, batch in shapes.items()
        }

    def measure(self, path: Path, out: Path) -> dict[str, Any]:
        rgb = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        lab = lab_from_rgb(rgb.astype(np.float32) / 255)
        lightness, truth = np.ascontiguousarray(lab[0]), lab[1:]
        shape_yx = lightness.shape
        gray = np.repeat(
            np.asarray(rgb_from_lab(lightness, np.zeros_like(truth)) * 255).round().astype(np.uint8)[..., :1], 3, 2
        )
        rows: dict[str, Any] = {}
        pictures: dict[str, np.ndarray] = {"original": rgb, "scan": gray}

        def row(name: str, chroma: np.ndarray, tiles: float, seconds: float, stride: int) -> None:
            score = seam_score(
                lambda r: (lightness[r.rows, r.columns], chroma[:, r.rows, r.columns]), shape_yx, (stride, stride)
            )
            shown = (np.clip(rgb_from_lab(lightness, chroma), 0, 1) * 255).round().astype(np.uint8)
            pictures[name] = shown
            rows[name] = {
                "edge": score.edge,
                "patch": score.patch,
                "seam": score.score,
                "ciede2000": ciede2000(lightness, chroma, truth),
                "colourfulness": colourfulness(shown[::4, ::4] / 255),
                "tiles": tiles,
                "seconds": seconds,
            }

        row("original", truth, 0, 0, 128)
        row("gray", np.zeros_like(truth), 0, 0, 128)
        small = cv2.resize(lightness, (LONGEST_PX, LONGEST_PX), interpolation=cv2.INTER_AREA)
        started = time.perf_counter()
        square = self.engines[512].predict(small[None, None])[0]
        pass_seconds = time.perf_counter() - started
        row("one pass, 512 px square", upsampled(square, shape_yx), 4, pass_seconds, 128)
        samples = np.ascontiguousarray(gray[..., 0])
        started = time.perf_counter()
        anchor = anchor_of(lambda r: samples[r.rows, r.columns], shape_yx, 512, self.engines[512].predict)
        anchor_seconds = time.perf_counter() - started
        row("one pass, 512 px", upsampled(anchor.cells, shape_yx), 4, anchor_seconds, 128)
        for side, variants in ((TILE, VARIANTS), (512, LARGE)):
            blends = Blends(shape_yx, variants, anchor)
            tiles = list(whole(blends.finest).tile_origins)
            engine_seconds = 0.0
            started = time.perf_counter()
            for tile_yx, chroma in predicted(self.engines[side], lightness, tiles, side, BATCH if side == TILE else 1):
                paused = time.perf_counter()
                engine_seconds += paused - started
                blends.add(tile_yx, chroma)
                started = time.perf_counter()
            each = engine_seconds / len(tiles)
            for name, count, chroma in blends.results():
                extra = anchor_seconds if "anchor" in name else 0.0
                stride = next(v.stride for v in variants if v.name == name)
                row(name, chroma, count * (side / TILE) ** 2, count * each + extra, stride)
        self._adaptive(lightness, shape_yx, row, rows)
        sheet(pictures, rows, lightness, out / f"{path.stem}.jpg")
        return rows

    def _adaptive(self, lightness: np.ndarray, shape_yx: tuple[int, int], row: Callable[..., None], rows: dict) -> None:
        """What ``--quality`` does without the anchor where stride 64's score, or 1.02 if that is more, is asked for."""
        for window in ("average", "hann"):
            wanted = rows[f"stride 64, {window}"]["seam"]
            chroma, tiles, each = self._refined(lightness, shape_yx, window, max(1.02, wanted))
            row(f"--quality of stride 64, {window}", chroma, tiles, tiles * each, 128)

    def _refined(self, lightness: np.ndarray, shape_yx: tuple[int, int], window: str, wanted: float) -> tuple:
        base = TileGrid.of(shape_yx, (TILE, TILE), (128, 128))
        grid, earlier, tiles = base, [], list(whole(base).tile_origins)
        total, weight, opinions = np.zeros((2, *shape_yx), np.float32), np.zeros(shape_yx, np.float32), None
        weights = np.outer(WINDOWS[window](TILE), WINDOWS[window](TILE))
        opinions = OverlapAccumulator(base, whole(base).write_roi, window)
        count, engine_seconds = 0, 0.0
        while True:
            started = time.perf_counter()
            for (y, x), chroma in predicted(self.engines[TILE], lightness, tiles, TILE, BATCH):
                engine_seconds += time.perf_counter() - started
                total[:, y : y + TILE, x : x + TILE] += chroma * weights
                weight[y : y + TILE, x : x + TILE] += weights
                opinions.add((y, x), chroma)
                count += 1
                started = time.perf_counter()
            mean = total / weight
            strides = [128 >> level for level in range(len(earlier) + 1)]
            score = max(
                seam_score(
                    lambda r, mean=mean: (lightness[r.rows, r.columns], mean[:, r.rows, r.columns]), shape_yx, (s, s)
                ).score
                for s in strides
            )
            if score <= wanted or grid.y.stride <= FINEST:
                return mean, count, engine_seconds / count
            agreement: OverlapStats = opinions.result()
            chosen = tiles_to_add(agreement.spread, base, earlier, score, wanted)
            grid = grid.refined()
            earlier.append(chosen)
            tiles = [(grid.y.starts[i], grid.x.starts[j]) for i, j in np.argwhere(chosen)]


def ciede2000(lightness: np.ndarray, chroma: np.ndarray, truth: np.ndarray) -> float:
    """Mean over every third pixel of every third row."""
    some = np.s_[..., ::3, ::3]
    pair = [np.stack([lightness[some], *c[some]], axis=-1) for c in (chroma, truth)]
    return float(deltaE_ciede2000(*pair).mean())


SHOWN = (
    "scan",
    "stride 256, average",
    "stride 32, average",
    "one pass, 512 px square",
    "stride 128, hann",
    "stride 128, hann + anchor",
)


def sheet(pictures: dict[str, np.ndarray], rows: dict[str, Any], lightness: np.ndarray, path: Path) -> None:
    """1:1 crops around the corner of tiles where plain averaging at stride 128 steps most, and whole pictures above."""
    plain = pictures["stride 128, average"].astype(np.float32)
    steps = np.abs(np.diff(plain, axis=1)).sum(2)
    steps = cv2.blur(steps, (3, CROP_PX))
    inner = range(CROP_PX // 2 // 128 * 128 + 128, plain.shape[0] - CROP_PX // 2, 128)
    columns = range(CROP_PX // 2 // 128 * 128 + 128, plain.shape[1] - CROP_PX // 2, 128)
    y, x = max(((y, x) for y in inner for x in columns), key=lambda at: steps[at[0], at[1] - 1])
    half = CROP_PX // 2
    crops = [pictures[name][y - half : y + half, x - half : x + half] for name in SHOWN]
    small = [cv2.resize(pictures[n], (CROP_PX, CROP_PX // 2), interpolation=cv2.INTER_AREA) for n in SHOWN]
    cells = [np.concatenate([label(name, CROP_PX), s, c]) for name, s, c in zip(SHOWN, small, crops, strict=True)]
    gap = np.full((cells[0].shape[0], 8, 3), 255, np.uint8)
    lines = [np.concatenate([cells[i], gap, cells[i + 1], gap, cells[i + 2]], axis=1) for i in (0, 3)]
    cv2.imwrite(str(path), np.concatenate(lines)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])


def label(text: str, width_px: int) -> np.ndarray:
    cell = np.full((26, width_px, 3), 255, np.uint8)
    return cv2.putText(cell, text, (4, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 0, 0), 1, cv2.LINE_AA)


def table(every: list[dict[str, Any]]) -> str:
    """Means over pictures, as Markdown; the largest seam score of any picture beside the mean."""
    lines = [
        "| way | seam | largest | edge | patch | CIEDE2000 | colourfulness | tiles of 256 px | engine, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in every[0]:
        mean = {key: float(np.mean([rows[name][key] for rows in every])) for key in every[0][name]}
        largest = max(rows[name]["seam"] for rows in every)
        lines.append(
            f"| {name} | {mean['seam']:.3f} | {largest:.3f} | {mean['edge']:.3f} | {mean['patch']:.3f} | "
            f"{mean['ciede2000']:.2f} | {mean['colourfulness']:.1f} | {mean['tiles']:.0f} | {mean['seconds']:.1f} |"
        )
    return "\n".join(lines)


def plot(every: list[dict[str, Any]], path: Path) -> None:
    """Seam score and CIEDE2000 against time, by window."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4))
    for axis, key in zip(axes, ("seam", "ciede2000"), strict=True):
        mean = {n: [float(np.mean([r[n][k] for r in every])) for k in ("seconds", key)] for n in every[0]}
        for window in WINDOWS:
            points = [mean[v.name] for v in VARIANTS if v.window == window and not v.anchor]
            axis.plot(*zip(*sorted(points), strict=True), marker="o", label=window)
        for name in ("stride 128, hann + anchor", "one pass, 512 px square"):
            axis.plot(*mean[name], marker="*", markersize=14, linestyle="", label=name)
        axis.set(xscale="log", xlabel="engine, s a picture", ylabel={"seam": "seam score"}.get(key, "CIEDE2000"))
        axis.grid(alpha=0.3)
    axes[0].set_yscale("log")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--originals", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    bench, every = None, []
    for path in sorted(p for p in arguments.originals.iterdir() if p.suffix.lower() == ".jpg")[: arguments.limit]:
        kept = arguments.out / f"{path.stem}.json"
        if not kept.exists():
            bench = bench or Bench()
            kept.write_text(json.dumps(bench.measure(path, arguments.out), indent=1))
            print(path.stem, flush=True)
        every.append(json.loads(kept.read_text()))
    text = table(every)
    (arguments.out / "table.md").write_text(text + "\n")
    plot(every, arguments.out / "plot.png")
    print(f"{len(every)} pictures\n\n{text}")


if __name__ == "__main__":
    main()
