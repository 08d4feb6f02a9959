"""What ``run`` and ``reprocess`` do, wherever: in this process, or as a flow.

What a run needs that has something to do is imported when that is known.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from flows.inputs import find_scans
from flows.options import parse_options
from flows.request import ReprocessRequest, RunRequest
from flows.run.endings import RunEnd
from flows.run.host import HERE, Host
from flows.run.jobs import GRADE, RunContext, ScanJob
from flows.run.left_alone import left_alone
from flows.run.planning import plan_scans
from flows.run.retry_policy import RetryPolicy
from flows.run.unchanged import unchanged_scans

if TYPE_CHECKING:
    from flows.deadline import Deadline
    from flows.outcome import ScanOutcome


def colorize(request: RunRequest, began: datetime | None, host: Host = HERE) -> RunEnd:
    """Colour the scans of a request; its ``until`` counts from ``began``."""
    options = parse_options(request, began)
    found = find_scans(request.inputs, options.output, options.force)
    ignored = found.ignored
    end = left_alone(options, lambda known: unchanged_scans(found.scans, options, known), "colorize", ignored, host)
    if end is not None:
        return end
    from flows.run.running import run_in

    def plan(context: RunContext, retry_policy: RetryPolicy, deadline: Deadline) -> list[ScanJob | ScanOutcome]:
        return plan_scans(found.scans, context, retry_policy.deferred, deadline)

    return run_in(options, plan, ignored=ignored, host=host)


def reprocess(request: ReprocessRequest, host: Host = HERE) -> RunEnd:
    """Make new versions of scans that were coloured before, from their stores, and say how much they differ."""
    from flows.run.reprocess_plan import find_stores, parse_reprocess, plan_stores
    from flows.run.running import run_in
    from flows.run.version_changes import Changed

    options = parse_reprocess(request)
    stores = find_stores(options.output, request.scans or [])
    changed = Changed(options.output)
    kind = "reprocess" if options.grade is None else GRADE
    return run_in(
        options, lambda *_: changed.noting(plan_stores(stores, request, options)), kind, changed.told, host=host
    )
