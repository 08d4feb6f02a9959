"""The table: one row for each model or baseline, means with bootstrap 95 % intervals; as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.support.names import shown
from training.config import Phase
from training.evaluation.measure import Measures
from training.metrics import bootstrap_interval

_CROP_PX = Phase.model_fields["crop_px"].default


def in_cell(name: str) -> str:
    """A name, such as a folder's, escaped for a cell of a Markdown table."""
    return shown(name).replace("|", "\\|")


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table of cells escaped by :func:`in_cell`."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (heads, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(heads), *lines[1:]])


@dataclass(frozen=True)
class Figure:
    """A mean over the pictures and its 95 % interval, by bootstrap over photographs."""

    mean: float
    low: float
    high: float

    def text(self, form: str) -> str:
        """Mean and interval, each in the format ``form``.

        >>> Figure(11.25, 10.9, 11.6).text("+.1f")
        '+11.2 [+10.9, +11.6]'
        """
        return f"{self.mean:{form}} [{self.low:{form}}, {self.high:{form}}]"


@dataclass(frozen=True)
class Origin:
    """The origin of a model as far as its card gives it; unknown values are None.

    Attributes
    ----------
    reported_mse, reported_ssim : figures of the publication that the recipe follows, for other photographs than these
    source : that publication
    trained_steps, trained_seconds, trained_epochs : how long this model, not the publication's, was trained
    trained_pictures : number of pictures it was trained on
    trained_crop_px : sides of the training crops, in the order of the recipe's phases: "128 and 256 x 512"
    """

    reported_mse: float | None = None
    reported_ssim: float | None = None
    source: str | None = None
    trained_steps: int | None = None
    trained_seconds: float | None = None
    trained_epochs: float | None = None
    trained_pictures: int | None = None
    trained_crop_px: str | None = None

    @classmethod
    def from_card(cls, training: dict[str, Any]) -> Origin:
        """Read a model card's ``training``, which is free JSON: any part may be missing."""
        recipe, data = training.get("recipe") or {}, training.get("data") or {}
        reported = recipe.get("reported") or {}
        return cls(
            reported_mse=reported.get("mse"),
            reported_ssim=reported.get("ssim"),
            source=recipe.get("source") or None,
            trained_steps=training.get("steps"),
            trained_seconds=training.get("seconds"),
            trained_epochs=training.get("epochs"),
            trained_pictures=data.get("pictures"),
            trained_crop_px=_crops(recipe.get("phases") or []),
        )


def _crops(phases: list[dict[str, Any]]) -> str | None:
    """The different crop sizes of a card's phases in words."""
    words = []
    for phase in phases:
        crop = phase.get("crop_px", _CROP_PX)  # export leaves out defaults
        sides = crop if isinstance(crop, list | tuple) else [crop]
        words.append(" x ".join(map(str, sides if len(set(sides)) > 1 else sides[:1])))
    return " and ".join(dict.fromkeys(words)) or None


@dataclass(frozen=True)
class Row:
    """One line of the table. ``mse`` to ``ssim`` are for sRGB values in [0, 1].

    Attributes
    ----------
    below_gray_percent : how far the mean CIEDE2000 is below the gray baseline's
    stlpips : None without its weights
    frechet : see :mod:`training.evaluation.frechet`; None without the same weights, or for too few pictures
    colourfulness_ratio : mean of the results over mean of the truths
    tile_ms : one tile of 256 x 256 px at batch 1; None for the baselines, which run no network
    """

    name: str
    pictures: int
    ciede2000: Figure
    below_gray_percent: Figure
    mse: Figure
    psnr_db: Figure
    ssim: Figure
    stlpips: Figure | None
    frechet: float | None
    colourfulness: Figure
    colourfulness_of_truth: Figure
    colourfulness_ratio: Figure
    tile_ms: float | None
    origin: Origin

    @property
    def trained(self) -> str:
        """How long and on what crops the model was trained, in words; empty if its card does not say."""
        o = self.origin
        parts = []
        if o.trained_epochs is not None:
            parts.append(f"{o.trained_epochs:.3g} epochs")
        if o.trained_steps is not None:
            parts.append(f"{o.trained_steps:,} steps")
        if o.trained_seconds is not None:
            parts.append(f"{o.trained_seconds / 60:.0f} min")
        if o.trained_crop_px is not None:
            parts.append(f"{o.trained_crop_px} px")
        return ", ".join(parts)

    def flat(self) -> dict[str, Any]:
        """A flat mapping with one value per key: ``mse``, ``mse_low``, ``mse_high`` and so on; None is unknown."""
        values: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Origin):
                values |= dataclasses.asdict(value)
            elif isinstance(value, Figure) or field.name == "stlpips":
                bounds = (value.mean, value.low, value.high) if value else (None, None, None)
                values |= dict(zip((field.name, f"{field.name}_low", f"{field.name}_high"), bounds, strict=True))
            else:
                values[field.name] = value
        return values


@dataclass(frozen=True)
class Table:
    """The rows, a caption on what was measured, and the notes below.

    ``data_sha256`` is the collection's hash, as in cards of models trained on it; None if all pictures were measured.
    """

    caption: str
    rows: list[Row]
    notes: list[str]
    data_sha256: str | None = None

    def markdown(self) -> str:
        """Caption, table and notes. Empty columns are left out, except ST-LPIPS, so that its absence is visible."""
        columns = {head: [cell(row) for row in self.rows] for head, cell in _COLUMNS.items()}
        filled = {h: cells for h, cells in columns.items() if h in _ALWAYS or any(c != "-" for c in cells)}
        table = markdown_table(list(filled), zip(*filled.values(), strict=True))
        return "\n".join([self.caption, "", table, "", *(f"- {note}" for note in self.notes)])

    def write(self, folder: Path) -> None:
        """Write ``table.md``, ``table.csv`` and ``table.json``; the last two have every figure and interval."""
        values = [row.flat() for row in self.rows]
        (folder / "table.md").write_text(self.markdown() + "\n", encoding="utf-8")
        record = {"caption": self.caption, "data_sha256": self.data_sha256, "rows": values, "notes": self.notes}
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / "table.json").write_text(text + "\n", encoding="utf-8")
        with (folder / "table.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(values[0]))
            writer.writeheader()
            writer.writerows(values)


def _with_interval(name: str, form: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        figure: Figure | None = getattr(row, name)
        return figure.text(form) if figure else "-"

    return cell


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


_ALWAYS = {"", "ST-LPIPS [95 %]"}
_COLUMNS: dict[str, Callable[[Row], str]] = {
    "": lambda row: in_cell(row.name),
    "CIEDE2000 [95 %]": _with_interval("ciede2000", ".2f"),
    "% below gray [95 %]": _with_interval("below_gray_percent", ".1f"),
    "MSE [95 %]": _with_interval("mse", ".4f"),
    "MSE reported": lambda row: _number(row.origin.reported_mse, ".4f"),
    "SSIM [95 %]": _with_interval("ssim", ".3f"),
    "SSIM reported": lambda row: _number(row.origin.reported_ssim, ".4g"),
    "PSNR dB": lambda row: f"{row.psnr_db.mean:.2f}",
    "ST-LPIPS [95 %]": _with_interval("stlpips", ".3f"),
    "Fréchet": lambda row: _number(row.frechet, ".3f"),
    "colourfulness [95 %]": _with_interval("colourfulness", ".1f"),
    "of truth": lambda row: f"{row.colourfulness_of_truth.mean:.1f}",
    "ratio": lambda row: f"{row.colourfulness_ratio.mean:.2f}",
    "ms a tile": lambda row: _number(row.tile_ms, ".0f"),
    "trained": lambda row: row.trained or "-",
}


def make_row(
    name: str,
    measures: list[Measures],
    gray: list[Measures],
    truth_colourfulness: list[float],
    weights: NDArray[np.float64],
    tile_ms: float | None = None,
    origin: Origin | None = None,
    frechet: float | None = None,
) -> Row:
    """Means and intervals of one colorizer's figures.

    Parameters
    ----------
    measures, gray, truth_colourfulness : (N) of the same pictures in the same order; ``gray`` is the gray baseline
    weights : (draws, N) from :func:`training.metrics.bootstrap_weights`
    """
    columns = {key: np.array([getattr(m, key) for m in measures], np.float64) for key in Measures._fields}
    vivid_truth = np.array(truth_colourfulness, np.float64)

    def figure(key: str) -> Figure:
        return Figure(float(columns[key].mean()), *bootstrap_interval(columns[key], weights))

    def ratio(of: NDArray[np.float64], to: NDArray[np.float64]) -> Figure:
        return Figure(float(of.mean() / to.mean()), *bootstrap_interval(of, weights, over=to))

    to_gray = ratio(columns["ciede2000"], np.array([m.ciede2000 for m in gray]))
    return Row(
        name=name,
        pictures=len(measures),
        ciede2000=figure("ciede2000"),
        below_gray_percent=Figure(*(100 * (1 - r) for r in (to_gray.mean, to_gray.high, to_gray.low))),
        mse=figure("mse"),
        psnr_db=figure("psnr_db"),
        ssim=figure("ssim"),
        stlpips=None if any(math.isnan(m.stlpips) for m in measures) else figure("stlpips"),
        frechet=frechet,
        colourfulness=figure("colourfulness"),
        colourfulness_of_truth=Figure(float(vivid_truth.mean()), *bootstrap_interval(vivid_truth, weights)),
        colourfulness_ratio=ratio(columns["colourfulness"], vivid_truth),
        tile_ms=tile_ms,
        origin=origin or Origin(),
    )
