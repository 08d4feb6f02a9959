"""What a run tells while it goes, as values, and who is told: the command line's bars, Prefect's page, or nobody.

One listener for a process at a time; events come from several threads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from flows.outcome import ScanOutcome

_LABEL_WIDTH = 8


@dataclass(frozen=True)
class Message:
    """One line for the operator; ``is_warning`` where something is not as it should be.

    ``label`` is the word that the line begins with, such as ``waiting``.
    """

    text: str
    label: str = ""
    is_warning: bool = False

    @classmethod
    def warning(cls, text: str, label: str = "warning") -> Message:
        """Of something that is not as it should be."""
        return cls(text, label, is_warning=True)

    @property
    def line(self) -> str:
        """With the label in a column of its own."""
        return f"{self.label:<{_LABEL_WIDTH}} {self.text}" if self.label else self.text


@dataclass(frozen=True)
class ScanPlanned:
    """A scan will be coloured: its tiles to predict, its size, and the batch of scans that it is coloured with."""

    scan: str
    tiles: int
    megapixels: float
    batch: str


@dataclass(frozen=True)
class TilesDone:
    """So many more tiles of a scan are done."""

    scan: str
    tiles: int


@dataclass(frozen=True)
class ScanFinished:
    """A scan is done, skipped, failed or stopped."""

    outcome: ScanOutcome


RunEvent = Message | ScanPlanned | TilesDone | ScanFinished


class Listener(Protocol):
    """Takes the events of a run."""

    def on(self, event: RunEvent) -> None: ...


class _Silent:
    def on(self, event: RunEvent) -> None:
        pass


_listeners: list[Listener] = [_Silent()]


def listener() -> Listener:
    """The one that is told now."""
    return _listeners[-1]


def tell(event: RunEvent) -> None:
    """Give ``event`` to the listener."""
    listener().on(event)


def warn(text: str, label: str = "warning") -> None:
    """Give the listener a warning."""
    tell(Message.warning(text, label))


@contextlib.contextmanager
def listening(new: Listener) -> Iterator[None]:
    """Make ``new`` the listener, for the body."""
    _listeners.append(new)
    try:
        yield
    finally:
        _listeners.remove(new)
