"""Has a palette become better? Compares gray, the palette that a run began with, and the new one on held-out pictures.

All rows are measured on the same pictures, and intervals come from the same resamplings of them
(:mod:`training.metrics`), so that a difference shared by most pictures is found even if the pictures differ much more
among themselves.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from training.evaluation.table import Figure, in_cell, markdown_table
from training.metrics import bootstrap_interval, bootstrap_weights
from training.palette.choose import PictureErrors

TABLE = "verdict"
LEAST_PHOTOGRAPHS = 8  # fewer held-out photographs are not enough for a verdict


@dataclass(frozen=True)
class VerdictRow:
    """One palette on the held-out pictures.

    Attributes
    ----------
    ciede2000 : mean over pictures of the mean over their cells
    below_gray_percent : how far it is below gray's; None for gray itself
    against_start : CIEDE2000 minus that of the palette that the run began with; None for that palette itself, and if
        there was none
    chroma_of_truth : mean chroma over the truth's
    """

    name: str
    ciede2000: Figure
    below_gray_percent: Figure | None
    against_start: Figure | None
    chroma_of_truth: float


@dataclass(frozen=True)
class Verdict:
    """Rows (gray first, the new palette last), the numbers of pictures and photographs, and the start's name."""

    rows: tuple[VerdictRow, ...]
    pictures: int
    photographs: int
    start: str | None

    @classmethod
    def of(cls, groups: Sequence[str], new: PictureErrors, start: str | None, before: PictureErrors | None) -> Verdict:
        """Compare both on the same pictures.

        Parameters
        ----------
        groups : (N,) the photograph of each picture
        start, before : the model that the run began with and its errors; None for a run that began with none
        """
        weights = bootstrap_weights(groups)
        gray = new.gray

        def row(name: str, errors: PictureErrors | None) -> VerdictRow:
            own = gray if errors is None else errors.ciede2000
            below = against = None
            if errors is not None:
                low, high = bootstrap_interval(own, weights, over=gray)
                below = Figure(*(100 * (1 - ratio) for ratio in (own.mean() / gray.mean(), high, low)))
            if before is not None and errors is not before:
                difference = own - before.ciede2000
                against = Figure(float(difference.mean()), *bootstrap_interval(difference, weights))
            figure = Figure(float(own.mean()), *bootstrap_interval(own, weights))
            return VerdictRow(name, figure, below, against, errors.chroma_of_truth if errors else 0.0)

        begun = () if start is None or before is None else (row(start, before),)
        return cls((row("gray", None), *begun, row("new", new)), len(gray), len(set(groups)), start)

    @property
    def sentence(self) -> str:
        """The result in words; empty for a run that began without a palette."""
        against = self.rows[-1].against_start
        if against is None:
            return ""
        of = f"CIEDE2000 against {self.start} {against.text('+.2f')}"
        if self.photographs < LEAST_PHOTOGRAPHS:
            few = f"{self.photographs} held-out photographs are too few to tell, give {LEAST_PHOTOGRAPHS} or more"
            return f"the palette became no better as far as can be told: {few}; {of}"
        if against.high < 0:
            return f"the palette became better: {of}"
        if against.low > 0:
            return f"the palette became worse: {of}; keep {self.start}"
        return f"the palette became no better: {of}, which may be chance; keep {self.start}"

    def markdown(self) -> str:
        """Caption, table and sentence."""
        heads = ["", "CIEDE2000 [95 %]", "% below gray [95 %]"]
        heads += [f"against {in_cell(self.start)} [95 %]"] if self.start else []
        rows = []
        for row in self.rows:
            cells = [in_cell(row.name), row.ciede2000.text(".2f"), _cell(row.below_gray_percent, ".1f")]
            cells += [_cell(row.against_start, "+.2f")] if self.start else []
            rows.append([*cells, f"{row.chroma_of_truth:.2f}"])
        caption = f"{self.pictures} held-out pictures of {self.photographs} photographs, by the cells of their palettes"
        table = markdown_table([*heads, "chroma of truth's"], rows)
        return "\n".join([caption, "", table, *(["", self.sentence] if self.sentence else [])])

    def write(self, folder: Path) -> None:
        """Write ``verdict.md`` and ``verdict.json`` into ``folder``."""
        (folder / f"{TABLE}.md").write_text(self.markdown() + "\n", encoding="utf-8")
        record = {**asdict(self), "sentence": self.sentence}
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / f"{TABLE}.json").write_text(text + "\n", encoding="utf-8")


def _cell(figure: Figure | None, form: str) -> str:
    return "-" if figure is None else figure.text(form)
