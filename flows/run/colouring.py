"""A batch on the cluster: its versions, and what has become of its scans so far.

What is done to it, step by step, are functions of their own: :mod:`flows.run.predicted_colours` asks networks,
:mod:`flows.run.derived_colours` makes colours from those that are there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from flows.cluster.queue import BlockQueue
from flows.cluster.worker import BlockDone, BlockFailed
from flows.deadline import Deadline
from flows.events import StageBegan, tell
from flows.outcome import ScanOutcome
from flows.run.batches import ScanBatch, ScanProgress
from flows.run.grade_tasks import begin_grade
from flows.run.hint_tasks import begin_hints
from flows.run.jobs import ScanJob
from flows.run.opened_version import Opened, open_version
from pipeline.quality.score import measure
from pipeline.store import ChromaVersion, ScanStore

Results = Iterable[list[BlockDone | BlockFailed]]


class Colouring:
    """A batch that is being coloured.

    Attributes
    ----------
    steps : how far each scan is, by its name
    queue : where work for the cluster goes
    topic : on which workers tell of their tiles
    """

    def __init__(self, batch: ScanBatch, queue: BlockQueue, topic: str, deadline: Deadline) -> None:
        self.steps = {step.job.scan.stem: step for step in batch}
        self.queue = queue
        self.topic = topic
        self._deadline = deadline
        self._missing: dict[str, int] = {}
        self._opened: dict[str, Opened] = {}
        self.predictions = sum(step.job.plan.predictions for step in batch)

    def working(self) -> list[ScanProgress]:
        """The scans that have not ended."""
        return [step for step in self.steps.values() if step.ended is None]

    def opened(self, step: ScanProgress) -> Opened:
        """The version that a scan gets, and which of its blocks are there."""
        return self._opened[step.job.scan.stem]

    def version(self, step: ScanProgress) -> ChromaVersion:
        return self.opened(step).version

    def is_graded(self, step: ScanProgress) -> bool:
        """Whether the scan has blocks to make of colours that are there."""
        return step.job.spec.grade is not None and not self.opened(step).is_whole

    def is_hinted(self, step: ScanProgress) -> bool:
        """Whether the scan has blocks to make of colours that hints correct."""
        return step.job.spec.is_hinted and not self.opened(step).is_whole

    def each(self, work: Callable[[ScanProgress], None]) -> None:
        """Do ``work`` for every scan that has not ended; what it raises is that scan's failure."""
        for step in self.working():
            try:
                work(step)
            except Exception as error:
                self.fail(step.job.scan.stem, error)

    def fail(self, stem: str, error: BaseException) -> None:
        """A scan ends by an error."""
        self.steps[stem] = self.steps[stem].ended_by(error, self._deadline)

    def end(self, stem: str, outcome: ScanOutcome) -> None:
        """A scan ends with an outcome that is known already."""
        self.steps[stem] = replace(self.steps[stem], ended=outcome)

    def open_versions(self) -> None:
        """Begin every scan's version, or go on with it."""

        def work(step: ScanProgress) -> None:
            tell(StageBegan(step.job.scan.stem, "colouring"))
            self.begin(step, step.job)
            if self.is_graded(step):
                begin_grade(step.job, self.version(step))
            if self.is_hinted(step):
                begin_hints(step.job, self.version(step))

        self.each(work)

    def begin(self, step: ScanProgress, job: ScanJob) -> None:
        """Open the version of ``job``, which is now the scan's."""
        stem = job.scan.stem
        self._opened[stem] = opened = open_version(job)
        self.steps[stem] = replace(step, job=job, blocks_there=len(opened.finished))
        self.expect(stem, job.plan.blocks - len(opened.finished))

    def expect(self, stem: str, blocks: int) -> None:
        """So many blocks of a scan are to be made next."""
        self._missing[stem] = blocks

    def collect(self, results: Results) -> None:
        """Wait for results, and keep what they come to."""
        for result in (result for batch in results for result in batch):
            step = self.steps[result.scan]
            if isinstance(result, BlockFailed) and step.ended is None:
                self.fail(result.scan, result.error)
            if isinstance(result, BlockDone):
                self.steps[result.scan] = replace(step, tiles=step.tiles + result.tiles)

    def follow(self, results: Results) -> None:
        """Collect what blocks come to; what the deadline has left is stopped."""
        self.collect(self._counted(results))
        if self._deadline.is_over:
            for stem, missing in self._missing.items():
                if missing and self.steps[stem].ended is None:
                    self.steps[stem] = self.steps[stem].stopped(self._deadline, missing)

    def _counted(self, results: Results) -> Iterator[list[BlockDone | BlockFailed]]:
        """The results unchanged, with each finished block subtracted from the missing ones."""
        for batch in results:
            for result in batch:
                if isinstance(result, BlockDone):
                    self._missing[result.scan] -= 1
            yield batch

    def finish(self) -> None:
        """Mark the versions complete, and measure them."""

        def work(step: ScanProgress) -> None:
            job, version = step.job, self.version(step)
            version.finish()
            quality = measure(ScanStore.open(job.paths.store), version, job.grid, job.spec.quality)
            self.steps[job.scan.stem] = replace(step, quality=quality)

        self.each(work)
