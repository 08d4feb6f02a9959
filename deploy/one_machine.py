"""``deploy/up``: Prefect's server on SQLite, a work pool, a worker and the deployments, on one machine, under one roof.

This process starts the others and watches them: one that dies is started anew. They carry its folder in their
environment, and so do the runs and Dask workers below them, so that it ends exactly what it started, whatever became of
the processes between. Runs that were broken off, by an end of this or of the machine, are scheduled again; they go on
from their finished blocks.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from processes import Child, Place, SetUpError, answers, check_port, end_all, kill_all, tell

from flows.cli.console import FAILED, USAGE, stop
from pipeline.errors import ColorizeError, UsageError

_WATCH_SECONDS = 1.0
# For all of it: each run has its time to keep what it has.
_STOP_SECONDS = 90


@dataclass(frozen=True)
class Running:
    """A set-up that runs, as its file tells: its process, when that began, its server, and the profile before it."""

    pid: int
    created: float
    url: str
    profile_before: str

    @classmethod
    def of(cls, place: Place) -> Running | None:
        """That of the file, whether or not it still runs."""
        import json

        try:
            return cls(**json.loads(place.state.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    @property
    def is_alive(self) -> bool:
        with contextlib.suppress(psutil.Error):
            return bool(abs(psutil.Process(self.pid).create_time() - self.created) < 1)
        return False


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the body as Ctrl-C does; while it is being ended, both are ignored."""

    def interrupt(*_: Any) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, interrupt)
    yield


def serve(place: Place, port: int, runs: int, asked: Any) -> None:
    """Start everything, watch it until Ctrl-C or SIGTERM, and end it. Raises ColorizeError."""
    import profiles
    import runs as flow_runs
    from deployments import POOL, check_nights, deploy

    url = os.environ["PREFECT_API_URL"]
    before = Running.of(place)
    kill_all(place.processes())
    check_port(port)
    os.environ.setdefault("PREFECT_WORKER_QUERY_SECONDS", "3")
    server = Child("server", ["server", "start", "--host", "127.0.0.1", "--port", str(port)], place)
    worker = Child("worker", ["worker", "start", "--pool", POOL, "--type", "process", "--limit", str(runs)], place)
    worker.words += ["--name", f"up-{socket.gethostname()}"]
    profile_before = before.profile_before if before else profiles.active()
    _write_state(place, Running(os.getpid(), psutil.Process().create_time(), url, profile_before))
    with _terminable():
        try:
            server.start()
            server.wait(lambda: answers(url))
            tell("server", f"{url.removesuffix('/api')}  (database in {place.home}, logs in {place.folder})")
            check_nights(asked)  # what was given before, only the server knows
            for line in flow_runs.take_up(POOL):
                tell("run", line)
            for name in deploy(asked):
                tell("deployed", name)
            worker.start()
            worker.wait(lambda: flow_runs.is_online(POOL, str(worker.words[-1])))
            tell("worker", f"of work pool {POOL}, {runs} runs at a time")
            profiles.switch_on(url)
            tell("profile", f"{profiles.NAME} is active: prefect deployment run {POOL} works in every terminal")
            place.folder.joinpath("ready").touch()
            tell("ready", "Ctrl-C or deploy/up --stop ends it")
            _watch([server, worker], place, url)
        except KeyboardInterrupt:
            tell("ending", "runs that are not done go on at the next start")
        finally:
            place.folder.joinpath("ready").unlink(missing_ok=True)
            profiles.switch_off(profile_before)
            _end(server, worker, place)
            place.state.unlink(missing_ok=True)
    tell("ended", "nothing of it runs any more")


def _write_state(place: Place, running: Running) -> None:
    from dataclasses import asdict

    from pipeline.support.files import write_json

    write_json(place.state, asdict(running))


def _watch(children: list[Child], place: Place, url: str) -> None:
    """Start again what dies, for ever. Raises SetUpError."""
    import runs as flow_runs
    from deployments import POOL

    server, worker = children
    seen_alive = datetime.now(UTC)
    while True:
        time.sleep(_WATCH_SECONDS)
        if server.has_died:
            tell("server", f"died ({server.last_code}); it is started again")
            server.start_again()
            server.wait(lambda: answers(url))
        if worker.has_died:
            tell("worker", f"died ({worker.last_code}); it is started again")
            kill_all(_below(server, place))
            begun = flow_runs.unfinished(POOL, seen_alive)
            for line in [*flow_runs.schedule_again(begun), *flow_runs.take_up(POOL)]:
                tell("run", line)
            worker.start_again()
        else:
            seen_alive = datetime.now(UTC)


def _below(server: Child, place: Place) -> list[psutil.Process]:
    """All but the server: the worker, its runs, and what those started."""
    if server.process is None:
        return place.processes()
    others = {server.process.pid}
    with contextlib.suppress(psutil.NoSuchProcess):
        others |= {each.pid for each in psutil.Process(server.process.pid).children(recursive=True)}
    return [process for process in place.processes() if process.pid not in others]


def _end(server: Child, worker: Child, place: Place) -> None:
    """The runs first, each on its own terms, then the worker, then all that is left; last the server."""
    import runs as flow_runs
    from deployments import POOL

    unfinished = []
    with contextlib.suppress(Exception):  # a server that is gone is no reason to leave the rest
        unfinished = flow_runs.unfinished(POOL) if worker.process is not None else []
    # Before the worker, which kills the runs that it has without a word.
    end_all([process for process in _below(server, place) if _is_engine(process)])
    if worker.process is not None and not worker.has_died:
        worker.process.terminate()
    end_all(_below(server, place))
    worker.end()
    with contextlib.suppress(Exception):  # and those that it began in the meantime
        unfinished += flow_runs.unfinished(POOL) if worker.process is not None else []
        flow_runs.schedule_again([*dict.fromkeys(unfinished)])
    server.end()
    end_all(place.processes())


def _is_engine(process: psutil.Process) -> bool:
    """Whether it is the process of a flow run."""
    with contextlib.suppress(psutil.Error):
        return "prefect.engine" in process.cmdline()
    return False


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def _local_timezone() -> str:
    parts = Path("/etc/localtime").resolve().parts
    return "/".join(parts[parts.index("zoneinfo") + 1 :]) if "zoneinfo" in parts else "UTC"


@app.command()
def up(
    scans: Annotated[
        list[str] | None,
        typer.Option(help="Files, folders or patterns that colorize-archive takes if not told others."),
    ] = None,
    results: Annotated[str | None, typer.Option(help="Folder for the results, of reprocess-archive too.")] = None,
    nightly: Annotated[
        str | None, typer.Option(metavar="HH:MM", help="Switch the nightly schedule on, at this time (or a cron line).")
    ] = None,
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
    try:
        place = Place((home or Path(os.environ.get("PREFECT_HOME", "~/.prefect"))).expanduser().absolute())
    except RuntimeError:
        stop("this user has no home folder, so the server's database has no place; give --home", USAGE)
    running = Running.of(place)
    is_there = running is not None and running.is_alive
    # Prefect reads both when it is first imported; without an address it would start a server of its own.
    os.environ["PREFECT_HOME"] = str(place.home)
    os.environ["PREFECT_API_URL"] = running.url if running and is_there else f"http://127.0.0.1:{port}/api"
    try:
        place.folder.mkdir(parents=True, exist_ok=True)
        if end:
            _stop_it(place)
        elif status:
            raise typer.Exit(0 if _say_status(place) else FAILED)
        else:
            from deployments import Asked, parse_nightly

            cron, zone = parse_nightly(nightly), timezone or _local_timezone()
            folder = _absolute([results] if results else None)
            asked = Asked(_absolute(scans), folder[0] if folder else None, cron=cron, timezone=zone)
            _start(place, port, runs, asked, detach)
    except OSError as error:
        stop(
            f"{error.filename or place.folder}: {error.strerror or error}; check the folder and its permissions", USAGE
        )
    except UsageError as error:
        stop(error, USAGE)
    except ColorizeError as error:
        stop(error, FAILED)


def _absolute(paths: list[str] | None) -> tuple[str, ...] | None:
    """The runs work in another folder."""
    return tuple(str(Path(path).expanduser().absolute()) for path in paths) if paths else None


def _start(place: Place, port: int, runs: int, asked: Any, detach: bool) -> None:
    running = Running.of(place)
    if running is not None and running.is_alive:
        from deployments import deploy

        tell("server", f"{running.url.removesuffix('/api')} runs already (process {running.pid})")
        for name in deploy(asked):
            tell("deployed", name)
    elif detach:
        _start_apart(place)
    else:
        serve(place, port, runs, asked)


def _start_apart(place: Place) -> None:
    """The same command without --detach, on its own; returns when it is ready. Raises SetUpError, UsageError."""
    words = [word for word in sys.argv if word != "--detach"]
    place.folder.joinpath("ready").unlink(missing_ok=True)
    child = Child("up", [], place)
    with place.log("up").open("wb") as stream:
        child.process = subprocess.Popen(
            [sys.executable, *words],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        child.wait(place.folder.joinpath("ready").exists)
    except SetUpError:
        if child.process.poll() is None:
            child.end()
        kind = UsageError if child.process.returncode == USAGE else SetUpError
        raise kind(child.last_words().removeprefix("colorize-archive: ")) from None
    print(place.log("up").read_text(), end="")


def _stop_it(place: Place) -> None:
    running = Running.of(place)
    if running is not None and running.is_alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(running.pid)
            end_all([process], _STOP_SECONDS)
    left = place.processes()
    end_all(left)
    if running is not None and place.state.exists():
        import profiles

        profiles.switch_off(running.profile_before)
        place.state.unlink(missing_ok=True)
    tell("ended", "nothing of it runs any more" if running or left else "nothing of it ran")


def _say_status(place: Place) -> bool:
    """Whether all of it is well."""
    import runs as flow_runs
    from deployments import POOL

    running = Running.of(place)
    if running is None or not running.is_alive:
        tell("set-up", "does not run; deploy/up starts it")
        return False
    well = answers(running.url)
    tell("server", f"{running.url.removesuffix('/api')} {'is well' if well else 'does not answer'}")
    online = well and flow_runs.is_online(POOL, f"up-{socket.gethostname()}")
    tell("worker", "is online" if online else "is offline")
    return online
