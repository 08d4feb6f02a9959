"""Contact sheets: the pictures behind the table, to look at before believing it.

They show at once if a model beats gray by tinting everything brown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]

CELL_HEIGHT_PX = 144
_CELL_WIDTH_PX = 200  # of the combined sheet
_TRIPLES = 3  # triples of gray, result and truth in each row
_GAP_PX = 4
_LABEL_PX = 22
_FONT, _FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.45


@dataclass(frozen=True)
class Shown:
    """One picture of the sheets: gray, truth, and each model's result by name; all (H, W, 3) uint8 of one shape.

    A photograph without colours has no truth.
    """

    gray: U8
    truth: U8 | None
    results: Mapping[str, U8]


def as_samples(rgb: NDArray) -> U8:
    """A float picture in [0, 1] as (H, W, 3) uint8; uint8 is returned unchanged."""
    return rgb if rgb.dtype == np.uint8 else np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)


def thumbnail(rgb: NDArray, height_px: int = CELL_HEIGHT_PX) -> U8:
    """The picture resized to (``height_px``, W, 3) uint8, the aspect ratio kept."""
    size = max(1, round(rgb.shape[1] * height_px / rgb.shape[0])), height_px
    return cv2.resize(as_samples(rgb), size, interpolation=cv2.INTER_AREA)


def sheet(rows: list[list[NDArray]], height_px: int, gap_px: int = _GAP_PX) -> U8:
    """A contact sheet: rows of pictures, each ``height_px`` high, on white.

    Parameters
    ----------
    rows : (H, W, 3) pictures, uint8 or float in [0, 1]; rows may differ in length and pictures in shape

    Returns
    -------
    (H, W, 3) uint8 RGB
    """
    strips = []
    for row in rows:
        small = [thumbnail(rgb, height_px) for rgb in row]
        cells = [np.pad(rgb, ((gap_px, 0), (gap_px, 0), (0, 0)), constant_values=255) for rgb in small]
        strips.append(np.concatenate(cells, axis=1))
    width = max(strip.shape[1] for strip in strips)
    even = [np.pad(s, ((0, 0), (0, width - s.shape[1]), (0, 0)), constant_values=255) for s in strips]
    return np.pad(np.concatenate(even), ((0, gap_px), (0, gap_px), (0, 0)), constant_values=255)


def _label(text: str, width_px: int) -> U8:
    """A white strip with ``text``, cut to ``width_px``; OpenCV draws ASCII only."""
    strip = np.full((_LABEL_PX, width_px, 3), 255, np.uint8)
    plain = text.encode("ascii", "replace").decode()
    while plain and cv2.getTextSize(plain, _FONT, _FONT_SCALE, 1)[0][0] > width_px - 2:
        plain = plain[:-1]
    cv2.putText(strip, plain, (1, _LABEL_PX - 7), _FONT, _FONT_SCALE, (0, 0, 0), 1, cv2.LINE_AA)
    return strip


def labelled(name: str, cells: Sequence[U8], gap_px: int = _GAP_PX) -> U8:
    """A column of pictures, all of one width, with a name on top and white between them and to the left."""
    padded = [np.pad(cell, ((gap_px, 0), (0, 0), (0, 0)), constant_values=255) for cell in cells]
    column = np.concatenate([_label(name, cells[0].shape[1]), *padded])
    return np.pad(column, ((0, 0), (gap_px, 0), (0, 0)), constant_values=255)


def _framed(rgb: U8) -> U8:
    """The picture centred in a white cell of fixed size, so that a wide picture does not widen ten columns."""
    scale = min(_CELL_WIDTH_PX / rgb.shape[1], CELL_HEIGHT_PX / rgb.shape[0])
    width, height = (max(1, round(side * scale)) for side in (rgb.shape[1], rgb.shape[0]))
    cell = np.full((CELL_HEIGHT_PX, _CELL_WIDTH_PX, 3), 255, np.uint8)
    top, left = (CELL_HEIGHT_PX - height) // 2, (_CELL_WIDTH_PX - width) // 2
    cell[top : top + height, left : left + width] = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
    return cell


def combined_sheet(pictures: list[Shown], gap_px: int = _GAP_PX) -> U8:
    """A sheet with a row for each picture, and columns for gray, each model and the truth, with names on top.

    Returns
    -------
    (H, W, 3) uint8 RGB
    """
    rows = [{"gray": p.gray, **p.results, **({} if p.truth is None else {"truth": p.truth})} for p in pictures]
    columns = [labelled(name, [_framed(row[name]) for row in rows], gap_px) for name in rows[0]]
    return np.pad(np.concatenate(columns, axis=1), ((0, gap_px), (0, gap_px), (0, 0)), constant_values=255)


def _write_picture(path: Path, rgb: U8) -> None:
    if not cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)):
        raise OSError(f"{path}: the sheet cannot be written; make room, or give another --out")


def write_sheets(folder: Path, pictures: list[Shown], combined: int = 12) -> None:
    """Write ``sheet_<model>.png`` with all pictures, and ``sheet.jpg`` with up to ``combined`` pictures and all models.

    Raises
    ------
    OSError : ``folder`` cannot be written to.
    """
    for name in pictures[0].results:
        triples = [[p.gray, p.results[name], *([] if p.truth is None else [p.truth])] for p in pictures]
        starts = range(0, len(triples), _TRIPLES)
        lines = [[rgb for triple in triples[i : i + _TRIPLES] for rgb in triple] for i in starts]
        safe = re.sub(r"[^\w .()+-]", "_", name)
        _write_picture(folder / f"sheet_{safe}.png", sheet(lines, CELL_HEIGHT_PX))
    few = [pictures[i * len(pictures) // combined] for i in range(combined)] if len(pictures) > combined else pictures
    _write_picture(folder / "sheet.jpg", combined_sheet(few))
