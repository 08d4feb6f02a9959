"""The services of ``compose.yaml`` as Compose itself reads the file, and their processes without containers."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.patience import PATIENCE_SECONDS, wait_until

DEPLOY = Path(__file__).parents[2] / "deploy"
# The folder of this Python's programs: prefect, dask, docker-compose, hadolint.
PROGRAMS = Path(sysconfig.get_path("scripts"))
ASKED = {"SCANS": "/scans", "RESULTS": "/colour", "POSTGRES_PASSWORD": "secret", "THREADS": "1", "MEMORY": "1GiB"}


def model(*profiles: str, file: Path = DEPLOY / "compose.yaml") -> subprocess.CompletedProcess[str]:
    """What Compose makes of the file, as JSON on its standard output; it asks no Docker engine for that."""
    chosen = [word for profile in profiles for word in ("--profile", profile)]
    command = [PROGRAMS / "docker-compose", "--file", file, *chosen, "config", "--format", "json"]
    return subprocess.run(command, env=os.environ | ASKED, capture_output=True, text=True, timeout=PATIENCE_SECONDS)


def services(*profiles: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(model(*profiles).stdout)["services"]
    return found


def image_environment() -> dict[str, str]:
    """What the image puts into the environment of every service."""
    (lines,) = re.findall(r"^ENV (PATH=(?:.*\\\n)*.*)", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    return dict(re.findall(r"(\w+)=(\S+)", lines))


@dataclass
class Composed:
    """Processes of services, by their own commands and health checks.

    Attributes
    ----------
    places : what stands in the file, such as ``/scans`` or ``server:4200``, and what is in its place here
    environment : what those processes have beside what the file gives them
    """

    places: Mapping[str, str]
    environment: Mapping[str, str]
    folder: Path
    services: Mapping[str, Any] = field(default_factory=lambda: services("cpu"))
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def here(self, text: str) -> str:
        longest_first = sorted(self.places, key=len, reverse=True)
        return re.sub("|".join(map(re.escape, longest_first)), lambda found: self.places[found[0]], text)

    def _told(self, name: str) -> dict[str, Any]:
        given = image_environment() | (self.services[name].get("environment") or {})
        given.pop("PATH")  # that of the image
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
        environment = kept | {key: self.here(value) for key, value in given.items()} | dict(self.environment)
        environment["PATH"] = os.pathsep.join([str(PROGRAMS), environment["PATH"]])
        return {"env": environment, "cwd": self.folder}

    def start(self, name: str) -> None:
        words = [self.here(word) for word in self.services[name]["command"]]
        with self.log(name).open("ab") as stream:
            self.processes[name] = subprocess.Popen(
                words, stdout=stream, stderr=stream, start_new_session=True, **self._told(name)
            )

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def said(self, name: str) -> str:
        return self.log(name).read_text(errors="replace")

    def wait_healthy(self, name: str) -> None:
        kind, *words = self.services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        check = [self.here(word) for word in words]
        told = self._told(name)
        wait_until(
            lambda: subprocess.run(check, capture_output=True, **told).returncode == 0, lambda: self.said(name), 0.2
        )

    def wait_done(self, name: str) -> None:
        assert self.processes[name].wait(PATIENCE_SECONDS) == 0, self.said(name)

    def run(self, name: str, *words: str) -> str:
        """As ``docker compose exec NAME WORDS`` does."""
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_SECONDS, **self._told(name))
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def end(self) -> None:
        for process in reversed(self.processes.values()):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@contextlib.contextmanager
def composed(places: Mapping[str, str], environment: Mapping[str, str], folder: Path) -> Iterator[Composed]:
    """Ended with the body."""
    found = Composed(places, environment, folder)
    try:
        yield found
    finally:
        found.end()
