"""The settings of a run: everything that decides the bytes of a result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pipeline.colour.grading import Grade

# Raised when the same settings would give other bytes, so that results of older code count as out of date.
ALGORITHM = 2
_GRADING = ("grade", "graded_from")
_HINTING = ("hints_sha256", "hints_from")


@dataclass(frozen=True)
class RunSpec:
    """Everything that decides the bytes of a result; two equal specs on equal scans give equal pictures.

    ``tile_yx`` and ``stride_yx`` are in pixels. Tiles start at multiples of ``align`` if the stride is such a multiple.
    ``anchor`` says whether the palette comes from the whole scan. ``quality`` is the seam score that finer tiles should
    reach, 0 for none; ``stride_yx`` is then the coarsest stride. ``vivid``, ``cautious`` and ``answer`` decide
    how colours are chosen from a palette network's distribution (:mod:`pipeline.palettes.answers`); ``palette_engine``
    and ``palette_precision`` are the engine and precision of that network. ``palette_copy_sha256`` is the hash of the
    coloured copy that gives the palette instead, ``series_sha256`` that of the bytes of all scans of the series that it
    was made in. ``reused`` names the version whose tiles were taken over, rounded to float16 by its store. If the
    colours of another version were changed and none predicted, ``grade`` says how, and ``graded_from`` names that
    version, which all other settings describe. Where hints corrected the colours of another version, ``hints_sha256``
    is the hash of these hints and ``hints_from`` names that version; a grade comes after it. Workers, blocks and
    schedulers are left out: they must not matter.
    """

    tile_yx: tuple[int, int]
    stride_yx: tuple[int, int]
    window: str
    engine: str
    engine_version: str
    precision: str
    batch: int
    model: str
    model_sha256: str
    chroma_scale: float
    align: int = 1
    anchor: bool = False
    quality: float = 0.0
    vivid: float = 0.0
    cautious: bool = False
    answer: int = 1
    palette_sha256: str = ""
    palette_engine: str = ""
    palette_precision: str = ""
    palette_copy_sha256: str = ""
    series_sha256: str = ""
    reused: str = ""
    int8_sha256: str = ""
    algorithm: int = ALGORITHM
    hints_sha256: str = ""
    hints_from: str = ""
    grade: Grade | None = None
    graded_from: str = ""

    def to_json(self) -> dict[str, Any]:
        values = {**asdict(self), "tile_yx": list(self.tile_yx), "stride_yx": list(self.stride_yx)}
        grade = {"grade": self.grade.to_json(), "graded_from": self.graded_from} if self.grade else {}
        hints = {name: values[name] for name in _HINTING} if self.hints_sha256 else {}
        # What has none of these keeps the settings, and with them the name, that it had before there were any.
        plain = [name for name in ("series_sha256", "answer") if values[name] in ("", 1)]
        left_out = (*_GRADING, *_HINTING, *plain)
        return {**{name: value for name, value in values.items() if name not in left_out}, **hints, **grade}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RunSpec:
        """The settings from the output of :meth:`to_json`. Raises TypeError, KeyError for anything else."""
        sizes = {name: (int(values[name][0]), int(values[name][1])) for name in ("tile_yx", "stride_yx")}
        grade = Grade.from_json(values["grade"]) if values.get("grade") else None
        return cls(**{**values, **sizes, "grade": grade})

    @property
    def is_hinted(self) -> bool:
        """Whether it is another version's colours with hints, and no more."""
        return bool(self.hints_sha256) and self.grade is None

    @property
    def predicted(self) -> RunSpec:
        """The settings of the colours that everything began with, without hints or a grade."""
        return replace(self, hints_sha256="", hints_from="", grade=None, graded_from="")

    def with_hints(self, sha256: str) -> RunSpec:
        """These settings of predicted colours, corrected by hints."""
        return replace(self.predicted, hints_sha256=sha256, hints_from=self.predicted.version)

    @property
    def version(self) -> str:
        """The name of a version with these settings: tile-stride-window-model-hash, as 256-128-hann-default-1f2e3d4c.

        The model's name has ``_hinted`` behind it where hints corrected its colours, and ``_graded`` where a grade did.

        Two different settings never share a name: the hash is the first 32 bits of the SHA-256 of all of them.
        """
        text = json.dumps(self.to_json(), sort_keys=True)
        sizes = [_size_text(self.tile_yx), _size_text(self.stride_yx)]
        model = "".join(c if c.isalnum() else "_" for c in self.model)
        model += ("_hinted" if self.hints_sha256 else "") + ("_graded" if self.grade else "")
        return "-".join([*sizes, self.window, model, hashlib.sha256(text.encode()).hexdigest()[:8]])


def _size_text(size_yx: tuple[int, int]) -> str:
    return str(size_yx[0]) if size_yx[0] == size_yx[1] else f"{size_yx[0]}x{size_yx[1]}"


def utc_now() -> str:
    """The current time in UTC as ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
