"""Where the stages of a run are run, and who looks on: threads of this process and nobody (:data:`HERE`), or Prefect
(:mod:`flows.orchestration.colorize`).

It imports no cluster: a run in which nothing is due needs none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from flows.outcome import ScanOutcome

if TYPE_CHECKING:
    from flows.cluster.queue import BlockQueue
    from flows.run.jobs import RunContext
    from flows.run.stage_threads import Submit


class Page(Protocol):
    """Shows a run to people elsewhere."""

    def show_results(
        self, outcomes: Sequence[ScanOutcome], state: str, record: Path, seconds: float, notes: Sequence[str] = ()
    ) -> None: ...


class Host(Protocol):
    """Where the stages of a run are run, and who follows it there."""

    @property
    def stops(self) -> tuple[type[BaseException], ...]:
        """What is raised in a run that is to end at once."""
        ...

    def begin(self) -> None:
        """Tidy up what earlier runs left there."""
        ...

    def following(self, output: Path) -> AbstractContextManager[Page | None]:
        """Show the run in the body; yields None if nobody looks on."""
        ...

    def stages(self, queue: BlockQueue, topic: str, context: RunContext) -> AbstractContextManager[Submit]:
        """What runs the stages of batches."""
        ...

    def break_off(self) -> None:
        """Close what the run leaves open, which is being stopped."""
        ...


@dataclass(frozen=True)
class _Here:
    """This process alone."""

    stops: tuple[type[BaseException], ...] = (KeyboardInterrupt,)

    def begin(self) -> None:
        pass

    def following(self, output: Path) -> AbstractContextManager[Page | None]:
        return contextlib.nullcontext()

    def stages(self, queue: BlockQueue, topic: str, context: RunContext) -> AbstractContextManager[Submit]:
        from flows.run.stage_threads import stage_threads

        return stage_threads(queue, topic)

    def break_off(self) -> None:
        pass


HERE: Host = _Here()
