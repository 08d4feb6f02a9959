"""The events of a run as values, and their listener: the command line's bars, Prefect's page, or nobody.

A process has one listener at a time; events come from several threads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from flows.outcome import ScanOutcome

_LABEL_WIDTH = 8


@dataclass(frozen=True)
class Message:
    """One line for the operator; ``is_warning`` if something is wrong.

    ``label`` is the word that the line begins with, such as ``waiting``; ``brief`` is what a terminal shows instead of
    ``text`` unless somebody wants to know why.
    """

    text: str
    label: str = ""
    is_warning: bool = False
    brief: str = ""

    @classmethod
    def warning(cls, text: str, label: str = "warning") -> Message:
        """A message that says that something is wrong."""
        return cls(text, label, is_warning=True)

    @property
    def line(self) -> str:
        """The text, after the label in a column of its own."""
        return f"{self.label:<{_LABEL_WIDTH}} {self.text}" if self.label else self.text


@dataclass(frozen=True)
class ScanPlanned:
    """A scan will be coloured: its tiles to predict, its size, and the batch of scans that it is coloured with."""

    scan: str
    tiles: int
    megapixels: float
    batch: str


@dataclass(frozen=True)
class StageBegan:
    """A stage of a scan has begun."""

    scan: str
    stage: Literal["reading", "colouring", "writing"]


@dataclass(frozen=True)
class TilesDone:
    """``tiles`` more tiles of a scan are done; they are not ``are_new`` if they were there before the run."""

    scan: str
    tiles: int
    are_new: bool = True


@dataclass(frozen=True)
class ScanFinished:
    """A scan is done, skipped, failed or stopped."""

    outcome: ScanOutcome


RunEvent = Message | ScanPlanned | StageBegan | TilesDone | ScanFinished


class Listener(Protocol):
    """Receives the events of a run."""

    def on(self, event: RunEvent) -> None: ...


class _Silent:
    def on(self, event: RunEvent) -> None:
        pass


_listeners: list[Listener] = [_Silent()]


def listener() -> Listener:
    """The current listener."""
    return _listeners[-1]


def tell(event: RunEvent) -> None:
    """Send ``event`` to the current listener."""
    listener().on(event)


def warn(text: str, label: str = "warning") -> None:
    """Send a warning to the current listener."""
    tell(Message.warning(text, label))


@contextlib.contextmanager
def listening(new: Listener) -> Iterator[None]:
    """Make ``new`` the current listener for the body."""
    _listeners.append(new)
    try:
        yield
    finally:
        _listeners.remove(new)
