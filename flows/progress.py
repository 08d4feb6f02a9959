"""Who is told how a run goes: the command line's bars, or nobody.

One listener for a process at a time; calls come from several threads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from flows.jobs import Outcome


class Listener(Protocol):
    """What a run tells while it goes."""

    def said(self, line: str) -> None:
        """One line for the operator."""

    def planned(self, scan: str, tiles: int, megapixels: float, lot: str) -> None:
        """A scan will be coloured: its tiles to predict, its size, and the lot that it is coloured with."""

    def predicted(self, scan: str, tiles: int) -> None:
        """So many more tiles of a scan are done."""

    def finished(self, outcome: Outcome) -> None:
        """A scan is done, skipped, failed or stopped."""


class _Silent:
    def said(self, line: str) -> None:
        pass

    def planned(self, scan: str, tiles: int, megapixels: float, lot: str) -> None:
        pass

    def predicted(self, scan: str, tiles: int) -> None:
        pass

    def finished(self, outcome: Outcome) -> None:
        pass


_current: list[Listener] = [_Silent()]


def listener() -> Listener:
    """The one to tell."""
    return _current[-1]


@contextlib.contextmanager
def listening(new: Listener) -> Iterator[None]:
    """Make ``new`` the one to tell, for the body."""
    _current.append(new)
    try:
        yield
    finally:
        _current.remove(new)
