"""The catalogue during a run: every outcome is recorded as it comes, and unchanged scans are not read again.

The catalogue never makes a run fail. A problem with it is one warning line, and the run goes on without it. The next
run rebuilds it from the results, because the end of this run is missing in it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from flows.catalogue.database import FILE, Catalogue, KnownRun, KnownScan
from flows.catalogue.records import COMPLETED, key_of
from flows.catalogue.schema import engine_for, is_sound
from flows.events import Message, RunEvent, ScanFinished, listener, listening
from flows.outcome import BROKE_OFF, ScanOutcome
from pipeline.errors import ColorizeError
from pipeline.ingest import reading, source_from
from pipeline.readers import page_count
from pipeline.results.run_spec import utc_now
from pipeline.store import Source
from pipeline.support.files import read_json
from pipeline.support.fingerprint import KnownFile, StatFingerprint, hashed
from pipeline.types import ReadOptions

T = TypeVar("T")
_SKIPPED_AT_ONCE = 200
_log = logging.getLogger(__name__)


class CatalogueRecorder:
    """A :class:`flows.events.Listener` that keeps the catalogue and passes events on to the previous listener."""

    def __init__(self, output: Path, run: str, passing: Path | None = None) -> None:
        self._run = run
        self._next = listener()
        self._told: set[tuple[str, str, int]] = set()
        self._skipped: list[ScanOutcome] = []
        self._catalogue: Catalogue | None = None
        with self._never_failing():
            self._catalogue = Catalogue.open(output, is_locked=True)
            self._catalogue.forget_gone(passing)

    def on(self, event: RunEvent) -> None:
        """Record an outcome; those of skipped scans in groups of some hundred."""
        self._next.on(event)
        if isinstance(event, ScanFinished):
            self._record(event.outcome)

    def _record(self, outcome: ScanOutcome) -> None:
        self._told.add(key_of(vars(outcome)))
        self._skipped.append(outcome)
        if outcome.status != "skipped" or len(self._skipped) == _SKIPPED_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        outcomes, self._skipped = self._skipped, []
        self.ask(lambda catalogue: catalogue.record_all(self._run, [(outcome, None) for outcome in outcomes]))

    def ask(self, what: Callable[[Catalogue], T]) -> T | None:
        """The answer of the catalogue, or None if there is no working one."""
        answer = None
        if self._catalogue is not None:
            with self._never_failing():
                answer = what(self._catalogue)
        return answer

    @contextlib.contextmanager
    def _never_failing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # any error: only the results matter
            self._catalogue = None
            _log.warning("the catalogue cannot be kept", exc_info=True)
            reason = " ".join(str(getattr(error, "orig", error)).split())
            line = f"the catalogue cannot be kept ({reason}); the next run makes it from the results"
            self._next.on(Message.warning(line))

    def end(self, record: Path) -> None:
        """Record the end of the run as in its own record; without one, the run broke off."""
        self._flush()
        told = read_json(record) or {}
        rest = [outcome for outcome in told.get("scans", ()) if key_of(outcome) not in self._told]
        self.ask(lambda catalogue: catalogue.record_all(self._run, [(outcome, None) for outcome in rest]))
        finished = str(told.get("finished") or utc_now())
        state = str(told.get("state", COMPLETED)) if told else BROKE_OFF
        self.ask(lambda catalogue: catalogue.end_run(self._run, finished, state))
        self.ask(Catalogue.close)


@contextlib.contextmanager
def recording(
    record: Path, kind: str, started: str, engine: str, model: str, passing: Path | None = None
) -> Iterator[ScanFiles]:
    """Keep the catalogue for the run in the body, which writes its ``record`` at its end. The folder must be locked.

    Failures of scans in the folder ``passing`` are kept when their files are gone.
    """
    recorder = CatalogueRecorder(record.parents[1], record.stem, passing)
    recorder.ask(lambda catalogue: catalogue.begin_run(record.stem, kind, started, engine, model))
    try:
        with listening(recorder):
            yield ScanFiles(recorder)
    finally:
        recorder.end(record)


class _Reader:
    """A catalogue for reading only; if it fails, the answer is None."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def ask(self, what: Callable[[Catalogue], T]) -> T | None:
        with contextlib.suppress(Exception):
            return what(self._catalogue)
        return None


@contextlib.contextmanager
def reading_catalogue(output: Path) -> Iterator[ScanFiles]:
    """The known scan files, for a body that writes nothing."""
    path = output / FILE
    is_there = False
    with contextlib.suppress(ColorizeError, OSError):
        is_there = is_sound(path)
    if not is_there:
        yield ScanFiles()
        return
    with Catalogue(output, engine_for(path)) as catalogue:
        yield ScanFiles(_Reader(catalogue), keeps=False)


class _AllAtOnce:
    """The records of all files, read with one query; each file is looked at once."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._files = catalogue.files()
        self._current: dict[Path, KnownFile | None] = {}

    def ask(self, what: Callable[[Any], T]) -> T | None:
        return what(self)

    def file(self, path: Path) -> KnownFile | None:
        if path not in self._current:
            known = self._files.get(str(path))
            self._current[path] = known if known is not None and _is_current(path, known) else None
        return self._current[path]


def _is_current(path: Path, known: KnownFile) -> bool:
    try:
        return StatFingerprint.of(path) == known.state
    except OSError:
        return False


def all_files(catalogue: Catalogue) -> ScanFiles:
    """The known scan files of a catalogue, for a look at thousands of them that writes nothing."""
    return ScanFiles(_AllAtOnce(catalogue), keeps=False)


class ScanFiles:
    """Hashes and page counts of scan files. A file is read only if the catalogue's record of it is not current.

    With ``keeps``, newly read values go to the catalogue.
    """

    def __init__(self, recorder: CatalogueRecorder | _Reader | _AllAtOnce | None = None, keeps: bool = True) -> None:
        self._recorder = recorder
        self._keeps = keeps
        self._pages: dict[Path, tuple[StatFingerprint, int]] = {}

    def _known(self, path: Path) -> KnownFile | None:
        return None if self._recorder is None else self._recorder.ask(lambda catalogue: catalogue.file(path))

    def scan(self, path: Path, page: int = 1) -> KnownScan | None:
        """A scan as earlier runs left it; None if unknown."""
        return None if self._recorder is None else self._recorder.ask(lambda catalogue: catalogue.known(path, page))

    def scans(self) -> list[KnownScan]:
        """All known scans, as they were before this run."""
        return [] if self._recorder is None else self._recorder.ask(Catalogue.scans) or []

    def runs(self) -> list[KnownRun]:
        """All known runs, this one included."""
        return [] if self._recorder is None else self._recorder.ask(Catalogue.runs) or []

    def has_count(self, path: Path) -> bool:
        """True if the pages of a file were counted, and it has not changed since."""
        known = self._known(path)
        return known is not None and known.pages > 0

    def page_count(self, path: Path, salvage: bool = False) -> int:
        """Number of pages of a file; with ``salvage``, of readable pages. Raises ScanError."""
        if salvage:
            # The recorded count is of a whole file, not of what is readable in a damaged one.
            return page_count(path, ReadOptions(salvage=True))
        known = self._known(path)
        if known and known.pages:
            self._pages[path] = known.state, known.pages
            return known.pages
        with contextlib.suppress(OSError):
            state = StatFingerprint.of(path)
            self._pages[path] = state, page_count(path)
            return self._pages[path][1]
        return page_count(path)

    def known(self, path: Path, page: int) -> Source | None:
        """The source record of a file that has not changed since it was hashed; None if there is none."""
        known = self._known(path)
        return source_from(path, page, known) if known else None

    def source_of(self, path: Path, page: int) -> Source:
        """Read a scan file for its name, size, hash and path; the hash is kept.

        Raises
        ------
        ScanNotFoundError, ScanUnreadableError : as :func:`pipeline.ingest.source_of`.
        """
        with reading(path):
            return source_from(path, page, self._hashed(path))

    def _hashed(self, path: Path) -> KnownFile:
        file, is_safe = hashed(path)
        state, pages = self._pages.get(path, (file.state, 0))
        if state == file.state:
            file = replace(file, pages=pages)
        if is_safe and self._keeps and self._recorder is not None and self._known(path) != file:
            self._recorder.ask(lambda catalogue: catalogue.remember(path, file))
        return file
