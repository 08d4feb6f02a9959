"""When training stops early: after a number of evaluations in a row that were no better than the best before them.

Prechelt, "Early Stopping - But When?" (1998), counts rises in a row (UP); here the best is what counts, so that a run
whose loss goes up and down around the same value ends, too.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass
class Patience:
    """The best evaluation so far, and how many there were since.

    Attributes
    ----------
    evaluations : after how many without a better one training stops; None never
    best : the lowest loss on pictures that are not learnt from
    best_step : steps that were done at it
    since : evaluations since then
    phases : of the training; losses of a last phase with other aims do not compare
    """

    evaluations: int | None
    best: float = math.inf
    best_step: int = 0
    since: int = 0
    phases: int = 1

    @classmethod
    def of(cls, evaluations: int | None, state: dict[str, Any] | None, phases: int = 1) -> Self:
        """Go on from what :meth:`state` of an earlier run said; the number of evaluations may have been changed.

        Where phases were added, nothing is known yet of the last one.
        """
        known = (state or {}).get("patience") or {}
        if known.get("phases", phases) != phases:
            known = {}
        known["phases"] = phases
        return cls(**{**known, "evaluations": evaluations})

    def judge(self, step: int, loss: float) -> bool:
        """True if ``loss``, after ``step`` steps, is the best so far."""
        if loss < self.best:
            self.best, self.best_step, self.since = loss, step, 0
            return True
        self.since += 1
        return False

    @property
    def is_over(self) -> bool:
        return self.evaluations is not None and self.since >= self.evaluations

    @property
    def reason(self) -> str:
        """Why training stops, for people.

        >>> Patience(3, 0.0512, 400, 3).reason
        'no evaluation of the last 3 was better than 0.0512, at step 400'
        """
        return f"no evaluation of the last {self.since} was better than {self.best:.4g}, at step {self.best_step}"

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"patience": asdict(self)}

    def record(self, step: int) -> dict[str, Any]:
        """For the model's card: what was kept of a run that came to ``step``."""
        best = round(self.best, 6) if math.isfinite(self.best) else None
        kept = {"patience": self.evaluations, "best_step": self.best_step, "best_validation": best}
        return {**kept, "stopped_at_step": step if self.is_over else None}
