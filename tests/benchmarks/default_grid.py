"""Which tile, stride and window the default model needs: seam score, error and tiles of each, for each picture.

    python -m tests.benchmarks.default_grid --originals COLOUR_PHOTOGRAPHS [--model default] [--limit 6]

Each original is turned gray and coloured in one block by the model's own palette; a seam score of 1 shows no grid, and
the originals' own is the first row.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import cv2
import numpy as np
from skimage.color import deltaE_ciede2000

from engines.palette import PaletteNetwork, palette_spec
from engines.registry import open_engine
from engines.select import choose
from engines.spec import EngineSpec, find_model
from pipeline.colour.lab import lab_from_rgb
from pipeline.palettes.windows import distribution_of, palette_of
from pipeline.quality.seams import seam_score
from pipeline.tiling.blend import BlockBlender
from pipeline.tiling.grid import TileGrid

GRIDS = [*itertools.product((256,), (128, 192, 208, 224, 240), ("hann", "average"))]
BATCH = {256: 8}


def error(lab: np.ndarray, chroma: np.ndarray) -> float:
    """Mean CIEDE2000 over every third pixel of every third row."""
    result = np.concatenate([lab[:1], chroma])[:, ::3, ::3]
    return float(deltaE_ciede2000(np.moveaxis(result, 0, -1), np.moveaxis(lab[:, ::3, ::3], 0, -1)).mean())


def measure(path: Path, network: PaletteNetwork, engines: dict) -> dict[tuple, tuple[float, float, int]]:
    """Seam score, CIEDE2000 and tiles by tile, stride and window; the original's own first."""
    lab = lab_from_rgb(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB).astype(np.float32) / np.float32(255))
    lightness, shape_yx, card = np.ascontiguousarray(lab[0]), lab.shape[1:], network.card
    shares = distribution_of(lambda r: lightness[r.rows, r.columns], shape_yx, card.side_px, card.cells, network.see)
    palette = palette_of(shares, np.array(card.colours_ab, np.float32), shape_yx, card.gain)

    def seam(chroma: np.ndarray, stride: int) -> float:
        return seam_score(
            lambda r: (lightness[r.rows, r.columns], chroma[:, r.rows, r.columns]), shape_yx, (stride,) * 2
        ).score

    rows: dict[tuple, tuple[float, float, int]] = {
        ("original", "", ""): (seam(lab[1:], 192), 0.0, 0),
        ("palette alone", "", ""): (
            seam(palette.under((0, 0), shape_yx), 192),
            error(lab, palette.under((0, 0), shape_yx)),
            0,
        ),
    }
    for tile, stride, window in GRIDS:
        grid = TileGrid.of(shape_yx, (tile, tile), (stride, stride), 16)
        block = grid.block((0, 0), 1 << 20)
        blender = BlockBlender(grid, block, window)
        height, width = (
            max(0, axis.covered_extent - extent) for axis, extent in zip((grid.y, grid.x), shape_yx, strict=True)
        )
        grown = np.pad(lightness, ((0, height), (0, width)), mode="symmetric")
        tiles = list(block.tile_origins)
        for first in range(0, len(tiles), BATCH[tile]):
            part = tiles[first : first + BATCH[tile]]
            given = [
                np.concatenate([grown[None, y : y + tile, x : x + tile], palette.under((y, x), (tile, tile))])
                for y, x in part
            ]
            for at, chroma in zip(part, engines[tile].predict(np.stack(given)), strict=True):
                blender.add(at, chroma)
        chroma = blender.mean()
        rows[tile, stride, window] = seam(chroma, stride), error(lab, chroma), len(tiles)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--originals", type=Path, required=True)
    parser.add_argument("--model", default="default")
    parser.add_argument("--limit", type=int)
    args = parser.parse_args()
    model = find_model(args.model)
    network, backend = PaletteNetwork(palette_spec(model, 2)), choose()[0].backend
    folder = str(model.folder)
    engines = {t: open_engine(EngineSpec(backend, folder, (t, t), batch, 2, 1)) for t, batch in BATCH.items()}
    paths = sorted(path for path in args.originals.iterdir() if path.suffix.lower() == ".jpg")[: args.limit]
    every = [measure(path, network, engines) for path in paths]
    print(f"{len(every)} pictures\n")
    print("| tile | stride | window | seam, mean | seam, largest | CIEDE2000 | pixels predicted / scan |")
    print("|---|---|---|---|---|---|---|")
    area = 2048 * 4096
    for key in every[0]:
        found = [rows[key] for rows in every]
        seams, errors, tiles = zip(*found, strict=True)
        share = np.mean(tiles) * (key[0] ** 2) / area if isinstance(key[0], int) else 0
        figures = f"{np.mean(seams):.3f} | {max(seams):.3f} | {np.mean(errors):.2f} | {share:.2f}"
        print(f"| {' | '.join(map(str, key))} | {figures} |")


if __name__ == "__main__":
    main()
