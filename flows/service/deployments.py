"""The deployments of a ``prefect.yaml`` on the server that ``PREFECT_API_URL`` names, made or brought up to date.

``prefect deploy`` puts everything back to what its file says: a schedule that was switched on in the web page would be
off again. So of a deployment that is there, what people change is handed to it as it is: schedules, parameters, job
variables, tags, limits.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, GlobalConcurrencyLimitCreate, WorkPoolCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound

from flows.orchestration.limits import GPU_LIMIT
from pipeline.errors import ColorizeError, UsageError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

POOL = "colorize-archive"
_COLORIZE = "colorize-archive"
_NIGHTLY = "nightly"
# Of what is asked for, what each deployment has a parameter for.
_TAKES = {_COLORIZE: ("inputs", "output", "scheduler"), "reprocess-archive": ("output", "scheduler")}
# What a night cannot be without, and the options that give it.
_NEEDED = {"inputs": "--scans", "output": "--results"}


class DeployError(ColorizeError):
    """Prefect refused a deployment."""


@dataclass(frozen=True)
class Asked:
    """What is to be other than it is; None stays.

    Attributes
    ----------
    scans : files, folders or patterns to colour
    results : folder for the results
    scheduler : address of a Dask cluster
    cron : when the nightly schedule runs, which is switched on by it
    timezone : of ``cron``
    """

    scans: tuple[str, ...] | None = None
    results: str | None = None
    scheduler: str | None = None
    cron: str | None = None
    timezone: str = "UTC"

    def parameters(self, deployment: str) -> dict[str, Any]:
        """Those of the deployment of that name."""
        given = {
            "inputs": list(self.scans) if self.scans else None,
            "output": self.results,
            "scheduler": self.scheduler,
        }
        return {name: given[name] for name in _TAKES.get(deployment, ()) if given[name] is not None}


def parse_nightly(text: str | None) -> str | None:
    """``01:30`` as a cron line; a cron line as it is. Raises UsageError."""
    if text is None:
        return None
    clock = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", text)
    cron = f"{int(clock[2])} {int(clock[1])} * * *" if clock else text
    try:
        CronSchedule(cron=cron)
    except ValueError as error:
        raise UsageError(
            f"nightly {text!r}: not a time, nothing would be scheduled; give 01:30 or a cron line"
        ) from error
    return cron


def check_nights(asked: Asked) -> None:
    """Whether nights that are to be switched on have what they need, now or from before. Raises UsageError."""
    if asked.cron is None:
        return
    with get_client(sync_client=True) as client:
        found = _present(client, _COLORIZE)
    known = (found.parameters if found else {}) | asked.parameters(_COLORIZE)
    missing = [option for name, option in _NEEDED.items() if not known.get(name)]
    if missing:
        raise UsageError(
            f"--nightly: there is no {' and no '.join(missing)}, now or from before, so every night would fail and "
            f"nothing was switched on; give {' and '.join(missing)} too"
        )


def deploy(file: Path, asked: Asked) -> list[str]:
    """Make the work pool and all deployments of ``file``, or bring them up to date; returns their names.

    Raises
    ------
    UsageError
        Nights are to be switched on without scans or results; nothing was made.
    DeployError
        Prefect refused.
    """
    check_nights(asked)
    with get_client(sync_client=True) as client:
        _make_pool(client)
        _make_limit(client)
        wanted = yaml.safe_load(file.read_text(encoding="utf-8"))
        present = {each["name"]: _present(client, each["name"]) for each in wanted["deployments"]}
        for each in wanted["deployments"]:
            found = present[each["name"]]
            if found is not None:
                each |= _as_it_is(found)
                each.pop("schedules", None)
            each["parameters"] = {**each.get("parameters", {}), **asked.parameters(each["name"])}
        _run_prefect_deploy(file, wanted)
        if asked.cron is not None:
            _switch_on(client, asked)
    return [f"{name}/{name}" for name in present]


def _make_pool(client: SyncPrefectClient) -> None:
    from prefect.workers.process import ProcessWorker

    try:
        client.read_work_pool(POOL)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))


def _make_limit(client: SyncPrefectClient) -> None:
    """One colour stage at a time on GPUs, unless the limit is there with another number."""
    try:
        client.read_global_concurrency_limit_by_name(GPU_LIMIT)
    except ObjectNotFound:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=GPU_LIMIT, limit=1))


def _present(client: SyncPrefectClient, name: str) -> DeploymentResponse | None:
    """The deployment, which has the name of its flow."""
    try:
        return client.read_deployment_by_name(f"{name}/{name}")
    except ObjectNotFound:
        return None


def _as_it_is(found: DeploymentResponse) -> dict[str, Any]:
    limit = found.global_concurrency_limit
    options = found.concurrency_options.model_dump(mode="json") if found.concurrency_options else {}
    return {
        "parameters": found.parameters,
        "tags": found.tags,
        "paused": found.paused,
        "work_pool": {
            "name": found.work_pool_name,
            "work_queue_name": found.work_queue_name,
            "job_variables": found.job_variables,
        },
        **({"concurrency_limit": {"limit": limit.limit, **options}} if limit else {}),
    }


def _run_prefect_deploy(file: Path, wanted: dict[str, Any]) -> None:
    """``wanted`` is what ``file`` says and what is to stay. Raises DeployError."""
    with tempfile.TemporaryDirectory() as folder:
        merged = Path(folder) / "prefect.yaml"
        merged.write_text(yaml.safe_dump(wanted, sort_keys=False), encoding="utf-8")
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(merged)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip(" │╭╰─╮╯")]
        raise DeployError(f"{file}: prefect deploy failed, deployments may be missing: {' '.join(lines[-3:])}")


def _switch_on(client: SyncPrefectClient, asked: Asked) -> None:
    deployment = client.read_deployment_by_name(f"{_COLORIZE}/{_COLORIZE}")
    schedule = CronSchedule(cron=str(asked.cron), timezone=asked.timezone)
    for each in deployment.schedules:
        if each.slug == _NIGHTLY:
            client.update_deployment_schedule(deployment.id, each.id, active=True, schedule=schedule)
            return
    new = DeploymentScheduleCreate(schedule=schedule, active=True, slug=_NIGHTLY)
    client.create_deployment_schedules(deployment.id, [new])
