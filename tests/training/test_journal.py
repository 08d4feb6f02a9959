"""The table of losses for spreadsheets."""

import csv
import json

from training.journal import LOSSES, LOSSES_CSV, write_csv


def test_the_table_has_a_row_for_each_line_and_a_column_for_each_figure(tmp_path):
    lines = [
        {"step": 50, "epoch": 0.5, "content": 1.25},
        {"step": 100, "epoch": 1.0, "content": 1.0, "validation": 2.0},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / LOSSES).write_text(text + '{"step": 150, "con')  # as a killed run leaves it
    write_csv(tmp_path)
    with (tmp_path / LOSSES_CSV).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["step"] for row in rows] == ["50", "100"]
    assert [row["validation"] for row in rows] == ["", "2.0"]
    assert [path.name for path in tmp_path.glob("*.part")] == []
