"""Prefect's server on SQLite, a work pool, a worker and the deployments, on one machine, under one roof.

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
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from flows.orchestration.server import UP_PROFILE
from flows.service import profiles
from flows.service import runs as flow_runs
from flows.service.deployments import POOL, Asked, check_nights, deploy
from flows.service.processes import Child, Place, answers, check_port, end_all, kill_all, tell
from flows.service.running import Running
from pipeline.support.files import write_json

_WATCH_SECONDS = 1.0


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


def serve(place: Place, port: int, runs: int, file: Path, asked: Asked) -> None:
    """Start everything, watch it until Ctrl-C or SIGTERM, and end it.

    Parameters
    ----------
    port : of the server, on 127.0.0.1; ``PREFECT_API_URL`` names it
    runs : how many the worker has at a time
    file : the ``prefect.yaml`` of the deployments

    Raises
    ------
    UsageError
        The port is taken, or nights are to be switched on without scans or results.
    SetUpError
        A part does not start, or does not stay.
    DeployError
        Prefect refused a deployment.
    """
    url = os.environ["PREFECT_API_URL"]
    before = Running.of(place)
    kill_all(place.processes())
    check_port(port)
    os.environ.setdefault("PREFECT_WORKER_QUERY_SECONDS", "3")
    server = Child("server", ["server", "start", "--host", "127.0.0.1", "--port", str(port)], place)
    worker = Child("worker", ["worker", "start", "--pool", POOL, "--type", "process", "--limit", str(runs)], place)
    worker.words += ["--name", f"up-{socket.gethostname()}"]
    profile_before = before.profile_before if before else profiles.active()
    this = Running(os.getpid(), psutil.Process().create_time(), url, profile_before)
    write_json(place.state, asdict(this))
    with _terminable():
        try:
            server.start()
            server.wait(lambda: answers(url))
            tell("server", f"{url.removesuffix('/api')}  (database in {place.home}, logs in {place.folder})")
            check_nights(asked)  # what was given before, only the server knows
            for line in flow_runs.take_up(POOL):
                tell("run", line)
            for name in deploy(file, asked):
                tell("deployed", name)
            worker.start()
            worker.wait(lambda: flow_runs.is_online(POOL, str(worker.words[-1])))
            tell("worker", f"of work pool {POOL}, {runs} runs at a time")
            profiles.switch_on(url)
            tell("profile", f"{UP_PROFILE} is active: prefect deployment run {POOL} works in every terminal")
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


def _watch(children: list[Child], place: Place, url: str) -> None:
    """Start again what dies, for ever. Raises SetUpError."""
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


def deploy_again(running: Running, file: Path, asked: Asked) -> None:
    """Bring the deployments of a set-up that runs up to date. Raises UsageError, DeployError."""
    tell("server", f"{running.url.removesuffix('/api')} runs already (process {running.pid})")
    for name in deploy(file, asked):
        tell("deployed", name)


def say_status(place: Place) -> bool:
    """Whether all of it is well."""
    running = Running.of(place)
    if running is None or not running.is_alive:
        tell("set-up", "does not run; deploy/up starts it")
        return False
    well = answers(running.url)
    tell("server", f"{running.url.removesuffix('/api')} {'is well' if well else 'does not answer'}")
    online = well and flow_runs.is_online(POOL, f"up-{socket.gethostname()}")
    tell("worker", "is online" if online else "is offline")
    return online
