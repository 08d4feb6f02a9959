"""The Prefect server of the user, where there is one: a run of the command is then a flow run there.

Without one, a run has none. A server that began and ended with the command would show its page to nobody, and took
longer to start than most small runs take altogether.
"""

from __future__ import annotations

import os
import socket
import tomllib
import urllib.parse
from pathlib import Path

UP_PROFILE = "colorize-archive"


def users_server() -> str | None:
    """Address of the Prefect server that the environment or the active profile names.

    The profile of ``deploy/up`` survives a power cut, but its server does not: it counts only if it listens.
    """
    if url := os.environ.get("PREFECT_API_URL"):
        return url
    try:
        home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
        path = Path(os.environ.get("PREFECT_PROFILES_PATH", home / "profiles.toml"))
        profiles = tomllib.loads(path.read_text(encoding="utf-8"))
        active = os.environ.get("PREFECT_PROFILE") or profiles["active"]
        url = str(profiles["profiles"][active]["PREFECT_API_URL"])
    except (OSError, RuntimeError, KeyError, TypeError, ValueError):  # the second: a user without a home
        return None
    return url if active != UP_PROFILE or _is_there(url) else None


def _is_there(url: str) -> bool:
    """True if anything listens at ``url``; whatever it is, it is the user's."""
    try:
        address = urllib.parse.urlsplit(url)
        with socket.create_connection((address.hostname or "", address.port or 80), timeout=5):
            return True
    except (OSError, ValueError):
        return False
