"""The backends that run on this machine, for tests that want each of them."""

from __future__ import annotations

from engines.errors import EngineUnavailableError
from engines.registry import backend_names, usable_version


def is_usable(backend: str) -> bool:
    try:
        return bool(usable_version(backend))
    except EngineUnavailableError:
        return False


NETWORKS = [name for name in backend_names() if name != "identity" and is_usable(name)]
