"""The command line as a user runs it: a real process with a real embedded server and a real cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Ran:
    """What a command left: exit code, standard output and standard error."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return [line.strip() for line in self.err.splitlines() if line.strip()]

    def line(self, *words: str) -> str:
        """The one line of standard error that has all ``words``."""
        found = [line for line in self.lines if all(word in line for word in words)]
        assert len(found) == 1, f"{words} in {len(found)} lines of:\n{self.err}"
        return found[0]


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    return {**os.environ, "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")), "COLUMNS": "200"}


@pytest.fixture(scope="session")
def command(environment):
    """Run ``colorize-archive`` with the given words."""

    def run(*words: object, **options: object) -> Ran:
        process = subprocess.run(
            [sys.executable, "-m", "flows.cli", *map(str, words)],
            capture_output=True,
            text=True,
            env=environment,
            timeout=240,
            **options,
        )
        assert "Traceback" not in process.stderr + process.stdout, process.stderr
        return Ran(process.returncode, process.stdout, process.stderr)

    return run


@pytest.fixture(scope="session")
def scans() -> Path:
    return Path(__file__).parents[1] / "scans"
