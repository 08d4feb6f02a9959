"""Models against the truth, a gray picture and a flat tint: one table, and contact sheets to look at.

Each photograph is shrunk (or grown) to a common short side, its lightness is given to the model whole, reflected at the
edges up to the model's size multiple, and the true lightness is joined to the predicted chroma, as on a real scan. Look
at the sheets before believing the table: a model that beats gray by tinting everything brown shows at once.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from engines.spec import Model
from pipeline.color import lab_from_rgb, lightness_from_samples, rgb_from_lab
from training.data import Photograph, find_photographs, is_colour, is_test, read_rgb
from training.errors import DataError
from training.metrics import bootstrap_interval, ciede2000, colourfulness, mse, psnr, ssim

F32 = NDArray[np.float32]

_THREADS = 2
_SHEET_PICTURES = 24
_SHEET_TRIPLES = 3  # gray, result, truth side by side, this many times a row
_SHEET_HEIGHT_PX = 144
_MEAN_OF = 256  # photographs that the flat tint is the mean of: more changes no digit of the table


class Colorizer(Protocol):
    """(H, W) L* in [0, 100] to (2, H, W) a*, b*."""

    def __call__(self, lightness: F32) -> F32: ...


@dataclass(frozen=True)
class Row:
    """One line of the table: means over the pictures. ``mse`` to ``ssim`` are of sRGB values in [0, 1]."""

    name: str
    pictures: int
    ciede2000: float
    ciede2000_low: float
    ciede2000_high: float
    below_gray_percent: float
    mse: float
    psnr_db: float
    ssim: float
    colourfulness: float
    colourfulness_of_truth: float
    ms_per_picture: float


@dataclass
class _Tally:
    """What one colorizer made of the pictures so far."""

    colorize: Colorizer
    figures: list[tuple[float, ...]] = field(default_factory=list)
    kept: list[list[NDArray]] = field(default_factory=list)

    def add(self, truth: F32, lightness: F32, keep: bool) -> None:
        started = time.perf_counter()
        chroma = self.colorize(lightness)
        ms = (time.perf_counter() - started) * 1000
        result = rgb_from_lab(lightness, chroma)
        measures = [measure(result, truth) for measure in (ciede2000, mse, psnr, ssim)]
        self.figures.append((*measures, colourfulness(result), colourfulness(truth), ms))
        if keep:
            gray = rgb_from_lab(lightness, np.zeros_like(chroma))
            self.kept.append([gray, result, truth])

    def row(self, name: str, groups: list[str], gray: float) -> Row:
        columns = np.array(self.figures).T
        difference, error, decibels, similarity, vivid, vivid_truth, ms = (float(column.mean()) for column in columns)
        low, high = bootstrap_interval(columns[0], groups)
        below = 100 * (1 - difference / gray) if gray else 0.0
        share = vivid / vivid_truth if vivid_truth else math.nan
        figures = (difference, low, high, below, error, decibels, similarity, vivid, share, ms)
        return Row(name, len(self.figures), *figures)


class OnnxColorizer:
    """A model folder run by onnxruntime on whole pictures of any size."""

    def __init__(self, model: Model) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = _THREADS
        self._session = onnxruntime.InferenceSession(str(model.onnx_path), options, ["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._card = model.card

    def __call__(self, lightness: F32) -> F32:
        height, width = lightness.shape
        multiple = self._card.size_multiple
        before_after = [(-n % multiple // 2, -n % multiple - -n % multiple // 2) for n in (height, width)]
        padded = np.pad(lightness, before_after, mode="reflect")
        scaled = padded[None, None] * np.float32(self._card.lightness_scale) + np.float32(self._card.lightness_offset)
        chroma = self._session.run(None, {self._input: scaled})[0][0] * np.float32(self._card.chroma_scale)
        top, left = before_after[0][0], before_after[1][0]
        return chroma[:, top : top + height, left : left + width]


class FlatColorizer:
    """The same a*, b* for every pixel: (0, 0) is the gray baseline."""

    def __init__(self, chroma_ab: tuple[float, float]) -> None:
        self._chroma = np.array(chroma_ab, np.float32)[:, None, None]

    def __call__(self, lightness: F32) -> F32:
        return np.broadcast_to(self._chroma, (2, *lightness.shape)).copy()


def spread(items: list[Any], count: int | None) -> list[Any]:
    """At most ``count`` items at even distances: a sorted listing's first ones would all come from one folder.

    >>> spread(list(range(10)), 4)
    [0, 2, 5, 7]
    """
    if count is None or count >= len(items):
        return items
    return [items[i * len(items) // count] for i in range(count)]


def resized(rgb: NDArray[np.uint8], short_side_px: int) -> NDArray[np.uint8]:
    """(H, W, 3) with its short side ``short_side_px``, its shape kept."""
    height, width = rgb.shape[:2]
    scale = short_side_px / min(height, width)
    size = max(short_side_px, round(width * scale)), max(short_side_px, round(height * scale))
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def _colour_pictures(photographs: list[Photograph]) -> Iterator[tuple[Photograph, NDArray[np.uint8]]]:
    for photograph in photographs:
        rgb = read_rgb(photograph.path)
        if rgb is not None and is_colour(rgb):
            yield photograph, rgb


def mean_chroma(photographs: list[Photograph]) -> tuple[float, float]:
    """Mean a*, b* of up to 256 of the photographs: what a model that learned nothing but the average would paint.

    Raises
    ------
    DataError : no readable colour photograph among them.
    """
    means = []
    for _, rgb in _colour_pictures(spread(photographs, _MEAN_OF)):
        small = cv2.resize(rgb, (32, 32), interpolation=cv2.INTER_AREA)
        means.append(lab_from_rgb(small.astype(np.float32) / 255)[1:].mean(axis=(1, 2)))
    if not means:
        raise DataError(f"none of {len(photographs)} pictures is a readable colour photograph")
    a, b = np.mean(means, axis=0)
    return float(a), float(b)


def sheet(rows: list[list[NDArray]], height_px: int, gap_px: int = 4) -> NDArray[np.uint8]:
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
        cells = []
        for rgb in row:
            pixels = rgb if rgb.dtype == np.uint8 else np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)
            size = max(1, round(rgb.shape[1] * height_px / rgb.shape[0])), height_px
            small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
            cells.append(np.pad(small, ((gap_px, 0), (gap_px, 0), (0, 0)), constant_values=255))
        strips.append(np.concatenate(cells, axis=1))
    width = max(strip.shape[1] for strip in strips)
    even = [np.pad(s, ((0, 0), (0, width - s.shape[1]), (0, 0)), constant_values=255) for s in strips]
    return np.pad(np.concatenate(even), ((0, gap_px), (0, gap_px), (0, 0)), constant_values=255)


def table(rows: list[Row]) -> str:
    """The rows as one Markdown table."""
    heads = ["", "CIEDE2000 [95 %]", "% below gray", "MSE", "PSNR dB", "SSIM", "colourfulness", "of truth", "ms"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for r in rows:
        cells = [
            r.name,
            f"{r.ciede2000:.2f} [{r.ciede2000_low:.2f}, {r.ciede2000_high:.2f}]",
            f"{r.below_gray_percent:.1f}",
            f"{r.mse:.5f}",
            f"{r.psnr_db:.2f}",
            f"{r.ssim:.4f}",
            f"{r.colourfulness:.1f}",
            f"{r.colourfulness_of_truth:.2f}",
            f"{r.ms_per_picture:.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _write(out: Path, rows: list[Row], tallies: dict[str, _Tally], models: list[str]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    values = [dataclasses.asdict(row) for row in rows]
    (out / "table.md").write_text(table(rows) + "\n", encoding="utf-8")
    (out / "table.json").write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    with (out / "table.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(values[0]))
        writer.writeheader()
        writer.writerows(values)
    for name in models:
        triples = tallies[name].kept
        starts = range(0, len(triples), _SHEET_TRIPLES)
        lines = [[rgb for triple in triples[i : i + _SHEET_TRIPLES] for rgb in triple] for i in starts]
        pixels = sheet(lines, _SHEET_HEIGHT_PX)
        path = out / f"sheet_{name.replace('/', '_')}.png"
        if not cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)):
            raise OSError(f"{path}: cannot be written")


def evaluate(
    models: list[Model],
    data: Path,
    out: Path | None = None,
    limit: int | None = None,
    short_side_px: int = 256,
    everything: bool = False,
    report: Callable[[str], None] = print,
) -> list[Row]:
    """Measure models on the colour photographs of ``data`` that training never sees, beside gray and a flat mean tint.

    Parameters
    ----------
    models : each is run with 2 threads on one whole picture at a time
    out : folder for ``table.md``, ``table.csv``, ``table.json`` and ``sheet_<model>.png`` (gray, result, truth)
    limit : at most so many pictures, at even distances in the listing
    everything : take all pictures, not the test fifth: for a folder that no training has seen. The flat tint is then
        the mean of these pictures themselves, a little better than any model could know.

    Raises
    ------
    DataError : no readable colour photograph to measure on.
    """
    photographs = find_photographs(data)
    chosen = spread([p for p in photographs if everything or is_test(p)], limit)
    learnt = photographs if everything else [p for p in photographs if not is_test(p)]
    tint = mean_chroma(learnt)
    named = _names(models)
    flat = {"gray (a*=b*=0)": FlatColorizer((0, 0)), f"mean tint ({tint[0]:.1f}, {tint[1]:.1f})": FlatColorizer(tint)}
    tallies = {name: _Tally(colorize) for name, colorize in flat.items()}
    tallies |= {name: _Tally(OnnxColorizer(model)) for name, model in named.items()}
    shown = {p.path for p in spread(chosen, _SHEET_PICTURES)} if out else set()
    groups = []
    for photograph, rgb in _colour_pictures(chosen):
        samples = resized(rgb, short_side_px)
        groups.append(photograph.group)
        truth, lightness = samples.astype(np.float32) / np.float32(255), lightness_from_samples(samples)
        for name, tally in tallies.items():
            tally.add(truth, lightness, keep=photograph.path in shown and name in named)
    if not groups:
        raise DataError(
            f"{data}: none of {len(chosen)} pictures to test on is a readable colour photograph; "
            "add photographs, or measure on all pictures with --all"
        )
    gray = float(np.mean([figures[0] for figures in next(iter(tallies.values())).figures]))
    rows = [tally.row(name, groups, gray) for name, tally in tallies.items()]
    kind = "all pictures" if everything else "the fifth held out"
    left_out = len(chosen) - len(groups)
    report(f"{len(groups)} pictures of {len(set(groups))} photographs ({kind}), short side {short_side_px} px; "
           f"{left_out} left out (unreadable or gray)\n")  # fmt: skip
    report(table(rows))
    if out:
        _write(out, rows, tallies, list(named))
    return rows


def _names(models: list[Model]) -> dict[str, Model]:
    """Models by their own name, numbered where two share one."""
    named: dict[str, Model] = {}
    for model in models:
        same = sum(other.card.name == model.card.name for other in named.values())
        named[model.card.name + (f" ({same + 1})" if same else "")] = model
    return named
