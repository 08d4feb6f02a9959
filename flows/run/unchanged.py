"""Is anything due? A look at all scans that opens none of them and needs neither an engine nor a cluster.

Thousands of scans that are as they were take seconds so: the catalogue knows the state of each file when it was hashed,
and a sidecar the settings of each result; and while no file has another state, the last look's answer still holds
(:mod:`flows.run.last_look`). The look answers only where it is sure, by the same rules as the plan
(:mod:`flows.run.planning`); wherever a file has to be opened to know, the plan itself has to say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path

from engines.errors import EngineError
from engines.registry import backend_names, has_plugins, model_for
from engines.select import EngineChoice
from engines.spec import AUTO, find_model
from flows.catalogue.database import Catalogue
from flows.catalogue.recorder import ScanFiles, all_files
from flows.inputs import ScanFile
from flows.options import RunOptions
from flows.outcome import ScanOutcome
from flows.resources import split_workers
from flows.run.hint_files import names_of_hints
from flows.run.jobs import IDENTITY, RunContext
from flows.run.last_look import State, recall, state_of
from flows.run.output_names import Names
from flows.run.planning import in_order_of_claims, pages_of
from flows.run.policy_gate import forbidden
from flows.run.retry_policy import RetryPolicy
from pipeline.errors import ColorizeError
from pipeline.results.policy import Policy
from pipeline.results.sidecar import Sidecar

_SIDECARS_KEPT = 64  # a scan's sidecar is asked for several times in a row


@dataclass(frozen=True)
class Unchanged:
    """The outcomes of all scans, in order; ``state`` is that of their files, where it holds the answer for later."""

    outcomes: list[ScanOutcome]
    state: State | None


def unchanged_scans(scans: Sequence[ScanFile], options: RunOptions, catalogue: Catalogue) -> Unchanged | None:
    """What becomes of all scans if a run has nothing to do for any of them; None if it may have.

    Nothing is done for a scan whose file has not changed since its current result, which is that of these settings,
    and for one that is left out because of its failures.
    """
    if options.force or options.salvage or options.palette_from is not None or options.series is not None:
        return None
    try:
        context = _context(options)
    except (ColorizeError, EngineError):
        return None  # the run will say so
    if context is None:
        return None
    state = None if catalogue.scans_not_done() else state_of(scans, context)
    outcomes = recall(options.output, state) if state is not None else None
    if outcomes is None:
        outcomes = _outcomes(scans, context, catalogue)
    if outcomes is None:
        return None
    return Unchanged(outcomes, state if all(outcome.result for outcome in outcomes) else None)


def _outcomes(scans: Sequence[ScanFile], context: RunContext, catalogue: Catalogue) -> list[ScanOutcome] | None:
    options, files = context.options, all_files(catalogue)
    read = lru_cache(maxsize=_SIDECARS_KEPT)(Sidecar.glance)
    names = Names(options.output, files, read)
    deferred = RetryPolicy.of(options, catalogue.scans_not_done(), catalogue.runs()).deferred
    looking = replace(context, files=files, hints_in=cache(names_of_hints))
    pages: list[ScanFile] = []
    for scan in scans:
        of_scan = _known_pages(scan, options, files)
        if of_scan is None:
            return None
        pages += of_scan
    outcomes: dict[int, ScanOutcome] = {}
    for index, scan in in_order_of_claims(pages):
        outcome = _outcome(scan, names, looking, deferred, read)
        if outcome is None:
            return None
        outcomes[index] = outcome
    return [outcomes[index] for index in range(len(pages))]


def _known_pages(scan: ScanFile, options: RunOptions, files: ScanFiles) -> list[ScanFile] | None:
    """The pages of a file that was counted before and has not changed since; else None."""
    if not files.has_count(scan.path):
        return None
    pages = pages_of(scan, options, files)
    found = [page for page in pages if isinstance(page, ScanFile)]
    return found if len(found) == len(pages) else None


def _outcome(
    scan: ScanFile,
    names: Names,
    context: RunContext,
    deferred: Callable[[ScanFile], ScanOutcome | None],
    read: Callable[[Path], Sidecar | None],
) -> ScanOutcome | None:
    try:
        named = names.claim(scan)
        return deferred(named) or forbidden(context.policy, named) or context.unchanged(named, read)
    except ColorizeError:
        return None


def _context(options: RunOptions) -> RunContext | None:
    """A context for comparing settings; None where only an engine that is chosen can tell.

    What ``auto`` chooses is no part of the comparison (:mod:`flows.run.reuse_policy`), so nothing is chosen.
    """
    if options.precision != AUTO or options.engine == IDENTITY:
        return RunContext.of(options)
    if options.engine == AUTO:
        if has_plugins():  # a package's backend may bring a model of its own
            return None
        model = find_model(options.model)
    elif options.engine in backend_names():
        model = model_for(options.engine, options.model)
    else:
        return None
    workers = split_workers(options.workers, options.tile_yx, options.limit_memory_bytes)
    policy = Policy.read(options.output)
    return RunContext(options, EngineChoice(options.engine, "", "", ""), model, workers, policy=policy)
