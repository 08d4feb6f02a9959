"""Pictures for the pages: strips of epochs, and sheets of models on photographs without a truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.spec import Model
from pipeline.colour.lab import lightness_from_samples, rgb_from_lab
from training.data import read_rgb
from training.data.files import ENDINGS
from training.errors import DataError
from training.evaluation.colorizers import OnnxColorizer
from training.evaluation.evaluate import resized
from training.evaluation.sheet import Shown, as_samples, combined_sheet, labelled, thumbnail
from training.evaluation.subjects import spread
from training.samples import shrunk

U8 = NDArray[np.uint8]

_GAP_PX = 4
_LONGEST_PX = 4096  # of a picture on a page
_CELL_PX = 144


def write_picture(path: Path, rgb: U8) -> Path:
    """Write (H, W, 3) RGB as PNG or JPEG, by the ending of ``path``. Raises OSError if that fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)):
        raise OSError(f"{path}: cannot be written; make room, or give another --out")
    return path


def sample_columns(path: Path, crop_yx: tuple[int, int]) -> list[list[U8]]:
    """The cells of a run's sample grid: rows of gray, generated and truth.

    Raises
    ------
    DataError : the grid cannot be read, or has cells of another size.
    """
    grid = read_rgb(path)
    height, width = (side + _GAP_PX for side in crop_yx)
    if grid is None or (grid.shape[0] - _GAP_PX) % height or (grid.shape[1] - _GAP_PX) % width:
        raise DataError(f"{path}: not a sample grid of {crop_yx[0]} x {crop_yx[1]} px; remove the run and train again")

    def cell(row: int, column: int) -> U8:
        top, left = _GAP_PX + row * height, _GAP_PX + column * width
        return grid[top : top + crop_yx[0], left : left + crop_yx[1]]

    rows, columns = (grid.shape[0] - _GAP_PX) // height, (grid.shape[1] - _GAP_PX) // width
    return [[cell(row, column) for column in range(columns)] for row in range(rows)]


def epoch_strip(run: Path, crop_yx: tuple[int, int], out: Path) -> Path:
    """One row for each held-out picture: gray, the run's result after each epoch that it kept, and the truth."""
    kept = sorted((run / "samples").glob("epoch_*.png"))
    if not kept:
        raise DataError(f"{run}: kept no samples, as there was nothing held out; give more photographs")
    grids = {f"epoch {int(path.stem.partition('_')[2])}": sample_columns(path, crop_yx) for path in kept}
    first = next(iter(grids.values()))
    columns = {"gray": [row[0] for row in first]}
    columns |= {name: [row[1] for row in rows] for name, rows in grids.items()}
    columns["truth"] = [row[2] for row in first]
    return write_picture(out, side_by_side(columns))


def side_by_side(columns: Mapping[str, Sequence[U8]], height_px: int = _CELL_PX) -> U8:
    """Columns of pictures with their names on top; the pictures of a row have the same shape."""
    made = []
    for name, pictures in columns.items():
        cells = [thumbnail(enlarged(rgb, height_px), height_px) for rgb in pictures]
        made.append(labelled(name, cells))
    return shrunk(np.concatenate(made, axis=1), _LONGEST_PX)


def enlarged(rgb: U8, height_px: int) -> U8:
    """The picture enlarged smoothly to at least ``height_px``: means over areas would make small pictures blocky."""
    scale = height_px / rgb.shape[0]
    if scale <= 1:
        return rgb
    size = (round(rgb.shape[1] * scale), height_px)
    grown: U8 = cv2.resize(rgb, size, interpolation=cv2.INTER_CUBIC)
    return grown


def without_truth(models: Sequence[Model], photographs: Path, out: Path, count: int = 10, side_px: int = 256) -> Path:
    """A sheet of photographs without colours, coloured by each model; aspect ratios are kept.

    Pictures are taken from the folder ``photographs`` itself, at even distances in the listing. Folders, other files
    and unreadable pictures are skipped.

    Raises
    ------
    DataError : there is no such picture.
    """
    found = [path for path in sorted(photographs.iterdir()) if path.suffix.lower() in ENDINGS and path.is_file()]
    colorizers = {model.card.name: OnnxColorizer(model, 2) for model in models}
    rows = []
    for path in spread(found, count):
        rgb = read_rgb(path)
        if rgb is None:
            continue
        lightness = lightness_from_samples(cv2.cvtColor(resized(rgb, side_px), cv2.COLOR_RGB2GRAY))
        gray = rgb_from_lab(lightness, np.zeros((2, *lightness.shape), np.float32))
        results = {name: as_samples(rgb_from_lab(lightness, colour(lightness))) for name, colour in colorizers.items()}
        rows.append(Shown(as_samples(gray), None, results))
    if not rows:
        raise DataError(f"{photographs}: no pictures that can be read; give a folder of photographs")
    return write_picture(out, combined_sheet(rows))
