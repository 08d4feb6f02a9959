"""What reprocessing changed: each new version of a scan's colours against the version that it replaced."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from flows.events import Message, tell, warn
from flows.outcome import ScanOutcome
from flows.run.compare import compare
from flows.run.jobs import ScanJob
from pipeline.results.sidecar import version_of
from pipeline.results.versions import ResultPaths
from pipeline.store import ScanStore

# Pixels compared per scan: more change mean and 95 % only in the second decimal, and delay the next scan.
_COMPARED_PX = 1_000_000
_log = logging.getLogger(__name__)


class Changed:
    """Compares the scans of a run as they finish, if their previous version is still kept."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self._before: dict[str, str] = {}

    def noting(self, planned: list[ScanJob | ScanOutcome]) -> list[ScanJob | ScanOutcome]:
        """Remember the current version of each planned scan; returns ``planned`` unchanged."""
        for job in planned:
            before = version_of(job.paths.sidecar) if isinstance(job, ScanJob) else None
            if before is not None and isinstance(job, ScanJob):
                self._before[job.scan.stem] = before
        return planned

    def told(self, outcome: ScanOutcome) -> ScanOutcome:
        """The outcome with the difference to the previous version, which the operator gets as a line too."""
        if outcome.status != "done" or outcome.scan not in self._before:
            return outcome
        try:
            found = self._difference(outcome.scan)
        except Exception as error:  # a failed comparison does not undo a finished scan
            _log.warning("%s: not compared with the version before", outcome.scan, exc_info=True)
            warn(f"{outcome.scan}: not compared with the version before ({error})")
            return outcome
        if found is None:
            return outcome
        every = "" if found["step_px"] == 1 else f", every {found['step_px']}th pixel and row"
        figures = f"CIEDE2000 {found['mean']:.2f} on average, {found['p95']:.2f} at 95 %{every}"
        tell(Message(f"{outcome.scan}: {figures}; {found['before']} -> {found['after']}", "changed"))
        return replace(outcome, difference=found)

    def _difference(self, stem: str) -> dict[str, Any] | None:
        """Mean and 95 % of CIEDE2000; None if the version did not change, or the previous one was not kept."""
        paths = ResultPaths.of(self._output, stem)
        store, before, after = ScanStore.open(paths.store), self._before[stem], version_of(paths.sidecar)
        if after is None or before == after or not {before, after} <= set(store.version_names()):
            return None
        found = compare(store, store.version(before), store.version(after), _COMPARED_PX)
        figures = {"mean": round(found.mean, 4), "p95": round(found.p95, 4), "step_px": found.step_px}
        return {"before": before, "after": after, **figures}
