"""The drawing of docs/architecture.md, by the floors of the contracts in pyproject.toml: python -m tests.rooms"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
DRAWING = ROOT / "docs" / "pictures" / "rooms.svg"
WINGS = {
    "flows": "many scans: nights, clusters, commands",
    "pipeline": "one scan: plain functions on arrays",
    "engines": "a model that predicts fast",
    "training": "only here PyTorch",
}
NOTES = {
    "cli": "only here Typer and Rich",
    "orchestration": "only here and in service: Prefect",
    "cluster": "only here Dask",
    "catalogue": "only here SQL",
    "objects": "only here object storage",
    "store": "only here and in formats: Zarr",
}
_GAP, _MARGIN, _TITLE, _HEIGHT, _WIDTH = 8, 14, 30, 34, 1080
_COLOURS = {"flows": "#eef3fb", "pipeline": "#eef8f0", "engines": "#fbf4e8", "training": "#f7eef7"}


def floors_of(wing: str) -> list[list[str]]:
    """The rooms of each floor of a wing, the highest first."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (layers,) = (each["layers"] for each in contracts if each.get("containers") == [wing])
    return [layer.replace(":", "|").replace(" ", "").split("|") for layer in layers]


def _text(x: float, y: float, words: str, size: int, more: str = "") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}"{more}>{words}</text>'


def _box(x: float, y: float, width: float, height: float, fill: str, radius: int = 4) -> str:
    place = f'x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}"'
    return f'<rect {place} rx="{radius}" fill="{fill}" stroke="#777"/>'


def _wing(name: str, floors: Sequence[Sequence[str]], x: float, y: float, width: float) -> list[str]:
    """A frame with its floors, one below the other."""
    title = _text(x + _MARGIN, y + 20, f"<tspan font-weight='bold'>{name}</tspan>: {WINGS[name]}", 14)
    drawn = [_box(x, y, width, height_of(floors), _COLOURS[name], 8), title]
    inner, top = width - 2 * _MARGIN, y + _TITLE
    for rooms in floors:
        wide = (inner - _GAP * (len(rooms) - 1)) / len(rooms)
        for number, room in enumerate(rooms):
            left, note = x + _MARGIN + number * (wide + _GAP), NOTES.get(room, "")
            middle, centred = left + wide / 2, ' text-anchor="middle"'
            drawn.append(_box(left, top, wide, _HEIGHT, "#fff"))
            drawn.append(_text(middle, top + (15 if note else 22), room, 13, centred))
            drawn += [_text(middle, top + 29, note, 11, f'{centred} fill="#555"')] if note else []
        top += _HEIGHT + _GAP
    return drawn


def height_of(floors: Sequence[Sequence[str]]) -> int:
    return _TITLE + len(floors) * (_HEIGHT + _GAP) - _GAP + _MARGIN


def drawing() -> str:
    """SVG: flows above, pipeline and engines side by side below it, training beside them."""
    flows, pipeline, engines = (floors_of(wing) for wing in ("flows", "pipeline", "engines"))
    training = [["reproduce", "evaluation", "palette", "loop"], ["generators", "discriminators", "data"]]
    second = 10 + height_of(flows) + 12
    third = second + height_of(engines) + 12
    left, right, split = 10, _WIDTH - 10, 640
    drawn = [
        *_wing("flows", flows, left, 10, right - left),
        *_wing("pipeline", pipeline, left, second, split - left),
        *_wing("engines", engines, split + 12, second, right - split - 12),
        *_wing("training", training, split + 12, third, right - split - 12),
    ]
    height = max(second + height_of(pipeline), third + height_of(training)) + 10
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif">'
    title = "<title>The rooms of the code: each imports from floors below its own only</title>"
    return "\n".join([head, title, _box(0, 0, _WIDTH, height, "#fff", 0), *drawn, "</svg>", ""])


if __name__ == "__main__":
    DRAWING.write_text(drawing(), encoding="utf-8")
