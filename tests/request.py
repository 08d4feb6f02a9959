"""What a run is asked for, for tests that need no scans of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.request import RunRequest


def asked(output: Path, **given: Any) -> RunRequest:
    """A request without inputs."""
    return RunRequest(inputs=[], output=str(output), **given)
