"""Pool several people's answers to one quiz.

There are two figures for each kind of picture: the share of all answers that took it for real, with Wilson's 95 %
interval; and the mean of each person's share, in which each person counts once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import DataError

_Z = 1.959964  # normal quantile of the 95 % interval

REAL = "real"


@dataclass(frozen=True)
class Kind:
    """Answers for one kind of picture: in its own colours (``real``), or in a model's.

    Attributes
    ----------
    taken : number of answers "real";  shown : number of all answers
    people_mean : mean over the people of each person's share of "real"
    """

    name: str
    taken: int
    shown: int
    people_mean: float

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's interval of the share of all answers (Journal of the American Statistical Association 22, 1927)."""
        share, n, z = self.taken / self.shown, self.shown, _Z
        middle, scale = share + z * z / (2 * n), 1 + z * z / n
        half = z * ((share * (1 - share) + z * z / (4 * n)) / n) ** 0.5
        return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


@dataclass(frozen=True)
class Pooled:
    """The pooled answers to one quiz."""

    people: int
    right: int
    answers: int
    kinds: tuple[Kind, ...]

    @property
    def caption(self) -> str:
        return (
            f"{self.people} {'people' if self.people > 1 else 'person'}, {self.answers} answers, "
            f"{100 * self.right / self.answers:.0f} % of them right"
        )

    def to_json(self) -> dict[str, Any]:
        """All figures; shares and intervals are 0 to 1."""
        kinds = [
            {
                "colours": kind.name,
                "taken_for_real": kind.taken,
                "answers": kind.shown,
                "interval": list(kind.interval),
                "people_mean": kind.people_mean,
            }
            for kind in self.kinds
        ]
        return {"people": self.people, "answers": self.answers, "right": self.right, "kinds": kinds}

    def cells(self) -> list[list[str]]:
        """The cells of a table, its head first."""
        lines = [["colours", "taken for real, all answers", "95 % interval", "mean over people"]]
        for kind in self.kinds:
            low, high = kind.interval
            share = f"{kind.taken} of {kind.shown} ({100 * kind.taken / kind.shown:.0f} %)"
            lines.append(
                [kind.name, share, f"{100 * low:.0f} to {100 * high:.0f} %", f"{100 * kind.people_mean:.0f} %"]
            )
        return lines


def pooled(folder: Path) -> Pooled:
    """Pool the results that people saved (``quiz-*.json``) in ``folder``; all must be of the same quiz.

    Raises
    ------
    DataError : no results, a file that is not a result of a quiz, or results of different quizzes.
    """
    paths = sorted(folder.glob("*.json"))
    results = [_read(path) for path in paths]
    if not results:
        raise DataError(f"{folder}: no saved results of a quiz (*.json); give the folder that they were saved in")
    quizzes = {result["quiz"]: path for path, result in zip(paths, results, strict=True)}
    if len(quizzes) > 1:
        first, second = list(quizzes.values())[:2]
        raise DataError(f"{first.name} and {second.name} answer different quizzes; pool those of one")
    people = [result["answers"] for result in results]
    names = sorted({answer["model"] or "" for answers in people for answer in answers})
    kinds = tuple(_kind(name or None, people) for name in names)
    right = sum(bool(answer["right"]) for answers in people for answer in answers)
    return Pooled(len(people), right, sum(map(len, people)), kinds)


def _read(path: Path) -> dict:
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        if not result["answers"] or not all({"model", "said", "right"} <= set(each) for each in result["answers"]):
            raise ValueError("no answers")
        _ = result["quiz"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a saved result of a quiz; remove it") from error
    return dict(result)


def _kind(model: str | None, people: Sequence[list[dict]]) -> Kind:
    own = [[answer["said"] == REAL for answer in answers if answer["model"] == model] for answers in people]
    own = [said for said in own if said]
    shares = [sum(said) / len(said) for said in own]
    return Kind(model or REAL, sum(map(sum, own)), sum(map(len, own)), sum(shares) / len(shares))
