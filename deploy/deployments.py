"""The deployments of ``prefect.yaml`` on the server that ``PREFECT_API_URL`` names, made or brought up to date.

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
from typing import TYPE_CHECKING, Annotated, Any

import flows  # noqa: F401 - before Prefect: it sees to the environment

# isort: split
import typer
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, GlobalConcurrencyLimitCreate, WorkPoolCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound

from flows.cli.console import USAGE, stop
from flows.orchestration.limits import GPU_LIMIT
from pipeline.errors import ColorizeError, UsageError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

FILE = Path(__file__).with_name("prefect.yaml")
POOL = "colorize-archive"
COLORIZE = "colorize-archive"
NIGHTLY = "nightly"
# Of what is asked for, what each deployment has a parameter for.
TAKES = {COLORIZE: ("inputs", "output", "scheduler"), "reprocess-archive": ("output", "scheduler")}
# What a night cannot be without, and the options that give it.
NEEDED = {"inputs": "--scans", "output": "--results"}


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
        return {name: given[name] for name in TAKES.get(deployment, ()) if given[name] is not None}


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
        found = _present(client, COLORIZE)
    known = (found.parameters if found else {}) | asked.parameters(COLORIZE)
    missing = [option for name, option in NEEDED.items() if not known.get(name)]
    if missing:
        raise UsageError(
            f"--nightly: there is no {' and no '.join(missing)}, now or from before, so every night would fail and "
            f"nothing was switched on; give {' and '.join(missing)} too"
        )


def deploy(asked: Asked) -> list[str]:
    """Make the work pool and all deployments, or bring them up to date; returns their names.

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
        wanted = yaml.safe_load(FILE.read_text(encoding="utf-8"))
        present = {each["name"]: _present(client, each["name"]) for each in wanted["deployments"]}
        for each in wanted["deployments"]:
            found = present[each["name"]]
            if found is not None:
                each |= _as_it_is(found)
                each.pop("schedules", None)
            each["parameters"] = {**each.get("parameters", {}), **asked.parameters(each["name"])}
        _run_prefect_deploy(wanted)
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


def _run_prefect_deploy(wanted: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prefect.yaml"
        file.write_text(yaml.safe_dump(wanted, sort_keys=False), encoding="utf-8")
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip(" │╭╰─╮╯")]
        raise DeployError(f"{FILE}: prefect deploy failed, deployments may be missing: {' '.join(lines[-3:])}")


def _switch_on(client: SyncPrefectClient, asked: Asked) -> None:
    deployment = client.read_deployment_by_name(f"{COLORIZE}/{COLORIZE}")
    schedule = CronSchedule(cron=str(asked.cron), timezone=asked.timezone)
    for each in deployment.schedules:
        if each.slug == NIGHTLY:
            client.update_deployment_schedule(deployment.id, each.id, active=True, schedule=schedule)
            return
    new = DeploymentScheduleCreate(schedule=schedule, active=True, slug=NIGHTLY)
    client.create_deployment_schedules(deployment.id, [new])


Scans = Annotated[
    list[str] | None, typer.Option(help="Files, folders or patterns that colorize-archive takes if not told others.")
]
Results = Annotated[str | None, typer.Option(help="Folder for the results, of reprocess-archive too.")]
Nightly = Annotated[
    str | None, typer.Option(metavar="HH:MM", help="Switch the nightly schedule on, at this time (or a cron line).")
]
Timezone = Annotated[str, typer.Option(help="Of --nightly, such as Europe/Paris.")]


def main(
    scans: Scans = None,
    results: Results = None,
    scheduler: Annotated[str | None, typer.Option(help="Address of a Dask cluster.")] = None,
    nightly: Nightly = None,
    timezone: Timezone = "UTC",
) -> None:
    """Make the deployments, or bring them up to date, on the server that PREFECT_API_URL names."""
    try:
        asked = Asked(tuple(scans or ()) or None, results, scheduler, parse_nightly(nightly), timezone)
        typer.echo("\n".join(deploy(asked)))
    except ColorizeError as error:
        stop(error, USAGE)


if __name__ == "__main__":
    typer.run(main)
