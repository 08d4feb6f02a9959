"""How long tests wait for what should come at once: a machine may stand still for a minute, and what hangs must end."""

import time
from collections.abc import Callable

PATIENCE_SECONDS = 600.0


def wait_until(is_so: Callable[[], object], said: Callable[[], str] = str, every_seconds: float = 0.05) -> None:
    """Return when ``is_so()`` is true; a failure, with what is ``said()``, where it does not become so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, said()
        time.sleep(every_seconds)
