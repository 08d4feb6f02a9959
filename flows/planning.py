"""All scans of a run to jobs, or at once to outcomes; nothing is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from engines.errors import EngineError
from flows.bookkeeping import ScanFiles
from flows.budget import NO_END, Budget
from flows.cluster import processors
from flows.inputs import ScanFile
from flows.jobs import Job, Outcome, Prepared
from flows.naming import Names
from flows.settings import RunOptions
from pipeline.errors import ColorizeError, ScanError, ScanUnreachableError, UsageError

# Dask's names for workers or a scheduler that went away. A block that killed one worker after the other is among them.
_KILLED = "KilledWorker"
_LOST = {_KILLED, "CommClosedError", "CancelledError", "FutureCancelledError"}


def failure(scan: ScanFile, error: BaseException, can_salvage: bool = False) -> Outcome:
    """One line about why a scan failed, whatever was raised; with ``can_salvage``, what may help a damaged one."""
    if isinstance(error, ColorizeError | EngineError):
        message = str(error) if str(scan.path) in str(error) else f"{scan.path}: {error}"
        if can_salvage and message.startswith((f"{scan.path}: cut off", f"{scan.path}: damaged")):
            message += ", or give --salvage for what can be read"
    elif type(error).__name__ in _LOST:
        message = f"{scan.path}: the cluster was lost ({type(error).__name__}), by memory or by hand; run it again"
    elif isinstance(error, MemoryError):
        message = f"{scan.path}: out of memory; give a smaller --limit-memory or --tile"
    elif isinstance(error, OSError):
        message = f"{scan.path}: {error.strerror or error}; check the scan and the output folder"
    else:
        message = f"{scan.path}: {type(error).__name__}: {error}; please report this"
    message = " ".join(message.split())
    return Outcome(scan.stem, str(scan.path), "failed", message, is_scans_fault=_is_scans_fault(error), page=scan.page)


def stopped(scan: ScanFile, budget: Budget, how_far: str = "") -> Outcome:
    """What becomes of a scan that the end of the budget leaves unfinished."""
    message = f"{scan.path}: stopped{how_far}, because {budget.reason}; the same command goes on with it"
    return Outcome(scan.stem, str(scan.path), "stopped", message, page=scan.page)


def _is_scans_fault(error: BaseException) -> bool:
    """Whether the same scan would fail again elsewhere and tomorrow, as far as that can be told."""
    if isinstance(error, ScanError):
        return not isinstance(error, ScanUnreachableError)
    if isinstance(error, UsageError | EngineError | MemoryError | OSError):
        return False
    return type(error).__name__ not in _LOST - {_KILLED}


def _unnameable(scan: ScanFile) -> Outcome | None:
    """The outcome of a scan whose name is not UTF-8: no JSON, no task of Prefect and no database could say it."""
    text = os.fsencode(scan.path).decode("utf-8", "backslashreplace")
    if text == str(scan.path):
        return None
    stem = os.fsencode(scan.stem).decode("utf-8", "backslashreplace")
    message = f"{text}: its name is not UTF-8, so no record could name it; rename it, for example with convmv"
    return Outcome(stem, text, "failed", message)


def _pages(scan: ScanFile, options: RunOptions, files: ScanFiles) -> Sequence[ScanFile | Outcome]:
    """Those of the file that are wanted, each as a scan of its own; a file that cannot be opened fails later."""
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


def _under_names(
    found: Sequence[ScanFile | Outcome], options: RunOptions, files: ScanFiles
) -> list[ScanFile | Outcome]:
    """Each scan under a name of its own, or what is wrong with its name. Of two new ones a TIFF comes first."""
    names, every = Names(options.output, files), list(found)
    scans = [(index, scan) for index, scan in enumerate(found) if isinstance(scan, ScanFile)]
    for index, scan in sorted(scans, key=lambda each: each[1].path.suffix.lower() not in (".tif", ".tiff")):
        try:
            every[index] = names.claim(scan)
        except UsageError as error:
            every[index] = failure(scan, error)
    return every


def plan_scans(
    scans: Sequence[ScanFile],
    prepared: Prepared,
    held_back: Callable[[ScanFile], Outcome | None] = lambda _: None,
    budget: Budget = NO_END,
) -> list[Job | Outcome]:
    """A job, or at once an outcome (skipped, failed), for every scan, in order.

    Those ``held_back`` are left alone, and those that the end of the ``budget`` leaves no time to look at stopped.
    """

    def plan(scan: ScanFile | Outcome) -> Job | Outcome:
        if isinstance(scan, Outcome):
            return scan
        if budget.is_over:
            return stopped(scan, budget)
        try:
            return held_back(scan) or prepared.job(scan, len(every))
        except Exception as error:
            return failure(scan, error, can_salvage=not prepared.options.salvage)

    options = prepared.options
    with ThreadPoolExecutor(processors()) as pool:
        found = pool.map(lambda scan: _pages(scan, options, prepared.files), scans)
        every = _under_names([page for pages in found for page in pages], options, prepared.files)
        return list(pool.map(plan, every))
