"""What a flow run is called on Prefect's page: the folder of its results, and when it began by the machine's clock.

Prefect makes up two words for a run that has no name (``hasty-cobra``), and its form the name of a star
(``nu3-tarakis-shift``); a name that somebody gave stays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from prefect.runtime import flow_run

from pipeline.support.names import shown

_GREEK = (
    "alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|omicron|pi|rho|sigma|tau|upsilon|phi|chi|"
    "psi|omega"
)
_MADE_UP = re.compile(rf"[a-z]+-[a-z]+|({_GREEK})\d*(-[a-z]+)+")
_MOST_CHARACTERS = 80


def named() -> str:
    """The name of the current flow run."""
    given = str(flow_run.name or "")
    if given and not _MADE_UP.fullmatch(given):
        return given
    return name_of(flow_run.parameters or {}, datetime.now().astimezone())


def name_of(parameters: Mapping[str, Any], when: datetime) -> str:
    """Folder of the results, day and time.

    >>> name_of({"output": "/archive/Glass plates/"}, datetime(2026, 3, 1, 22, 5))
    'Glass plates, 2026-03-01 22:05'
    """
    output = parameters.get("output")
    folder = Path(str(output)).name or str(output) if output else "no folder"
    if folder in (".", ".."):
        folder = Path(str(output)).resolve().name
    return f"{shown(folder)[:_MOST_CHARACTERS]}, {when:%Y-%m-%d %H:%M}"
