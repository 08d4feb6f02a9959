"""Hints that people place on the desk: written into the scan's file of hints, and shown on what is in view at once.

The file is the one that ``colorize-archive hint`` writes, and what is shown is spread by the code that makes the
version, over colours that the store has. A scan is looked at as a whole once; the few last looks are kept.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from flows.cluster.spreading import LookedAt, known_of, look_at
from flows.inputs import ScanFile
from flows.review.desk import Desk, Item
from flows.review.previews import HintChange
from flows.review.upright import Turn
from flows.run.hint_files import Places, TakenHints, take_hints
from pipeline.colour.lab import samples_from_lab
from pipeline.errors import ColorizeError, HintError, OutputError, UsageError
from pipeline.hints import ENDING
from pipeline.hints.colours import lab_of
from pipeline.hints.files import read_hints, write_hints
from pipeline.hints.model import FORMAT, AsIn, Hint, Hints
from pipeline.results.run_spec import RunSpec
from pipeline.results.sidecar import Sidecar
from pipeline.shapes import Shape
from pipeline.store import ChromaVersion, ScanStore
from pipeline.types import Roi

NONE = "none"
_MOST_SHOWN, _MOST_CORNERS = 1000, 200
_LOOKS, _SPREADS = 2, 8
_SWATCH_LIGHTNESS = 60.0
_AROUND_PX = 2

T = TypeVar("T")


@dataclass(frozen=True)
class Subject:
    """A scan that may be corrected.

    Attributes
    ----------
    item : its place in the list
    sidecar, spec : of its current version
    store : where its samples are
    before : the version whose colours hints correct
    """

    item: Item
    sidecar: Sidecar
    spec: RunSpec
    store: ScanStore
    before: str

    @cached_property
    def turn(self) -> Turn:
        source = self.sidecar.needed("source", self.sidecar.source)
        return Turn(self.store.info.shape_yx, int(source.metadata.get("orientation") or 1))

    @cached_property
    def scan(self) -> ScanFile:
        path = Path(self.store.source.path or self.store.path)
        return ScanFile(path, self.item.stem, self.store.source.page)

    def version(self, name: str) -> ChromaVersion:
        """Raises UsageError where it is not whole."""
        found = self.store.find_version(name)
        if found is None or not found.is_complete:
            raise UsageError("the store of this scan has not all of its colours any more; colour it anew first")
        return found


class Corrections:
    """The hints of the scans of one desk; threads may share it."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._places = Places(desk.output)
        self._writing, self._looking, self._spreading = threading.Lock(), threading.Lock(), threading.Lock()
        self._looks: OrderedDict[Hashable, LookedAt] = OrderedDict()
        self._changes: OrderedDict[Hashable, HintChange] = OrderedDict()

    def subject(self, item: Item) -> Subject:
        """Raises UsageError for a scan that cannot be corrected, StoreError, SidecarError."""
        if not item.version:
            raise UsageError("it has no colours yet; hints correct those that are there")
        sidecar = Sidecar.read(self._desk.sidecar(item))
        spec, result = sidecar.spec, sidecar.needed("result", sidecar.result)
        path = self._desk.sidecar(item).with_name(Path(result.store).name)
        if spec is None:
            raise UsageError("its colours are of another release; colour it anew first")
        if not path.is_dir():
            raise UsageError(f"{path.name} is gone, from which its colours would be corrected; colour it anew first")
        return Subject(item, sidecar, spec, ScanStore.open(path), spec.hints_from or spec.graded_from or item.version)

    def told(self, subject: Subject) -> dict[str, Any]:
        """The hints of a scan as the page shows them. Raises UsageError for a file with a mistake."""
        with self._plainly(subject):
            paths, own, taken = self._path(subject), self._own(subject), self._taken(subject)
            hints = own.hints[:_MOST_SHOWN]
            known = known_of(taken.record)[: len(hints)] if taken else ()
        count = int(taken.record["count"]) if taken else 0
        return {
            "hints": [
                {**_told(hint, subject.turn), "swatch": swatch(each.ab, _own_lightness(hint))}
                for hint, each in zip(hints, known, strict=True)
            ],
            "others": count - len(own.hints),
            "count": count,
            "stamp": taken.sha256 if taken else NONE,
            "made": (taken.sha256 if taken else "") == subject.spec.hints_sha256,
            "file": paths.name,
        }

    def change(self, subject: Subject, given: Mapping[str, Any]) -> dict[str, Any]:
        """Add, put back or remove one hint, and tell all.

        Parameters
        ----------
        given : ``seen``, the stamp of the hints that the person saw, and one of ``add``, a hint in upright pixels;
            ``remove``, the index of one; ``insert``, an index, with ``hint``, as it was removed

        Raises
        ------
        UsageError : it cannot be, or somebody else changed the hints meanwhile; nothing is written
        """
        if self._desk.read_only:
            raise UsageError("this desk was opened to look only (--read-only); no hint was written")
        with self._writing, self._plainly(subject):
            taken = self._taken(subject)
            if given.get("seen") != (taken.sha256 if taken else NONE):
                raise UsageError("somebody else changed the hints of this scan meanwhile; look at them first")
            path, own = self._path(subject), self._own(subject)
            if path.exists() and not _is_ours(path):
                raise UsageError("its hints are annotations of another program; change them there")
            made = _with(own, {**given, **self._turned(given)}, subject.turn)
            made.check(subject.store.info.shape_yx)
            try:
                data = path.read_bytes() if path.exists() else None
                write_hints(path, made)
                try:
                    self._taken(subject)  # with strokes that lie beside, and pictures whose colours are meant
                except HintError:
                    if data is None:
                        path.unlink()
                    else:
                        write_hints(path, own)
                    raise
            except (OutputError, OSError) as error:
                raise UsageError(f"{path.name} cannot be written where the hints lie; nothing was changed") from error
        return self.told(subject)

    def _turned(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """A new hint whose colour is another scan's: with the place as that scan's file has it. Raises UsageError."""
        add = given.get("add")
        if not isinstance(add, Mapping) or not isinstance(colour := add.get("colour"), Mapping):
            return {}
        at = colour.get("at")
        if not isinstance(at, list) or len(at) != 2 or not all(type(each) is int for each in at):
            raise UsageError("no pixel of another scan")
        try:
            other = self.subject(self._desk.item(str(colour.get("as_in"))))
        except KeyError as error:
            raise UsageError("no such other scan") from error
        if not all(0 <= each < side for each, side in zip(at, reversed(other.turn.upright_yx), strict=True)):
            raise UsageError("that pixel is outside the other scan")
        x, y = (int(each) for each in other.turn.to_stored(at[0] + 0.5, at[1] + 0.5))
        return {"add": {**add, "colour": {"as_in": other.item.stem, "at": [x, y]}}}

    def look(self, subject: Subject) -> LookedAt:
        """A look at the whole scan, which takes a while the first time. Raises StoreError."""
        with self._looking:
            key = subject.store.path, subject.before, subject.item.sha256
            return kept(
                self._looks, key, _LOOKS, lambda: look_at(subject.store, subject.version(subject.before)).prepared()
            )

    def shown(self, subject: Subject, stamp: str) -> tuple[str, HintChange]:
        """The version on whose picture hints are shown, and what they change in it.

        Raises
        ------
        LookupError : the hints are others by now. UsageError : no picture is there on which they could be shown
        """
        item, shape_yx = subject.item, subject.store.info.shape_yx
        on = subject.before
        if on != item.version and on not in item.kept:
            if not subject.spec.is_hinted:
                raise UsageError("the colours that hints begin with were removed (--keep); only a new run shows them")
            on = item.version

        def made() -> HintChange:
            with self._plainly(subject):
                taken = self._taken(subject)
            if (taken.sha256 if taken else NONE) != stamp:
                raise LookupError(stamp)
            shown = subject.version(on).correction() if on != subject.before else None
            return HintChange(self.look(subject).spread(known_of(taken.record) if taken else ()), shape_yx, shown)

        with self._spreading:
            return on, kept(self._changes, (item.stem, item.version, on, stamp), _SPREADS, made)

    def place(self, subject: Subject, x: int, y: int) -> dict[str, Any]:
        """What is at an upright pixel: its colour, and what else its network found likely there. Raises UsageError."""
        height, width = subject.turn.upright_yx
        if not (0 <= x < width and 0 <= y < height):
            raise UsageError("no such pixel")
        store, version = subject.store, subject.version(subject.item.version)
        at_x, at_y = (int(number) for number in subject.turn.to_stored(x + 0.5, y + 0.5))
        around = Roi(max(0, at_y - _AROUND_PX), at_y + _AROUND_PX + 1, max(0, at_x - _AROUND_PX), at_x + _AROUND_PX + 1)
        roi = around.clipped(store.info.shape_yx)
        lightness = float(np.median(store.read_lightness(roi)))
        half = version.read(roi).astype(np.float32).mean((1, 2)) * np.float32(version.scale_factor)
        answers, told = version.answers(), []
        if answers is not None:
            rows, columns = answers.shape[2:]
            cell = answers[:, :, at_y * rows // store.info.shape_yx[0], at_x * columns // store.info.shape_yx[1]]
            told = [
                {"colour": swatch((float(a), float(b)), lightness), "share": round(float(share), 3)}
                for a, b, share in cell
                if share > 0
            ]
        now = swatch((float(half[0]), float(half[1])), lightness)
        return {"colour": now, "lightness": round(lightness, 1), "likely": told}

    def _taken(self, subject: Subject) -> TakenHints | None:
        return take_hints(self._places, subject.scan, subject.store.info.shape_yx)[0]

    def _path(self, subject: Subject) -> Path:
        """The file that the desk writes: where hints of the scan lie already, or beside its result."""
        found = self._places.find(subject.scan)
        for path in found:
            if path.name.endswith(ENDING):
                return path
        if found:
            return found[0].with_name(found[0].name.rsplit(".hints.", 1)[0] + ENDING)
        return self._desk.output / f"{subject.item.stem}{ENDING}"

    def _own(self, subject: Subject) -> Hints:
        """The hints of that file. Raises HintError."""
        path = self._path(subject)
        if not path.exists():
            return Hints()
        return read_hints(path, subject.store.info.shape_yx)

    def _plainly(self, subject: Subject) -> _Plainly:
        return _Plainly((f"{self._desk.output}/", f"{subject.scan.path.parent}/"))


@dataclass(frozen=True)
class _Plainly:
    """What is wrong with hints, told without the folders of this machine."""

    folders: tuple[str, ...]

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, HintError):
            text = str(error)
            for folder in self.folders:
                text = text.replace(folder, "")
            raise UsageError(text) from error


def kept(last: OrderedDict[Hashable, T], key: Hashable, most: int, make: Callable[[], T]) -> T:
    """What was made for a key, or is made now; so many of the last ones are kept."""
    if key not in last:
        last[key] = make()
    last.move_to_end(key)
    while len(last) > most:
        last.popitem(last=False)
    return last[key]


def _is_ours(path: Path) -> bool:
    """Whether a readable file of hints has this project's format."""
    values = json.loads(path.read_bytes())
    return isinstance(values, dict) and values.get("format") == FORMAT


def _with(own: Hints, given: Mapping[str, Any], turn: Turn) -> Hints:
    """The hints after a change. Raises HintError, UsageError."""
    asked = [name for name in ("add", "remove", "insert") if name in given]
    if len(asked) != 1:
        raise UsageError("one change at a time: add, remove or insert")
    if asked == ["add"]:
        return own.with_hint(_stored(given["add"], turn))
    index = given[asked[0]]
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index <= len(own.hints):
        raise UsageError("no such hint")
    if asked == ["remove"]:
        if index == len(own.hints):
            raise UsageError("no such hint")
        return replace(own, hints=own.hints[:index] + own.hints[index + 1 :])
    return replace(own, hints=(*own.hints[:index], _parsed(given.get("hint")), *own.hints[index:]))


def _parsed(values: Any) -> Hint:
    try:
        return Hint.from_json(values)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, ColorizeError):
            raise
        raise UsageError("no hint") from error


def _stored(values: Any, turn: Turn) -> Hint:
    """A hint of the page, whose place is an upright pixel or box, as the file has it. Raises HintError, UsageError."""
    hint = replace(_parsed(values), date=datetime.now(UTC).date().isoformat())
    if not hint.author:
        raise UsageError("a hint is somebody's word: give a name")
    if hint.shape.kind == "polygon" or len(hint.shape.numbers) != 1:
        raise UsageError("a hint of the page is one pixel or one box")
    if not hint.shape.is_inside(turn.upright_yx):
        raise UsageError("the hint is outside the picture")
    x, y, *size = hint.shape.numbers[0]
    if not size:
        at = turn.to_stored(int(x) + 0.5, int(y) + 0.5)
        return replace(hint, shape=Shape("points", ((int(at[0]), int(at[1])),)))
    corners = turn.to_stored(x, y), turn.to_stored(x + size[0], y + size[1])
    (x0, x1), (y0, y1) = (sorted(each) for each in zip(*corners, strict=True))
    return replace(hint, shape=Shape("boxes", ((x0, y0, x1 - x0, y1 - y0),)))


def _told(hint: Hint, turn: Turn) -> dict[str, Any]:
    """A hint for the page: as the file has it, and the corners of its place in upright pixels."""
    shape, places = hint.shape, list[Any]()
    for numbers in shape.numbers[:_MOST_CORNERS]:
        if shape.kind == "boxes":
            x, y, w, h = numbers
            places.append([turn.to_upright(*corner) for corner in ((x, y), (x + w, y), (x + w, y + h), (x, y + h))])
        elif shape.kind == "points":
            places.append(turn.to_upright(int(numbers[0]) + 0.5, int(numbers[1]) + 0.5))
    if shape.kind == "polygon":
        places = [[turn.to_upright(x, y) for x, y in shape.numbers[:_MOST_CORNERS]]]
    colour = str(hint.colour) if isinstance(hint.colour, AsIn) else hint.colour
    small = len(shape.numbers) <= _MOST_CORNERS
    return {"hint": hint.to_json() if small else None, "places": places, "words": colour}


def _own_lightness(hint: Hint) -> float:
    """That of the colour as it was given, for a swatch; the picture has the scan's."""
    return _SWATCH_LIGHTNESS if isinstance(hint.colour, AsIn) else lab_of(hint.colour)[0]


def swatch(ab: tuple[float, float], lightness: float = _SWATCH_LIGHTNESS) -> str:
    """The colour as a browser names it: where sRGB has no such colour, one of less chroma, as in the picture."""
    planes = np.array(ab, np.float32).reshape(2, 1, 1)
    rgb = samples_from_lab(np.full((1, 1), lightness, np.float32), planes, np.dtype(np.uint8))[0, 0]
    return "#" + bytes(rgb.tolist()).hex()
