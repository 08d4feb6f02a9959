"""The set-up that runs: found by its file, started apart from a terminal, ended from any; Prefect is not imported."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from flows.service.processes import Child, Place, SetUpError, end_all, tell
from pipeline.errors import UsageError

# For all of it: each run has its time to keep what it has.
_STOP_SECONDS = 90


@dataclass(frozen=True)
class Running:
    """A set-up that runs, as its file tells.

    Attributes
    ----------
    pid : of the process that watches the others
    created : when that began, in seconds since 1970
    url : of the server's API
    profile_before : Prefect's profile that was active before
    """

    pid: int
    created: float
    url: str
    profile_before: str

    @classmethod
    def of(cls, place: Place) -> Running | None:
        """That of the file, whether or not it still runs."""
        try:
            return cls(**json.loads(place.state.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    @property
    def is_alive(self) -> bool:
        """Whether it is still that process: after a new start of the machine another may have its number."""
        with contextlib.suppress(psutil.Error):
            return bool(abs(psutil.Process(self.pid).create_time() - self.created) < 1)
        return False


def start_apart(place: Place, command: Sequence[str], usage_code: int) -> None:
    """Start ``command``, which is to serve the set-up, on its own; returns when it is ready.

    Raises
    ------
    UsageError
        It ended with ``usage_code``.
    SetUpError
        It ended otherwise, or does not get on.
    """
    place.folder.joinpath("ready").unlink(missing_ok=True)
    child = Child("up", [], place)
    with place.log("up").open("wb") as stream:
        child.process = subprocess.Popen(
            command,
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
        kind = UsageError if child.process.returncode == usage_code else SetUpError
        raise kind(child.last_words().removeprefix("colorize-archive: ")) from None
    print(place.log("up").read_text(), end="")


def end_it(place: Place) -> None:
    """End the set-up and whatever is left of it, from another process."""
    running = Running.of(place)
    if running is not None and running.is_alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(running.pid)
            end_all([process], _STOP_SECONDS)
    left = place.processes()
    end_all(left)
    if running is not None and place.state.exists():
        from flows.service import profiles  # Prefect takes seconds to import: only where it is needed

        profiles.switch_off(running.profile_before)
        place.state.unlink(missing_ok=True)
    tell("ended", "nothing of it runs any more" if running or left else "nothing of it ran")
