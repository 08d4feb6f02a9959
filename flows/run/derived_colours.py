"""Steps of a batch whose colours are made from those that are there, by a grade or by hints: no network is asked."""

from __future__ import annotations

from collections.abc import Iterator

from flows.cluster.grade_factors import FactorTask
from flows.cluster.hint_blocks import HintTask, SpreadTask
from flows.events import Message, tell
from flows.run.batches import ScanProgress
from flows.run.colouring import Colouring
from flows.run.grade_tasks import factor_tasks
from flows.run.hint_tasks import hint_groups, spread_tasks


def find_factors(colouring: Colouring) -> None:
    """The factor of every scan that is to reach a colourfulness; all its blocks need it."""
    tasks: list[FactorTask] = []

    def work(step: ScanProgress) -> None:
        if colouring.is_graded(step):
            tasks.extend(factor_tasks(step.job, colouring.version(step)))

    def say(step: ScanProgress) -> None:
        if colouring.is_graded(step) and (factor := colouring.version(step).factor) is not None:
            tell(Message(f"{step.job.scan.stem}: chroma times {factor:.2f} for {step.job.spec.grade}", "factor"))

    colouring.each(work)
    colouring.collect(colouring.queue.factors((task,) for task in tasks))
    colouring.each(say)


def spread_hints(colouring: Colouring) -> None:
    """The look at every scan that has hints; all its blocks need it."""
    tasks: list[SpreadTask] = []

    def work(step: ScanProgress) -> None:
        if colouring.is_hinted(step):
            tasks.extend(spread_tasks(step.job, colouring.version(step)))

    colouring.each(work)
    colouring.collect(colouring.queue.spreads((task,) for task in tasks))


def make_hints(colouring: Colouring) -> None:
    """Every block that is missing of colours that hints correct."""

    def groups() -> Iterator[tuple[HintTask, ...]]:
        for step in colouring.working():
            if colouring.is_hinted(step):
                opened = colouring.opened(step)
                yield from hint_groups(step.job, opened.version, opened.finished, colouring.topic)

    colouring.follow(colouring.queue.hints(groups()))
