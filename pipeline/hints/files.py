"""The files that hold hints: ``NAME.hints.json``, this project's own or annotations, and ``NAME.hints.png``."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.errors import HintError
from pipeline.hints import STROKES
from pipeline.hints.annotations import from_annotations, is_annotation
from pipeline.hints.model import LIMIT_BYTES, Hints
from pipeline.hints.strokes import from_strokes
from pipeline.support.files import open_file, write_json


def read_hints(path: Path, shape_yx: tuple[int, int]) -> Hints:
    """The hints of a file for a scan of this size, which :meth:`Hints.check` has not looked at yet.

    Raises
    ------
    HintError : it cannot be read; the message does not name the file
    """
    data = _data(path)
    if path.name.endswith(STROKES):
        return from_strokes(data, shape_yx)
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise HintError(f"is no JSON ({' '.join(str(error).split()):.80}); check the file") from error
    return from_annotations(values, shape_yx) if is_annotation(values) else Hints.from_json(values)


def _data(path: Path) -> bytes:
    try:
        with open_file(path) as stream:
            data = stream.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise HintError(f"cannot be read ({error.strerror or error}); check it") from error
    if len(data) > LIMIT_BYTES:
        raise HintError(
            f"has {path.stat().st_size / 2**20:.0f} MiB, and hints fit into {LIMIT_BYTES // 2**20}; check what it is"
        )
    return data


def write_hints(path: Path, hints: Hints) -> None:
    """Write a file of hints beside its place, then rename it. Raises OutputError."""
    write_json(path, hints.to_json())
