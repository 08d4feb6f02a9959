"""The outcome of a scan, and the names of some final states of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.quality.figures import Quality

# Final states of a run that other code has to recognize; flows.orchestration.states has all of them.
CANCELLED, BROKE_OFF, KILLED = "Cancelled", "Broke off", "killed"

Status = Literal["done", "skipped", "failed", "quarantined", "stopped"]
# Why a scan failed. damaged: parts of the file are readable; scan: other errors of the file; disk: also its network;
# cluster: workers or scheduler went away; killed: a block killed its workers; busy: another process works on the store;
# policy: a rule of the folder's policy forbids it.
FailureKind = Literal[
    "", "damaged", "scan", "disk", "request", "memory", "cluster", "killed", "busy", "result", "policy", "unforeseen"
]


@dataclass(frozen=True)
class ScanOutcome:
    """The outcome of one scan. ``message`` is one line; ``seconds`` is by stage; ``warnings`` are one line each.

    A ``stopped`` scan was ended by the deadline or a cancellation, and the next run resumes it; a ``quarantined`` scan
    failed once too often, and later runs leave it out. ``is_scans_fault`` is True for failures that the same scan would
    meet again, and False for those of the disk, the cluster or the options, which do not count against it.
    ``retry_after`` (ISO 8601, UTC) is when a run tries the scan again after ``failures`` in a row; ``failure_kind`` is
    why it failed; ``file_bytes`` and ``file_modified_ns`` are those of the failed file. ``version`` is the version of
    colours that was made, and ``difference`` its difference to the previous one, if they were compared.
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
        """True if the scan failed in this run."""
        return self.status in ("failed", "quarantined")

    @property
    def is_left_out(self) -> bool:
        """True if this run did not try the scan, because of failures in earlier runs."""
        return self.status == "skipped" and not self.result and not self.is_forbidden

    @property
    def is_forbidden(self) -> bool:
        """True if a rule of the folder's policy forbids to colour the scan."""
        return self.failure_kind == "policy"

    def to_json(self) -> dict[str, Any]:
        quality = self.quality.to_json() if self.quality else None
        return {
            **vars(self),
            "megapixels": round(self.megapixels, 3),
            "seconds": dict(self.seconds),
            "quality": quality,
            "warnings": list(self.warnings),
        }
