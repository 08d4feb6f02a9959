"""Decisions of people about results: ``NAME.<time>-<id>.decision.json`` beside the sidecar, one file a decision.

A decision is on a version of one scan file's colours: the version's name says all settings, the hash which bytes they
were made from, so that new colours, or another scan of that name, need a decision of their own. A file is written once
and never changed or removed: several people on several machines need no lock, and nothing is lost by a kill. Who
changes his mind writes another decision, and of one person the last one counts.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, get_args

from pipeline.endings import FORMAT_FOLDERS as FOLDER_ENDINGS
from pipeline.errors import UsageError
from pipeline.metadata.provenance import premis_review
from pipeline.results.sidecar import Sidecar
from pipeline.support.files import read_text, walk, write_json
from pipeline.support.names import folded

DECISION_ENDING = ".decision.json"
FORMAT = 1
LONGEST_TEXT = 2000

Judgement = Literal["approve", "reject", "needs work", "undo"]
# What a person may say; "undo" takes back what the same person said of the version before.
JUDGEMENTS: tuple[Judgement, ...] = get_args(Judgement)
# What stands for a file that cannot be read: it may have been a rejection.
UNREADABLE: Literal["unreadable"] = "unreadable"
_TAIL = re.compile(r"\.(\d{8}T\d{12}Z-[0-9a-f]{8})" + re.escape(DECISION_ENDING))
_STORES = (".zarr", ".zarr.part", ".zarr.old.part")


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What one person said of one version.

    Attributes
    ----------
    decision : one of ``JUDGEMENTS``, or ``UNREADABLE``
    version, source_sha256 : whose colours, of which scan file's bytes
    person : the name that the person gave; nothing proves it
    when : ISO 8601 in UTC, to the microsecond
    reason, note : for people
    lifts : keys of the rules of the policy that held the scan when it was approved
        (:attr:`pipeline.results.policy.Rule.key`)
    id : 8 hexadecimal digits
    scan : path of the result below the output folder without ending; empty where it was read alone
    """

    decision: Judgement | Literal["unreadable"]
    version: str
    source_sha256: str
    person: str
    when: str
    reason: str = ""
    note: str = ""
    lifts: tuple[str, ...] = ()
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    scan: str = field(default="", compare=False)

    @property
    def who(self) -> str:
        """The person, folded: two spellings that differ in case or spaces are one person."""
        return folded(" ".join(self.person.split()))

    @property
    def order(self) -> tuple[str, str]:
        return self.when, self.id

    def is_on(self, version: str, source_sha256: str) -> bool:
        """True if the decision is on these colours of these bytes."""
        return (self.version, self.source_sha256) == (version, source_sha256)

    def to_json(self) -> dict[str, Any]:
        """The JSON of the file, with the decision as a PREMIS event."""
        values = {name: value for name, value in asdict(self).items() if name != "scan"}
        event = premis_review(
            self.when,
            self.decision,
            self.person,
            "; ".join(filter(None, (self.reason, self.note))),
            (self.version, self.source_sha256),
            self.id,
        )
        return {"format": FORMAT, **values, "lifts": list(self.lifts), "premis": event}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], scan: str = "") -> Decision:
        """A decision from the output of :meth:`to_json`. Raises UsageError for anything else."""
        known = {each.name for each in fields(cls)} - {"lifts", "scan"}
        texts = {name: values[name] for name in known if name in values}
        lifts = values.get("lifts", ())
        if not all(isinstance(value, str) for value in texts.values()) or not isinstance(lifts, list | tuple):
            raise UsageError(f"{scan}: not a decision; its values must be texts")
        try:
            made = cls(**texts, lifts=tuple(map(str, lifts)), scan=scan)
        except TypeError as error:
            raise UsageError(f"{scan}: not a decision ({error})") from error
        return made.checked()

    def checked(self) -> Decision:
        """The decision with its time in UTC. Raises UsageError if a value makes no sense."""
        if self.decision not in JUDGEMENTS:
            raise UsageError(f"decision {self.decision!r:.40} is none; give one of {', '.join(JUDGEMENTS)}")
        if not self.person.strip():
            raise UsageError("a decision without a person says nothing; give a name")
        if not self.version or not re.fullmatch("[0-9a-f]{64}", self.source_sha256):
            raise UsageError(
                f"decision on version {self.version!r:.80} of no scan; give version and SHA-256 of the scan"
            )
        if not re.fullmatch("[0-9a-f]{8}", self.id):
            raise UsageError(f"id {self.id!r:.40} is not 8 hexadecimal digits; leave it out for a new one")
        if long := [name for name in ("person", "reason", "note") if len(getattr(self, name)) > LONGEST_TEXT]:
            raise UsageError(f"{long[0]} of a decision is longer than {LONGEST_TEXT} letters; shorten it")
        try:
            when = datetime.fromisoformat(self.when)
        except ValueError as error:
            raise UsageError(f"{self.when!r:.40} is no time; give one like 2026-05-04T12:00:00+00:00") from error
        if when.tzinfo is None:
            raise UsageError(f"{self.when!r:.40} has no time zone; give one like 2026-05-04T12:00:00+00:00")
        return replace(self, when=when.astimezone(UTC).isoformat(timespec="microseconds"))


def decide(
    result: Path,
    decision: Judgement,
    person: str,
    *,
    reason: str = "",
    note: str = "",
    lifts: Iterable[str] = (),
    version: str | None = None,
) -> Decision:
    """Write a decision on the current version of a result, whose sidecar is ``result``, and return it.

    ``version`` is the one that the person saw: where another is current by now, nothing is decided.

    Raises
    ------
    SidecarError : there is no readable sidecar. UsageError : the version has changed, or no person is given.
    OutputError : the file cannot be written.
    """
    sidecar = Sidecar.read(result)
    current, source = sidecar.needed("settings", sidecar.version), sidecar.needed("source", sidecar.whole_source)
    if version is not None and version != current:
        raise UsageError(f"{result}: has other colours by now ({current}), nothing was decided; look at them first")
    last = max((each.when for each in decisions_beside(result) if each.decision != UNREADABLE), default="")
    made = Decision(
        decision=decision,
        version=current,
        source_sha256=source.sha256,
        person=" ".join(person.split()),
        when=_after(last),
        reason=reason.strip(),
        note=note.strip(),
        lifts=tuple(sorted(lifts)),
    ).checked()
    save(result, made)
    return made


def _after(last: str) -> str:
    """Now, or just after ``last`` where a clock went back: what a person says later must count as later."""
    now = datetime.now(UTC)
    if last:
        now = max(now, datetime.fromisoformat(last) + timedelta(microseconds=1))
    return now.isoformat(timespec="microseconds")


def save(result: Path, decision: Decision) -> Path:
    """Write a decision beside its sidecar ``result``; the path of its file. Raises OutputError."""
    path = decision_path(result, decision)
    write_json(path, decision.to_json())
    return path


def decision_path(result: Path, decision: Decision) -> Path:
    """The path of a decision's file beside the sidecar ``result``."""
    stamp = datetime.fromisoformat(decision.when).strftime("%Y%m%dT%H%M%S%fZ")
    return result.with_name(f"{_name_of(result)}.{stamp}-{decision.id}{DECISION_ENDING}")


def _name_of(result: Path) -> str:
    return result.name.removesuffix(".color.json")


def decisions_beside(result: Path) -> tuple[Decision, ...]:
    """The decisions on one scan, whose sidecar is or was ``result``, in the order of their times."""
    try:
        names = [found.name for found in result.parent.iterdir()]
    except OSError:
        return ()
    wanted = _name_of(result)
    return _ordered(_read(result.parent / name, wanted) for name in names if scan_of(name) == wanted)


def read_decisions(output: Path) -> dict[str, tuple[Decision, ...]]:
    """The decisions on all scans of an output folder, by the scans' stems, from one walk through it."""
    found: dict[str, list[Decision]] = {}
    for parent, names, files in walk(output):
        names[:] = [name for name in names if not name.endswith((*_STORES, *FOLDER_ENDINGS))]
        folder = parent.relative_to(output)
        for file in files:
            if (scan := scan_of(file)) is not None:
                stem = (folder / scan).as_posix()
                found.setdefault(stem, []).append(_read(parent / file, stem))
    return {stem: _ordered(each) for stem, each in sorted(found.items())}


def scan_of(file: str) -> str | None:
    """The name of the scan that a decision's file is about; None for other files.

    >>> scan_of("a.b.20260504T120000000000Z-0a1b2c3d.decision.json"), scan_of("a.decision.json")
    ('a.b', None)
    """
    if not file.endswith(DECISION_ENDING):
        return None
    tail = _TAIL.search(file)
    return file[: tail.start()] if tail and tail.start() and tail.end() == len(file) else None


def _read(path: Path, scan: str) -> Decision:
    """The decision in a file; one that says ``UNREADABLE`` if it cannot be read."""
    try:
        values = json.loads(read_text(path))
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise UsageError(f"{path}: not a decision of this release")
        return Decision.from_json(values, scan)
    except (OSError, ValueError) as error:
        return Decision(
            decision=UNREADABLE,
            version="",
            source_sha256="",
            person="",
            when="",
            note=f"{path.name}: {error}",
            id=path.name[: -len(DECISION_ENDING)][-8:],
            scan=scan,
        )


def _ordered(decisions: Iterable[Decision]) -> tuple[Decision, ...]:
    return tuple(sorted(decisions, key=lambda each: each.order))


def standing(decisions: Sequence[Decision], version: str, source_sha256: str) -> tuple[Decision, ...]:
    """The last word of each person on a version, in the order of their times; what was undone is left out."""
    last: dict[str, Decision] = {}
    for each in _ordered(each for each in decisions if each.is_on(version, source_sha256)):
        last[each.who] = each
    return _ordered(each for each in last.values() if each.decision != "undo")


def unreadable(decisions: Sequence[Decision]) -> Iterator[Decision]:
    """Those whose files cannot be read."""
    return (each for each in decisions if each.decision == UNREADABLE)
