"""Which picture, and which changes of it, a tile of colours that are tried shows."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path

from flows.options import parse_vivid
from flows.review.correcting import Corrections, Subject, kept
from flows.review.desk import Desk, Item
from flows.review.previews import Change, GradeChange, VividChange
from flows.review.upright import Turn
from pipeline.colour.grading import Grade
from pipeline.errors import UsageError
from pipeline.results.sidecar import Sidecar

_KEPT = 8
TRIED = ("hints", "vivid", "saturation", "warmth")


@dataclass(frozen=True)
class Trial:
    """A picture by its sidecar, and what is changed in it; ``turn`` is that of the whole scan."""

    sidecar: Path
    changes: tuple[Change, ...] = ()
    turn: Turn | None = None


class Trials:
    """Colours that are tried on one desk; threads may share it."""

    def __init__(self, desk: Desk, corrections: Corrections) -> None:
        self._desk, self._corrections = desk, corrections
        self._vivid: OrderedDict[Hashable, VividChange] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, item: Item, version: str, given: Mapping[str, str]) -> Trial:
        """What is asked for: a version as it is, or the current one with what is in :data:`TRIED`.

        Raises
        ------
        LookupError : no such version, or hints that are others by now. UsageError : it cannot be tried. ColorizeError
        """
        grade = Grade.parse(given.get("saturation"), given.get("warmth"))
        if not given.get("hints") and given.get("vivid") is None and grade.is_identity:
            return Trial(self._desk.sidecar(item, version))
        if version not in ("", item.version):
            raise LookupError(version)
        on, turn, changes = item.version, None, list[Change]()
        if given.get("hints") or given.get("vivid") is not None:
            subject = self._corrections.subject(item)
            turn = subject.turn
            if given.get("vivid") is not None:
                changes.append(self._more_vivid(subject, parse_vivid(given["vivid"])))
            if given.get("hints"):
                on, hints = self._corrections.shown(subject, given["hints"])
                changes.append(hints)
        if not given.get("hints"):
            on = self._ungraded(item)
        if not grade.is_identity:
            changes.append(GradeChange(grade))
        return Trial(self._desk.sidecar(item, on), tuple(changes), turn)

    def _ungraded(self, item: Item) -> str:
        """The version whose colours a grade begins with. Raises UsageError where it has no picture any more."""
        spec = Sidecar.read(self._desk.sidecar(item)).spec
        before = (spec.graded_from if spec else "") or item.version
        if before != item.version and before not in item.kept:
            raise UsageError("the colours that its grade begins with were removed (--keep), so none can be tried")
        return before

    def _more_vivid(self, subject: Subject, vivid: float) -> VividChange:
        shape_yx, spec = subject.store.info.shape_yx, subject.spec

        def made() -> VividChange:
            version = subject.version(subject.before)
            answers = version.answers()
            if answers is None:
                raise UsageError("its colours are of no palette network, so that there is nothing more vivid to choose")
            return VividChange.of(answers, version.palette(shape_yx), spec.vivid, vivid, shape_yx)

        with self._lock:
            return kept(self._vivid, (subject.item.stem, subject.before, vivid), _KEPT, made)
