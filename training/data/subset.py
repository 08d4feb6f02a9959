"""The part of a collection that a recipe asks for: some folders, and a number of their pictures drawn by a seed."""

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
    pictures : largest number of pictures, both halves together; None is all
    folders : names or patterns of folders, one of which must contain the picture at some level; empty is any
    licences : "clean" leaves out pictures whose licence is unknown or allows research only
    seed : seed of the drawing. A picture's rank depends on seed and name alone, so that few of the drawn pictures
        change when the collection grows.
    """

    pictures: int | None = None
    folders: tuple[str, ...] = ()
    seed: int = 0
    licences: str = "all"

    @classmethod
    def of(cls, recipe: Recipe) -> Subset:
        """The subset that ``recipe`` asks for."""
        return cls(recipe.pictures, recipe.folders, recipe.pictures_seed, recipe.licences)

    @property
    def is_whole(self) -> bool:
        return self.pictures is None and not self.folders

    def refusal(self, photograph: Photograph) -> str | None:
        """Why a picture in the chosen folders is left out; None if it is not."""
        if self.licences == "all" or photograph.is_free:
            return None
        return "its licence allows research only, or is not known"

    def drawn(self, names: Sequence[str]) -> list[int]:
        """Indices of the ``names`` (paths within the collection) in the chosen folders, in the order of drawing."""
        inside = [index for index, name in enumerate(names) if self._admits(name)]
        if self.pictures is None:
            return inside
        return sorted(inside, key=lambda index: hashlib.sha256(f"{self.seed}\t{names[index]}".encode()).digest())

    def _admits(self, name: str) -> bool:
        above = PurePosixPath(name).parts[:-1]
        return not self.folders or any(fnmatchcase(part, pattern) for part in above for pattern in self.folders)

    def refuse_empty(self, data: Path, names: Sequence[str], chosen: Sequence[int]) -> None:
        """Raise DataError if no folder of the collection has a requested name."""
        if names and not chosen:
            known = sorted({part for name in names for part in PurePosixPath(name).parts[:-1]})
            listed = ", ".join(known[:20]) + (" ..." if len(known) > 20 else "")
            raise DataError(
                f"{data}: folders {', '.join(self.folders)}: none of its {len(names)} pictures lies in such a folder; "
                f"change folders, there {'are' if known else 'are none'} {listed}".rstrip()
            )

    def room(self, has_own_halves: bool) -> Room:
        """The number of pictures to draw, which a collection's own halves share 80 to 20."""
        if self.pictures is None:
            return Room(None, None)
        if has_own_halves:
            test = max(1, self.pictures // _TEST_OF)
            return Room(None, {False: self.pictures - test, True: test})
        return Room(self.pictures, None)

    def describe(self, of: int) -> dict[str, Any]:
        """The record of the drawing from ``of`` pictures, for the record of a run."""
        return {"pictures": self.pictures, "folders": list(self.folders), "seed": self.seed, "drawn_from": of}


class Room:
    """The number of pictures left to draw, in all or for each half."""

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
