"""The figures by theme and by collection: a mean over all pictures hides failures in a single kind.

A theme is the folder that a picture lies in, a collection the ``source`` that ``MANIFEST.tsv`` names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.evaluation.table import in_cell, markdown_table

LEAST_PICTURES = 8  # in a group: a mean of fewer says little


@dataclass(frozen=True)
class Grouped:
    """CIEDE2000 of one picture for every colorizer, the gray baseline first, and the groups of the picture.

    ``stlpips`` is for the same colorizers, NaN if it was not measured.
    """

    theme: str
    collection: str
    ciede2000: dict[str, float]
    stlpips: dict[str, float]


@dataclass(frozen=True)
class GroupRow:
    """Means of a group: its gray baseline, how far each colorizer is below it in per cent, and every ST-LPIPS."""

    name: str
    pictures: int
    gray: float
    below_gray_percent: dict[str, float]
    stlpips: dict[str, float]


def group_rows(pictures: Sequence[Grouped], key: str) -> list[GroupRow]:
    """One row for each group of at least eight pictures, and a last one for the rest; ``key``: theme or collection."""
    groups: dict[str, list[Grouped]] = {}
    for picture in pictures:
        groups.setdefault(getattr(picture, key) or "not said", []).append(picture)
    large = {name: members for name, members in groups.items() if len(members) >= LEAST_PICTURES}
    small = [picture for name, members in groups.items() if name not in large for picture in members]
    rows = [_row(name, members) for name, members in sorted(large.items())]
    return [*rows, _row("others", small)] if small else rows


def markdown(pictures: Sequence[Grouped]) -> str:
    """Both tables, and the same two for ST-LPIPS if it was measured."""
    groups = {key: group_rows(pictures, key) for key in ("theme", "collection")}
    tables = [_below_gray(key, rows) for key, rows in groups.items()]
    if all(np.isfinite(value) for picture in pictures for value in picture.stlpips.values()):
        tables += [_stlpips(key, rows) for key, rows in groups.items()]
    return "\n\n".join(tables)


def _below_gray(key: str, rows: Sequence[GroupRow]) -> str:
    heads = [key, "pictures", "gray, CIEDE2000", *(f"{name}, % below" for name in rows[0].below_gray_percent)]
    return _table(
        heads,
        [
            [row.name, f"{row.pictures}", f"{row.gray:.2f}", *(f"{v:.1f}" for v in row.below_gray_percent.values())]
            for row in rows
        ],
    )


def _stlpips(key: str, rows: Sequence[GroupRow]) -> str:
    cells = [[row.name, f"{row.pictures}", *(f"{value:.3f}" for value in row.stlpips.values())] for row in rows]
    return _table([f"{key}, ST-LPIPS", "pictures", *rows[0].stlpips], cells)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return markdown_table([*map(in_cell, heads)], ([*map(in_cell, cells)] for cells in rows))


def _row(name: str, members: Sequence[Grouped]) -> GroupRow:
    gray, *others = members[0].ciede2000
    mean = {each: float(np.mean([m.ciede2000[each] for m in members])) for each in (gray, *others)}
    below = {each: 100 * (1 - mean[each] / mean[gray]) for each in others}
    stlpips = {each: float(np.mean([m.stlpips[each] for m in members])) for each in members[0].stlpips}
    return GroupRow(name, len(members), mean[gray], below, stlpips)
