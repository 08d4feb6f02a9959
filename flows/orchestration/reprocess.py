"""The flow ``reprocess-archive``: new versions of scans that were ingested before. It reads only the stores."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.orchestration import parameters
from flows.orchestration.colorize import IN_FLOW, STAGE_RUNNER
from flows.orchestration.forms import with_plain_form
from flows.orchestration.run_names import named
from flows.orchestration.states import as_run_state
from flows.request import ReprocessRequest
from flows.run.requests import reprocess


@with_plain_form
@flow(name="reprocess-archive", flow_run_name=named, task_runner=STAGE_RUNNER, persist_result=False)  # type: ignore[arg-type]
@parameters.taking(ReprocessRequest)
def reprocess_archive(**given: Any) -> State[Any]:
    """Make new versions of scans that were coloured before, from their stores, and say how much they differ."""
    request = parameters.requested(ReprocessRequest, given)
    return as_run_state(lambda: reprocess(request, IN_FLOW))
