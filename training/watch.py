"""What a training run is doing at this moment, in one line that is said again and again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

# Reading a loss waits for the device.
_SAID_SECONDS = 1.0
Show = Callable[[str], None]


def unwatched(_: str) -> None:
    """Nobody looks."""


class Watch:
    """Tells ``show`` of steps, from the first one on and then once a second, and of what is done between them.

    ``clock`` gives seconds.
    """

    def __init__(self, show: Show, clock: Callable[[], float] = time.monotonic) -> None:
        self._show, self._clock = show, clock
        self._began: float | None = None
        self._said = -_SAID_SECONDS
        self._steps, self._pictures = 0, 0
        self._loss = ""

    def doing(self, what: str) -> None:
        """Something other than a step begins."""
        self._show(what)

    def stepped(self, step: int, total_steps: int, pictures: int, means: Callable[[], Mapping[str, float]]) -> None:
        """A step of ``pictures`` is done; ``means`` are the losses, and are asked for only if they are shown."""
        now = self._clock()
        if self._began is None:
            self._began = now  # the first step has what is done once
        else:
            self._steps, self._pictures = self._steps + 1, self._pictures + pictures
        if self._show is unwatched or now - self._said < _SAID_SECONDS:
            return
        self._said = now
        self._loss = next((f"{name} {value:.4g}" for name, value in means().items()), self._loss)
        parts = [f"step {step}/{total_steps}", *([self._loss] if self._loss else [])]
        if self._steps and (seconds := now - self._began) > 0:
            left = round(seconds / self._steps * (total_steps - step))
            time_left = f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
            parts += [f"{self._pictures / seconds:.1f} pictures/s", time_left]
        self._show(", ".join(parts))
