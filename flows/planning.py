"""All scans of a run to jobs, or at once to outcomes; nothing is written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from engines.errors import EngineError
from flows.cluster import processors
from flows.jobs import Job, Outcome, Prepared
from flows.settings import Pages, ScanFile
from pipeline.errors import ColorizeError, UsageError
from pipeline.readers import page_count
from pipeline.types import Reading

# Dask's names for workers or a scheduler that went away.
_LOST = {"KilledWorker", "CommClosedError", "CancelledError", "FutureCancelledError"}


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
    return Outcome(scan.stem, str(scan.path), "failed", " ".join(message.split()))


def _unnameable(scan: ScanFile) -> Outcome | None:
    """The outcome of a scan whose name is not UTF-8: no JSON, no task of Prefect and no database could say it."""
    text = os.fsencode(scan.path).decode("utf-8", "backslashreplace")
    if text == str(scan.path):
        return None
    stem = os.fsencode(scan.stem).decode("utf-8", "backslashreplace")
    message = f"{text}: its name is not UTF-8, so no record could name it; rename it, for example with convmv"
    return Outcome(stem, text, "failed", message)


def _pages(scan: ScanFile, pages: Pages, salvage: bool) -> Sequence[ScanFile | Outcome]:
    """Those of the file that are wanted, each as a scan of its own; a file that cannot be opened fails later."""
    if (unnameable := _unnameable(scan)) is not None:
        return [unnameable]
    try:
        count = page_count(scan.path, Reading(salvage=salvage))
    except ColorizeError:
        return [scan]
    if count == 1:
        return [scan]
    digits = max(3, len(str(count)))
    found = [ScanFile(scan.path, f"{scan.stem}.p{page:0{digits}}", page) for page in pages.of(count)]
    if not found:
        none = UsageError(f"{scan.path}: has {count} pages, none of them was asked for; give other --pages")
        return [failure(scan, none)]
    return found


def plan_scans(scans: list[ScanFile], prepared: Prepared) -> list[Job | Outcome]:
    """A job, or at once an outcome (skipped, failed), for every scan, in order."""

    def plan(scan: ScanFile | Outcome) -> Job | Outcome:
        if isinstance(scan, Outcome):
            return scan
        try:
            return prepared.job(scan, len(every))
        except Exception as error:
            return failure(scan, error, can_salvage=not prepared.options.salvage)

    options = prepared.options
    with ThreadPoolExecutor(processors()) as pool:
        every = [
            page
            for pages in pool.map(lambda scan: _pages(scan, options.pages, options.salvage), scans)
            for page in pages
        ]
        planned = list(pool.map(plan, every))
    taken: dict[Path, Path] = {}
    for index, scan in enumerate(every):
        if isinstance(scan, Outcome):
            continue
        first = taken.setdefault(prepared.options.output / scan.stem, scan.path)
        if first != scan.path:
            message = f"{scan.path}: would overwrite the result of {first}; rename it or give it another --output"
            planned[index] = Outcome(scan.stem, str(scan.path), "failed", message)
    return planned
