"""Names of the windows that weight a tile's pixels, which can be checked without numbers."""

from __future__ import annotations

from pipeline.errors import UsageError

NAMES = ("average", "hann", "triangle", "gaussian")


def check_window(name: str) -> None:
    """Raises UsageError if no window of :mod:`pipeline.tiling.weights` has this name."""
    if name not in NAMES:
        raise UsageError(
            f"unknown window {name!r}: overlaps could not be weighted; give one of {', '.join(NAMES)}", "window"
        )
