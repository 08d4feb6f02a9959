"""``run`` with scans or results in a bucket: parts of the scans are fetched, coloured as always, and put.

The scans come in parts to a folder that is emptied between them, the next part while one is coloured. Each part is a
run of its own in the place of the results. Scans whose object has not changed since their result are not fetched.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_cache_path

from flows.catalogue.recorder import reading_catalogue
from flows.deadline import Deadline
from flows.events import Message, RunEvent, ScanFinished, listener, listening, tell
from flows.inputs import RECORDS, ScanFile, SearchReport, find_scans
from flows.objects.bucket import AT_ONCE, Address, Bucket, BucketError, NoObjectError, is_address
from flows.objects.known import KnownObjects, note_object
from flows.objects.layout import stems_for
from flows.objects.mirror import Folder, Mirror, Place
from flows.objects.search import ScanObjects, Unit, find_objects, parts_of
from flows.options import RunOptions, parse_memory, parse_options
from flows.outcome import ScanOutcome
from flows.request import OBJECTS, RunRequest, names_objects
from flows.run.endings import RunEnd, ended
from flows.run.host import HERE, Host
from flows.run.jobs import RunContext, ScanJob
from flows.run.output_names import Names
from flows.run.planning import failure, in_order_of_claims, pages_of, plan_scans, stopped
from flows.run.policy_gate import forbidden
from flows.run.requests import colorize as colorize_files
from flows.run.withdrawal import find_withdrawals, forbidden_of
from pipeline.errors import ColorizeError, OutputError, UsageError
from pipeline.readers import page_count
from pipeline.results.versions import ResultPaths
from pipeline.support.files import folder_lock, output_error, remove
from pipeline.support.fingerprint import hashed

if TYPE_CHECKING:
    from flows.run.retry_policy import RetryPolicy

_MOST_SCANS = 512


def colorize(request: RunRequest, began: datetime | None, host: Host = HERE) -> RunEnd:
    """Colour the scans of a request, wherever they and the results are; its ``until`` counts from ``began``."""
    if not names_objects(request):
        return colorize_files(request, began, host)
    here = work_folder(request)
    limit_bytes = parse_memory(request.work_limit, "work-limit")
    try:
        here.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(str(output_error(error, here))) from error
    with folder_lock(here):
        cache = here / "scans"
        remove(cache)
        place: Place = Folder(Path(request.output).expanduser().resolve())
        if is_address(request.output):
            place = Mirror(Address.parse(request.output), here, [(f"{cache}/", OBJECTS)])
        try:
            place.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(str(output_error(error, place.folder))) from error
        options = parse_options(replace(request, output=str(place.folder)), began)
        if options.series is not None:
            raise UsageError(
                "series: scans of a bucket come in parts, and a series has to be seen whole; copy it to a disk first"
            )
        told = _Addressed(cache, place)
        try:
            with listening(told):
                ignored = _Run(options, place, cache, host).do(request, limit_bytes)
            return ended(told.outcomes, place.told(str(place.folder / RECORDS)), ignored)
        finally:
            remove(cache)


def work_folder(request: RunRequest) -> Path:
    """The folder of a run's own for what is on its way; the same one for the same output."""
    root = Path(request.work).expanduser().absolute() if request.work else user_cache_path("colorize-archive") / "work"
    output = request.output.rstrip("/") if is_address(request.output) else str(Path(request.output).absolute())
    name = re.sub(r"[^A-Za-z0-9-]+", "-", output.removeprefix(OBJECTS)).strip("-")[-40:]
    return root / f"{name}-{hashlib.sha256(output.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"


class _Addressed:
    """Passes events on with addresses for paths in the work folder, and keeps the outcomes."""

    def __init__(self, cache: Path, place: Place) -> None:
        self._next, self._scans, self._place = listener(), f"{cache}/", place
        self.outcomes: list[ScanOutcome] = []

    def on(self, event: RunEvent) -> None:
        if isinstance(event, Message):
            event = replace(event, text=self._told(event.text), brief=self._told(event.brief))
        elif isinstance(event, ScanFinished):
            outcome = event.outcome
            outcome = replace(
                outcome,
                path=self._told(outcome.path),
                message=self._told(outcome.message),
                result=self._told(outcome.result),
                warnings=tuple(map(self._told, outcome.warnings)),
            )
            self.outcomes.append(outcome)
            event = ScanFinished(outcome)
        self._next.on(event)

    def _told(self, text: str) -> str:
        return self._place.told(text.replace(self._scans, OBJECTS))


@dataclass(frozen=True)
class _Run:
    """One run of several parts."""

    options: RunOptions
    place: Place
    cache: Path
    host: Host
    stop: threading.Event = field(default_factory=threading.Event)

    def do(self, request: RunRequest, limit_bytes: int) -> SearchReport:
        """Colour what is due; returns what the search left out. Raises UsageError before anything is done."""
        deadline = Deadline(self.options.until)
        try:
            units, ignored = self._find(request)
            self.place.begin()
        except BucketError as error:
            raise UsageError(str(error)) from error
        for line in ignored.lines:
            tell(Message(line))
        known = self._known(units)
        skipped, due = self._due(units, known)
        parts = list(parts_of(due, limit_bytes, _MOST_SCANS))
        fetched = sum(each.bytes for each in due if each.objects is not None)
        more = f" in {len(parts)} parts" if len(parts) > 1 else ""
        tell(Message(f"{len(units)} files: {len(due)} to do{more}, {fetched / 1e6:.1f} MB to fetch"))
        for outcome in skipped:
            tell(ScanFinished(outcome))
        self._withdraw(known, not parts)
        with ThreadPoolExecutor(1) as pool, self._stopping():
            coming = pool.submit(self._fetch, parts[0]) if parts else None
            for number, part in enumerate(parts):
                assert coming is not None
                lost = None if deadline.is_over else coming.result()
                if lost is None or deadline.is_over:
                    for unit in (unit for rest in parts[number:] for unit in rest):
                        tell(ScanFinished(stopped(unit.file, deadline)))
                    break
                coming = pool.submit(self._fetch, parts[number + 1]) if number + 1 < len(parts) else None
                self._colour(part, lost, known)
        return ignored

    def _withdraw(self, known: KnownObjects, is_nothing_due: bool) -> None:
        """Withdraw what may no longer go out, which a run of a part does not: it is not here, or there is no part."""
        late = forbidden_of(self.options.output, self.place.published)
        self.place.check_out(late)
        if late or (is_nothing_due and find_withdrawals(self.options.output)):
            self._colour((), {}, known)
            for stem in late:
                self.place.commit(stem)
            self.place.end_part()

    @contextlib.contextmanager
    def _stopping(self) -> Iterator[None]:
        """When the body ends, for whatever reason, nothing more is fetched."""
        try:
            yield
        finally:
            self.stop.set()

    def _find(self, request: RunRequest) -> tuple[list[Unit], SearchReport]:
        addresses = [each for each in request.inputs if is_address(each)]
        files = [each for each in request.inputs if not is_address(each)]
        units, ignored = list[Unit](), SearchReport()
        if addresses:
            found, ignored = find_objects(addresses, request.output)
            units += [Unit(each.scan_in(self.cache), each.bytes, each) for each in found]
        if files:
            there = find_scans(files, None, self.options.force)
            units += [Unit(scan, scan.path.stat().st_size if scan.path.is_file() else 0) for scan in there.scans]
            ignored = ignored.joined(there.ignored)
        return units, ignored

    def _known(self, units: Sequence[Unit]) -> KnownObjects:
        of_objects = [(unit.file.path, unit.objects) for unit in units if unit.objects is not None]
        with reading_catalogue(self.options.output) as files:
            return KnownObjects(self.options.output, of_objects, files)

    def _due(self, units: Sequence[Unit], known: KnownObjects) -> tuple[list[ScanOutcome], list[Unit]]:
        """The outcomes of scans that have not changed since their results, and the others."""
        options = self.options
        if options.force or options.salvage or options.palette_from is not None:
            return [], list(units)
        context = replace(RunContext.of(options), files=known, is_there=self.place.is_there)
        names = Names(options.output, known)
        order = [units[index] for index, _ in in_order_of_claims([unit.file for unit in units])]
        skipped = {unit.file.path: found for unit in order if (found := _unchanged(unit, context, names)) is not None}
        outcomes = [outcome for unit in units for outcome in skipped.get(unit.file.path, ())]
        return outcomes, [unit for unit in units if unit.file.path not in skipped]

    def _fetch(self, part: Sequence[Unit]) -> dict[Path, ColorizeError]:
        """Bring a part of the scans; returns why those are missing that cannot be had. Raises BucketError."""
        lost: dict[Path, ColorizeError] = {
            unit.file.path: UsageError(
                f"{unit.file.path}: a control character is in its name, and no object can be called so; rename it"
            )
            for unit in part
            if not self.place.takes(unit.file.stem)
        }
        buckets = {unit.objects.address.bucket for unit in part if unit.objects is not None}
        opened = {name: Bucket(name) for name in buckets}

        def fetch(unit: Unit) -> None:
            if unit.file.path in lost:
                return
            try:
                for each in unit.objects.objects if unit.objects is not None else ():
                    if self.stop.is_set():
                        return
                    bucket = opened[unit.objects.address.bucket]  # type: ignore[union-attr]
                    bucket.fetch(each.key, self.cache / bucket.name / each.key)
            except NoObjectError as error:
                lost[unit.file.path] = error
            except BucketError:
                raise
            except OutputError as error:
                lost[unit.file.path] = error

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(fetch, part))
        return lost

    def _colour(self, part: Sequence[Unit], lost: Mapping[Path, ColorizeError], known: KnownObjects) -> None:
        """Run a part of the scans, which is here, and put the results."""
        from flows.run.running import run_in

        objects = {unit.file.path: unit.objects for unit in part if unit.objects is not None}
        there = self.place.stems
        for unit in part:
            named = known.stems.get(unit.file.origin, set())
            self.place.check_out(named | stems_for(unit.file.stem, unit.file.path.suffix, there))

        def plan(context: RunContext, retry: RetryPolicy, deadline: Deadline) -> list[ScanJob | ScanOutcome]:
            scans = [unit.file for unit in part if unit.file.path not in lost]
            pages = [page for scan in scans for page in pages_of(scan, self.options, context.files)]
            self.place.check_out(_claimed(pages, Names(self.options.output, context.files)))
            missing = [failure(unit.file, lost[unit.file.path]) for unit in part if unit.file.path in lost]
            return [*missing, *plan_scans(scans, context, retry.deferred, deadline)]

        def complete(outcome: ScanOutcome) -> ScanOutcome:
            if outcome.status in ("done", "skipped") and outcome.result:
                if (scan := objects.get(Path(outcome.path))) is not None:
                    self._note(outcome, scan)
                self.place.commit(outcome.scan)
            return outcome

        try:
            run_in(self.options, plan, complete=complete, host=self.host, passing=self.cache)
        finally:
            for path in objects:
                remove(path)
        self.place.end_part()

    def _note(self, outcome: ScanOutcome, scan: ScanObjects) -> None:
        path = Path(outcome.path)
        sidecar = ResultPaths.of(self.options.output, outcome.scan).sidecar
        with contextlib.suppress(ColorizeError, OSError):
            note_object(sidecar, scan, hashed(path)[0].sha256, page_count(path))


def _claimed(pages: Sequence[ScanFile | ScanOutcome], names: Names) -> set[str]:
    """The names that scans will have, which may be those of results of theirs that are spelled otherwise."""
    found = set[str]()
    for _, scan in in_order_of_claims(pages):
        with contextlib.suppress(UsageError):
            found.add(names.claim(scan).stem)
    return found


def _unchanged(unit: Unit, context: RunContext, names: Names) -> list[ScanOutcome] | None:
    """The outcomes of all pages of a scan that has not changed since its results; None if something may be due."""
    if unit.has_hints or not context.files.has_count(unit.file.path):
        return None
    outcomes = []
    for page in pages_of(unit.file, context.options, context.files):
        if isinstance(page, ScanOutcome):
            return None
        try:
            named = names.claim(page)
            outcome = forbidden(context.policy, named) or context.unchanged(named)
        except ColorizeError:
            return None
        if outcome is None:
            return None
        outcomes.append(outcome)
    return outcomes
