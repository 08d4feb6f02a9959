"""The flow ``reprocess-archive``: new versions of scans that were ingested before. It reads only the stores."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.orchestration import parameters
from flows.orchestration.colorize import STAGE_RUNNER, run_in
from flows.orchestration.states import as_run_state
from flows.request import ReprocessRequest
from flows.run.jobs import GRADE
from flows.run.reprocess_plan import find_stores, parse_reprocess, plan_stores
from flows.run.version_changes import Changed


@flow(name="reprocess-archive", task_runner=STAGE_RUNNER, persist_result=False)  # type: ignore[arg-type]
@parameters.taking(ReprocessRequest)
def reprocess_archive(**given: Any) -> State[Any]:
    """Make new versions of scans that were coloured before, from their stores, and say how much they differ."""
    request = ReprocessRequest(**given)

    def run() -> State[Any]:
        options = parse_reprocess(request)
        stores = find_stores(options.output, request.scans or [])
        changed = Changed(options.output)
        kind = "reprocess" if options.grade is None else GRADE
        return run_in(options, lambda *_: changed.noting(plan_stores(stores, request, options)), kind, changed.told)

    return as_run_state(run)
