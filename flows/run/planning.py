"""Turn the scans of a run into jobs, or directly into outcomes; nothing is written."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from engines.errors import EngineError
from engines.machine import processors
from flows.catalogue.recorder import ScanFiles
from flows.deadline import NO_DEADLINE, Deadline
from flows.events import warn
from flows.inputs import ScanFile
from flows.options import RunOptions
from flows.outcome import FailureKind, ScanOutcome
from flows.run.hint_files import Places, waiting_hints
from flows.run.jobs import RunContext, ScanJob
from flows.run.output_names import Names, check_lengths
from flows.run.run_log import in_one_line
from flows.run.series import Series, find_series
from pipeline.errors import (
    ColorizeError,
    OutputError,
    ScanDamagedError,
    ScanError,
    ScanUnreachableError,
    StoreBusyError,
    UsageError,
)
from pipeline.support.names import shown

# Failures that the same scan would most likely meet again on another machine or another day.
_SCANS_FAULT = {"damaged", "scan", "killed", "result", "unforeseen"}
_log = logging.getLogger(__name__)


def kind_of(error: BaseException) -> FailureKind:
    """The kind of failure that an exception stands for."""
    if isinstance(error, ScanDamagedError):
        return "damaged"
    if isinstance(error, ScanError):
        return "disk" if isinstance(error, ScanUnreachableError) else "scan"
    if isinstance(error, UsageError | EngineError):
        return "request"
    if isinstance(error, StoreBusyError):
        return "busy"
    if isinstance(error, ColorizeError):
        return "disk" if isinstance(error, OutputError) else "result"
    return "memory" if isinstance(error, MemoryError) else _kind_of_others(error)


def _kind_of_others(error: BaseException) -> FailureKind:
    from flows.cluster.failures import is_killed_worker, is_lost_cluster

    if is_killed_worker(error):
        return "killed"
    if is_lost_cluster(error):
        return "cluster"
    return "disk" if isinstance(error, OSError) else "unforeseen"


def failure(scan: ScanFile, error: BaseException, can_salvage: bool = False) -> ScanOutcome:
    """The outcome of a failed scan, with one line about why; ``can_salvage`` adds a remedy for damaged scans.

    Errors that are not ours are logged with their traceback; ours are logged if they have a cause or notes.
    """
    kind, is_ours = kind_of(error), isinstance(error, ColorizeError | EngineError)
    name = shown(scan.path)
    if is_ours:
        message = str(error).replace(str(scan.path), name)
        message = message if name in message else f"{name}: {message}"
        if can_salvage and kind == "damaged":
            message += ", or give --salvage for what can be read"
    elif kind in ("cluster", "killed"):
        message = f"{name}: the cluster was lost ({type(error).__name__}), by memory or by hand; run it again"
    elif isinstance(error, MemoryError):
        message = f"{name}: out of memory; give a smaller --limit-memory or --tile"
    elif isinstance(error, OSError):
        message = f"{name}: {error.strerror or error}; check the scan and the output folder"
    else:
        message = f"{name}: {in_one_line(error)}"
    message = shown(re.sub(r"\s*\n\s*", " ", message))  # a library's words may have several lines
    if not is_ours:
        _log.error("%s", message, exc_info=error)
    elif error.__cause__ is not None or getattr(error, "__notes__", None):
        # The cause is a library's error; a note says where in a worker it happened.
        _log.info("%s", message, exc_info=error)
    return ScanOutcome(
        scan.stem,
        str(scan.path),
        "failed",
        message,
        is_scans_fault=kind in _SCANS_FAULT,
        failure_kind=kind,
        page=scan.page,
    )


def naming_log(outcome: ScanOutcome, log: Path) -> ScanOutcome:
    """The outcome; if the failure was unforeseen, its message says where the traceback is."""
    if outcome.failure_kind != "unforeseen" or not outcome.has_failed:
        return outcome
    return replace(outcome, message=f"{outcome.message}; its traceback is in {shown(log)}")


def stopped(scan: ScanFile, deadline: Deadline, how_far: str = "") -> ScanOutcome:
    """The outcome of a scan that the deadline leaves unfinished."""
    message = f"{shown(scan.path)}: stopped{how_far}, because {deadline.reason}; the same command goes on with it"
    return ScanOutcome(scan.stem, str(scan.path), "stopped", message, page=scan.page)


def _unnameable(scan: ScanFile) -> ScanOutcome | None:
    """A failure if the scan's name is not UTF-8, which JSON, Prefect and the database need; else None."""
    text = os.fsencode(scan.path).decode("utf-8", "backslashreplace")
    if text == str(scan.path):
        return None
    stem = os.fsencode(scan.stem).decode("utf-8", "backslashreplace")
    message = f"{shown(text)}: its name is not UTF-8, so no record could name it; rename it, for example with convmv"
    return ScanOutcome(stem, text, "failed", message)


def pages_of(scan: ScanFile, options: RunOptions, files: ScanFiles) -> Sequence[ScanFile | ScanOutcome]:
    """The requested pages of a file, each as a scan of its own; a file that cannot be opened fails later."""
    if (unnameable := _unnameable(scan)) is not None:
        return [unnameable]
    try:
        count = files.page_count(scan.path, options.salvage)
    except ColorizeError:
        return [scan]
    if count == 1:
        return [scan]
    digits = max(3, len(str(count)))
    found = [replace(scan, stem=f"{scan.stem}.p{page:0{digits}}", page=page) for page in options.pages.of(count)]
    if not found:
        none = UsageError(f"{scan.path}: has {count} pages, none of them was asked for; give other --pages")
        return [failure(scan, none)]
    return found


def in_order_of_claims(found: Sequence[ScanFile | ScanOutcome]) -> list[tuple[int, ScanFile]]:
    """The scans, with their positions, in the order in which they claim names: of two with the same, a TIFF first."""
    scans = [(index, scan) for index, scan in enumerate(found) if isinstance(scan, ScanFile)]
    return sorted(scans, key=lambda each: each[1].path.suffix.lower() not in (".tif", ".tiff"))


def _under_names(
    found: Sequence[ScanFile | ScanOutcome], options: RunOptions, files: ScanFiles
) -> list[ScanFile | ScanOutcome]:
    """Each scan under a name of its own, or a failure."""
    names, every = Names(options.output, files), list(found)
    for index, scan in in_order_of_claims(found):
        try:
            every[index] = names.claim(scan)
        except UsageError as error:
            every[index] = failure(scan, error)
    return every


def fitting(planned: ScanJob | ScanOutcome) -> ScanJob | ScanOutcome:
    """``planned``, after checking that the drive can hold the names of its results. Raises UsageError."""
    if isinstance(planned, ScanJob):
        check_lengths(planned.scan, planned.paths, planned.spec.version, planned.formats)
    return planned


def plan_scans(
    scans: Sequence[ScanFile],
    context: RunContext,
    deferred: Callable[[ScanFile], ScanOutcome | None] = lambda _: None,
    deadline: Deadline = NO_DEADLINE,
) -> list[ScanJob | ScanOutcome]:
    """A job, or directly an outcome (skipped, failed), for every scan, in order.

    A scan with an outcome from ``deferred`` is left out. Scans not yet looked at when the ``deadline`` passes are
    stopped.
    """

    def plan(scan: ScanFile | ScanOutcome) -> ScanJob | ScanOutcome:
        if isinstance(scan, ScanOutcome):
            return scan
        if deadline.is_over:
            return stopped(scan, deadline)
        try:
            one = replace(context, series=series.get(scan.stem))
            return deferred(scan) or fitting(one.job(scan, len(every)))
        except Exception as error:
            return failure(scan, error, can_salvage=not context.options.salvage)

    options = context.options
    with ThreadPoolExecutor(processors()) as pool:
        found = pool.map(lambda scan: pages_of(scan, options, context.files), scans)
        every = _under_names([page for pages in found for page in pages], options, context.files)
        series: Mapping[str, Series] = {}
        if options.series is not None:
            scans_ = [scan for scan in every if isinstance(scan, ScanFile) and deferred(scan) is None]
            series = find_series(options.series, scans_, context.files)
            for name in waiting_hints(Places(options.output, options.hints), scans_, series):
                warn(
                    f"series {shown(name)}: has hints, and where its scans show the same is not known yet; run it "
                    "again afterwards, and its other scans get them too"
                )
        return list(pool.map(plan, every))
