"""The part of a collection that a recipe asks for: some of its folders, and a number of their pictures by a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from training.config import Recipe
from training.data.files import Photograph
from training.errors import DataError

_TEST_OF = 5


@dataclass(frozen=True)
class Subset:
    """A part of a collection; by default the whole.

    Attributes
    ----------
    pictures : at most so many, both halves together; None is all
    folders : names of folders, or patterns of them, of which one must be above a picture; empty is any
    licences : "clean" leaves out those whose licence allows research only or is not known
    seed : of the drawing. A picture's place in it depends on its name alone, so that few of the drawn pictures change
        when the collection grows.
    """

    pictures: int | None = None
    folders: tuple[str, ...] = ()
    seed: int = 0
    licences: str = "all"

    @classmethod
    def of(cls, recipe: Recipe) -> Subset:
        """What ``recipe`` asks for."""
        return cls(recipe.pictures, recipe.folders, recipe.pictures_seed, recipe.licences)

    @property
    def is_whole(self) -> bool:
        return self.pictures is None and not self.folders

    def refusal(self, photograph: Photograph) -> str | None:
        """Why a picture of its folders is not wanted; None where it is."""
        if self.licences == "all" or photograph.is_free:
            return None
        return "its licence allows research only, or is not known"

    def drawn(self, names: Sequence[str]) -> list[int]:
        """Indices of the ``names`` (paths within the collection) that lie in its folders, in the order of drawing."""
        inside = [index for index, name in enumerate(names) if self._admits(name)]
        if self.pictures is None:
            return inside
        return sorted(inside, key=lambda index: hashlib.sha256(f"{self.seed}\t{names[index]}".encode()).digest())

    def _admits(self, name: str) -> bool:
        above = PurePosixPath(name).parts[:-1]
        return not self.folders or any(fnmatchcase(part, pattern) for part in above for pattern in self.folders)

    def refuse_empty(self, data: Path, names: Sequence[str], chosen: Sequence[int]) -> None:
        """Raises DataError where no folder of the collection has a name that is asked for."""
        if names and not chosen:
            known = sorted({part for name in names for part in PurePosixPath(name).parts[:-1]})
            listed = ", ".join(known[:20]) + (" ..." if len(known) > 20 else "")
            raise DataError(
                f"{data}: folders {', '.join(self.folders)}: none of its {len(names)} pictures lies in such a folder; "
                f"change folders, there {'are' if known else 'are none'} {listed}".rstrip()
            )

    def room(self, has_own_halves: bool) -> Room:
        """How many more pictures each half takes: a collection's own halves are drawn from 80 to 20."""
        if self.pictures is None:
            return Room(None, None)
        if has_own_halves:
            test = max(1, self.pictures // _TEST_OF)
            return Room(None, {False: self.pictures - test, True: test})
        return Room(self.pictures, None)

    def describe(self, of: int) -> dict[str, Any]:
        """For the record of a run: what was drawn from ``of`` pictures."""
        return {"pictures": self.pictures, "folders": list(self.folders), "seed": self.seed, "drawn_from": of}


class Room:
    """What is left to draw: of all together, or of each half."""

    def __init__(self, total: int | None, halves: dict[bool, int] | None) -> None:
        self._total, self._halves = total, halves

    @property
    def is_full(self) -> bool:
        return self._total == 0 or (self._halves is not None and not any(self._halves.values()))

    def take(self, test: bool) -> bool:
        """Take one picture of a half, if there is room for it."""
        if self._halves is not None:
            if not self._halves[test]:
                return False
            self._halves[test] -= 1
        elif self._total is not None:
            if not self._total:
                return False
            self._total -= 1
        return True
