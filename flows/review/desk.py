"""An output folder as the review desk sees it: each scan with its verdict, kept in memory, and decisions on them.

The list comes from the catalogue and the decisions' files, without opening a sidecar for each scan, and is read again
where one of both has changed. A name that a request brings is only ever looked up in this list: no path is made of it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from flows.catalogue.database import FILE, Catalogue, KnownScan, KnownVersion
from pipeline.errors import UsageError
from pipeline.palettes.doubt import word_of
from pipeline.results.decisions import Decision, Judgement, decide, decisions_beside, read_decisions, standing
from pipeline.results.policy import POLICY_FILE, Policy, Subject
from pipeline.results.release import Verdict, may_go_out, rules_to_lift, verdict_of
from pipeline.results.sidecar import SIDECAR_ENDING, Sidecar
from pipeline.support.names import folded

TO_REVIEW = ("unreviewed", "waiting", "held", "unknown")
FILTERS = ("all", "to review", "approved", "rejected", "needs work", "held", "forbidden", "failed")
SORTS = ("name", "doubt", "newest", "seam")
_LOOK_SECONDS = 5.0
_MOST_AT_ONCE = 500


@dataclass(frozen=True)
class Item:
    """One scan of the list.

    ``state`` is that of its verdict, or "failed" where there is no result; ``version`` and ``sha256`` say which colours
    of which file are current; ``kept`` are the names of its other versions.
    """

    stem: str
    state: str
    reason: str
    version: str = ""
    sha256: str = ""
    finished: str = ""
    megapixels: float = 0.0
    doubt: float | None = None
    seam: float | None = None
    kept: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        parent = str(PurePosixPath(self.stem).parent)
        return "" if parent == "." else parent

    def to_json(self) -> dict[str, Any]:
        """What the list shows."""
        word = None if self.doubt is None else word_of(self.doubt)
        return {
            "scan": self.stem,
            "state": self.state,
            "reason": self.reason,
            "version": self.version,
            "finished": self.finished,
            "megapixels": self.megapixels,
            "doubt": self.doubt,
            "word": word,
        }


@dataclass(frozen=True)
class Query:
    """Which part of the list is asked for."""

    show: str = "all"
    text: str = ""
    folder: str = ""
    series: str = ""
    sort: str = "name"
    offset: int = 0
    limit: int = 100

    @classmethod
    def of(cls, values: Iterable[tuple[str, str]]) -> Query:
        """From the parameters of a request. Raises UsageError."""
        given = dict(values)
        show, sort = given.get("show", "all"), given.get("sort", "name")
        if show not in FILTERS or sort not in SORTS:
            raise UsageError("no such filter or order")
        offset, limit = (_number(given.get(name, default)) for name, default in (("offset", "0"), ("limit", "100")))
        text, folder, series = given.get("q", "")[:200], given.get("folder", ""), given.get("series", "")
        return cls(show, text, folder, series, sort, offset, min(limit, _MOST_AT_ONCE))


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise UsageError("no number")
    return int(text)


class Desk:
    """The list of one folder; threads may share it.

    Parameters
    ----------
    output : the folder of results
    read_only : refuse decisions
    """

    def __init__(self, output: Path, read_only: bool = False) -> None:
        self.output, self.read_only = output, read_only
        self._lock = threading.Lock()
        self._items: dict[str, Item] = {}
        self._policy = Policy()
        self._stamp: tuple[Any, ...] = ()
        self._looked = 0.0
        self._series: dict[tuple[str, str, str], str] = {}
        self.refresh()

    @property
    def policy(self) -> Policy:
        return self._policy

    def refresh(self) -> None:
        """Read list and decisions anew. Raises UsageError for a policy with a mistake."""
        with self._lock:
            self._stamp = self._stamp_now()
            policy, decisions = Policy.read(self.output), read_decisions(self.output)
            with Catalogue.open(self.output) as catalogue:
                scans, versions = catalogue.scans(), catalogue.versions()
            Catalogue.keep_decisions(self.output, decisions)
            self._policy = policy
            self._items = {each.stem: each for each in _items(self.output, scans, versions, decisions, policy)}
            self._looked = time.monotonic()

    def items(self) -> dict[str, Item]:
        """All scans by stem; read anew where the folder has changed."""
        if time.monotonic() - self._looked > _LOOK_SECONDS:
            self._looked = time.monotonic()
            if self._stamp_now() != self._stamp:
                self.refresh()
        return self._items

    def _stamp_now(self) -> tuple[Any, ...]:
        """Changes whenever a run has ended, or somebody else changed the policy or decided in this folder."""
        found: list[tuple[int, int] | None] = []
        for name in (FILE, f"{FILE}-wal", POLICY_FILE, "."):
            try:
                status = (self.output / name).stat()
            except OSError:
                found.append(None)
            else:
                found.append((status.st_mtime_ns, status.st_size))
        return tuple(found)

    def item(self, stem: str) -> Item:
        """The scan of this name. Raises KeyError."""
        return self.items()[stem]

    def chosen(self, query: Query) -> tuple[list[Item], int, dict[str, int]]:
        """The wanted part of the list, the number of all that fit, and how many of the folder have each state."""
        items = [each for each in self.items().values() if _is_in(each, query.folder)]
        if query.series:
            items = [each for each in items if self._series_of(each) == query.series]
        counts = Counter(each.state for each in items)
        text = folded(query.text)
        fitting = [each for each in items if _shows(query.show, each.state) and (not text or text in folded(each.stem))]
        ordered = sorted(fitting, key=lambda each: _place(each, query.sort))
        told = {name: sum(n for state, n in counts.items() if _shows(name, state)) for name in FILTERS}
        return ordered[query.offset : query.offset + query.limit], len(ordered), told

    def folders(self) -> list[str]:
        """All folders of scans."""
        found: set[str] = set()
        for each in self.items().values():
            folder = PurePosixPath(each.stem).parent
            found |= {str(parent) for parent in (folder, *folder.parents) if str(parent) != "."}
        return sorted(found)

    def series(self) -> list[str]:
        """The names of all series. The first call reads the sidecars of all scans."""
        return sorted({name for each in self.items().values() if (name := self._series_of(each))})

    def _series_of(self, item: Item) -> str:
        """The series that the colours of a scan were made in; empty for none. A version's is read once."""
        key = item.stem, item.version, item.finished
        if key not in self._series:
            found = Sidecar.find(self.sidecar(item)) if item.version else None
            self._series[key] = found.series.name if found is not None and found.series is not None else ""
        return self._series[key]

    def sidecar(self, item: Item, version: str = "") -> Path:
        """The sidecar of a version of a scan, of the current one if none is named. Raises KeyError."""
        if version in ("", item.version):
            return self.output / f"{item.stem}{SIDECAR_ENDING}"
        if version not in item.kept:
            raise KeyError(version)
        return self.output / f"{item.stem}.{version}{SIDECAR_ENDING}"

    def decisions(self, item: Item) -> tuple[Decision, ...]:
        """All decisions on a scan, in the order of their times."""
        return decisions_beside(self.sidecar(item))

    def decide(self, stem: str, decision: Judgement, person: str, version: str, reason: str, note: str) -> Item:
        """Write a decision on the version that the person saw, and return the scan as it is now.

        Raises
        ------
        KeyError : no such scan. UsageError, SidecarError, OutputError : as :func:`pipeline.results.decisions.decide`.
        """
        if self.read_only:
            raise UsageError("this desk was opened to look only (--read-only); nothing was decided")
        item = self.item(stem)
        path = self.sidecar(item)
        sidecar = Sidecar.read(path)
        lifts = rules_to_lift(sidecar, self._policy, stem) if decision == "approve" else ()
        decide(path, decision, person, reason=reason, note=note, lifts=lifts, version=version)
        said = decisions_beside(path)
        verdict = may_go_out(sidecar, said, self._policy, stem=stem, unreviewed=True)
        made = replace(item, state=verdict.state, reason=verdict.reason)
        with self._lock:
            self._items[stem] = made
            # Our own file is no reason to read thousands of others again.
            self._stamp = self._stamp_now()
        return made

    def verdict(self, item: Item) -> Verdict:
        """The verdict on the current version."""
        sidecar = Sidecar.read(self.sidecar(item))
        return may_go_out(sidecar, self.decisions(item), self._policy, stem=item.stem, unreviewed=True)

    def word_of(self, item: Item, person: str) -> Decision | None:
        """What a person last said of the current version."""
        who = folded(" ".join(person.split()))
        said = standing(self.decisions(item), item.version, item.sha256)
        return next((each for each in said if each.who == who), None)


def _items(
    output: Path,
    scans: Iterable[KnownScan],
    versions: Iterable[KnownVersion],
    decisions: dict[str, tuple[Decision, ...]],
    policy: Policy,
) -> Iterator[Item]:
    of: dict[str, list[KnownVersion]] = {}
    for version in versions:
        of.setdefault(version.stem, []).append(version)
    for scan in scans:
        there = of.get(scan.stem, [])
        current = next((each for each in there if each.is_current), None)
        if current is None:
            yield Item(scan.stem, "failed", scan.message, megapixels=scan.megapixels)
            continue
        subject = Subject(scan.stem, scan.path)
        if policy.needs_terms:
            sidecar = Sidecar.find(output / f"{scan.stem}{SIDECAR_ENDING}")
            subject = Subject.of_sidecar(sidecar, scan.stem) if sidecar else subject
        said = decisions.get(scan.stem, ())
        verdict = verdict_of(current.version, scan.sha256, said, policy, subject, unreviewed=True)
        yield Item(
            stem=scan.stem,
            state=verdict.state,
            reason=verdict.reason,
            version=current.version,
            sha256=scan.sha256,
            finished=current.finished,
            megapixels=scan.megapixels,
            doubt=current.doubt,
            seam=current.seam,
            kept=tuple(each.version for each in there if not each.is_current),
        )


def _is_in(item: Item, folder: str) -> bool:
    return not folder or item.stem.startswith(f"{folder}/")


def _shows(name: str, state: str) -> bool:
    return name == "all" or (state in TO_REVIEW if name == "to review" else state == name)


def _place(item: Item, sort: str) -> tuple[Any, ...]:
    """The key that a scan is sorted by; what is not known comes last."""
    if sort == "doubt":
        return (item.doubt is None, -(item.doubt or 0), item.stem)
    if sort == "seam":
        return (item.seam is None, -(item.seam or 0), item.stem)
    if sort == "newest":
        # Times are ISO 8601 in UTC: later ones are greater, and a negative sign needs a number.
        return tuple(-ord(letter) for letter in item.finished), item.stem
    return (item.stem,)
