"""The commands of ``deploy/``: ``up``, ``deployments.py`` and ``notify.py``.

Each is called with the file that it is about as the context's object: the installed package does not carry ``deploy/``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.console import FAILED, USAGE, stop
from flows.service.processes import Place, tell
from flows.service.running import Running, end_it, start_apart
from pipeline.errors import ColorizeError, UsageError

up = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
deployments = typer.Typer(add_completion=False)
notify = typer.Typer(add_completion=False)

_Scans = Annotated[
    list[str] | None, typer.Option(help="Files, folders or patterns that colorize-archive takes if not told others.")
]
_Results = Annotated[str | None, typer.Option(help="Folder for the results, of reprocess-archive too.")]
_Nightly = Annotated[
    str | None, typer.Option(metavar="HH:MM", help="Switch the nightly schedule on, at this time (or a cron line).")
]


@up.command()
def start_or_end(
    context: typer.Context,
    scans: _Scans = None,
    results: _Results = None,
    nightly: _Nightly = None,
    timezone: Annotated[
        str | None, typer.Option(help="Of --nightly, such as Europe/Paris.", show_default="this machine's")
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of the server, on 127.0.0.1.")] = 4200,
    runs: Annotated[int, typer.Option(min=1, help="Runs at a time; the others wait.")] = 1,
    home: Annotated[
        Path | None, typer.Option(help="Prefect's folder.", show_default="PREFECT_HOME, or ~/.prefect")
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when all of it answers; it goes on running.")
    ] = False,
    end: Annotated[bool, typer.Option("--stop", help="End it, from any terminal.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Say what runs. Exit code 1: something does not.")] = False,
) -> None:
    """Start Prefect's server, a worker and the deployments of colorize-archive on this machine. Again is no harm."""
    place = _place(home)
    running = Running.of(place)
    if running is not None and not running.is_alive:
        running = None
    # Prefect reads both when it is first imported; without an address it would start a server of its own.
    os.environ["PREFECT_HOME"] = str(place.home)
    os.environ["PREFECT_API_URL"] = running.url if running else f"http://127.0.0.1:{port}/api"
    try:
        place.folder.mkdir(parents=True, exist_ok=True)
        if end:
            end_it(place)
            return
        if running is None and not status:
            tell("starting", f"Prefect's server on port {port}, a worker and the deployments: half a minute, or two")
        # Only now, for Prefect.
        from flows.service.deployments import Asked, parse_nightly
        from flows.service.one_machine import deploy_again, say_status, serve

        if status:
            raise typer.Exit(0 if say_status(place) else FAILED)
        cron, zone = parse_nightly(nightly), timezone or _local_timezone()
        folder = _absolute([results] if results else None)
        asked = Asked(_absolute(scans), folder[0] if folder else None, cron=cron, timezone=zone)
        if running is not None:
            deploy_again(running, context.obj, asked)
        elif detach:
            start_apart(place, [sys.executable, *(word for word in sys.argv if word != "--detach")], USAGE)
        else:
            serve(place, port, runs, context.obj, asked)
    except OSError as error:
        stop(
            f"{error.filename or place.folder}: {error.strerror or error}; check the folder and its permissions", USAGE
        )
    except UsageError as error:
        stop(error, USAGE)
    except ColorizeError as error:
        stop(error, FAILED)


def _place(home: Path | None) -> Place:
    try:
        return Place((home or Path(os.environ.get("PREFECT_HOME", "~/.prefect"))).expanduser().absolute())
    except RuntimeError:
        stop("this user has no home folder, so the server's database has no place; give --home", USAGE)


def _local_timezone() -> str:
    parts = Path("/etc/localtime").resolve().parts
    return "/".join(parts[parts.index("zoneinfo") + 1 :]) if "zoneinfo" in parts else "UTC"


def _absolute(paths: list[str] | None) -> tuple[str, ...] | None:
    """The runs work in another folder."""
    return tuple(str(Path(path).expanduser().absolute()) for path in paths) if paths else None


@deployments.command()
def make_deployments(
    context: typer.Context,
    scans: _Scans = None,
    results: _Results = None,
    scheduler: Annotated[str | None, typer.Option(help="Address of a Dask cluster.")] = None,
    nightly: _Nightly = None,
    timezone: Annotated[str, typer.Option(help="Of --nightly, such as Europe/Paris.")] = "UTC",
) -> None:
    """Make the deployments, or bring them up to date, on the server that PREFECT_API_URL names."""
    from flows.service.deployments import Asked, deploy, parse_nightly
    from flows.service.profiles import accept_bare_names

    try:
        asked = Asked(tuple(scans or ()) or None, results, scheduler, parse_nightly(nightly), timezone)
        typer.echo("\n".join(deploy(context.obj, asked)))
        typer.echo(accept_bare_names(), err=True)
    except ColorizeError as error:
        stop(error, USAGE)


@notify.command()
def make_automation(context: typer.Context, url: Annotated[str, typer.Argument(help="The webhook.")]) -> None:
    """Make the automation of automations.yaml, or bring it up to date, with URL as the one who is told."""
    from flows.service import notify

    typer.echo(f"{notify.make_automation(url, context.obj)}: {url} is told")
