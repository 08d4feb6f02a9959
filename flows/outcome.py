"""What became of a scan, and the names of the states that a run ends in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.quality.score import Quality

# How a run ended, where somebody has to tell runs apart later: see flows.orchestration.states for all of them.
CANCELLED, BROKE_OFF, KILLED = "Cancelled", "Broke off", "killed"

Status = Literal["done", "skipped", "failed", "quarantined", "stopped"]
# Why a scan failed: the file (damaged: some of it can be read), the disk or its network, the request, memory, workers
# or a scheduler that went away, a block that killed its workers, another worker's hand, a result, or nobody knows.
FailureKind = Literal[
    "", "damaged", "scan", "disk", "request", "memory", "cluster", "killed", "busy", "result", "unforeseen"
]


@dataclass(frozen=True)
class ScanOutcome:
    """What became of one scan. ``message`` is one line; ``seconds`` by stage; ``warnings`` one line each.

    ``stopped`` is one that the deadline or a cancellation ended, to go on with; ``quarantined`` one that failed once
    too often, and later runs leave out. ``is_scans_fault`` tells a failure that the same scan would meet again from one
    of the disk, the cluster or the options, which is not counted against it; ``retry_after`` (ISO 8601, UTC) is when a
    run tries it again, after so many ``failures`` in a row; ``failure_kind`` is why it failed; ``file_bytes`` and
    ``file_modified_ns`` are of the file at fault. ``version`` is that of
    the scan's colours that was made, and ``difference`` what is other in it than in the one before, where they were
    compared.
    """

    scan: str
    path: str
    status: Status
    message: str
    megapixels: float = 0.0
    tiles: int = 0
    result: str = ""
    seconds: tuple[tuple[str, float], ...] = ()
    quality: Quality | None = None
    version: str = ""
    warnings: tuple[str, ...] = ()
    is_scans_fault: bool = False
    failure_kind: FailureKind = ""
    failures: int = 0
    retry_after: str = ""
    file_bytes: int = 0
    file_modified_ns: int = 0
    page: int = 1
    difference: Mapping[str, Any] | None = None

    @property
    def has_failed(self) -> bool:
        """In this run."""
        return self.status in ("failed", "quarantined")

    @property
    def is_left_out(self) -> bool:
        """Not tried in this run, because of failures in earlier ones."""
        return self.status == "skipped" and not self.result

    def to_json(self) -> dict[str, Any]:
        quality = self.quality.to_json() if self.quality else None
        return {
            **vars(self),
            "megapixels": round(self.megapixels, 3),
            "seconds": dict(self.seconds),
            "quality": quality,
            "warnings": list(self.warnings),
        }
