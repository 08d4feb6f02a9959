"""Figures by theme and by collection."""

from __future__ import annotations

import math

import pytest

from training.evaluation.groups import Grouped, group_rows, markdown


def _pictures(theme: str, source: str, count: int, gray: float, model: float) -> list[Grouped]:
    return [Grouped(theme, source, {"gray": gray, "model": model}, {"gray": 0.3, "model": model / 100})] * count


PICTURES = [
    *_pictures("people", "one", 8, 10, 8),
    *_pictures("sea", "one", 12, 20, 22),
    *_pictures("fog", "", 3, 5, 5),
]


def test_each_theme_has_its_own_mean_below_its_own_gray() -> None:
    rows = {row.name: row for row in group_rows(PICTURES, "theme")}
    assert [*rows] == ["people", "sea", "others"]
    assert rows["people"].below_gray_percent["model"] == pytest.approx(20)
    assert rows["sea"].below_gray_percent["model"] == pytest.approx(-10)
    assert (rows["others"].pictures, rows["others"].gray) == (3, 5)


def test_both_tables_name_every_group() -> None:
    text = markdown(PICTURES)
    assert "| people | 8 | 10.00 | 20.0 |" in text
    assert "| collection | pictures | gray, CIEDE2000 | model, % below |" in text
    assert "| one | 20 | 16.00 | -2.5 |" in text
    assert "| people | 8 | 0.300 | 0.080 |" in text
    assert "| collection, ST-LPIPS | pictures | gray | model |" in text


def test_without_its_weights_there_is_no_st_lpips() -> None:
    unknown = [Grouped(p.theme, p.collection, p.ciede2000, dict.fromkeys(p.stlpips, math.nan)) for p in PICTURES]
    assert "ST-LPIPS" not in markdown(unknown)
