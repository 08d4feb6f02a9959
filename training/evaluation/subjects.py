"""The pictures to measure: those that training held out, by the same split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data import Pictures, Subset, find_photographs, open_collection, read_rgb
from training.data.arrays import find_arrays
from training.data.files import files_under
from training.errors import DataError

U8 = NDArray[np.uint8]
T = TypeVar("T")


@dataclass(frozen=True)
class Subject:
    """A picture: its name within the folder, the photograph it was cut from, and its (H, W, 3) RGB on demand.

    ``source`` is the collection that a manifest names for it.
    """

    name: str
    group: str
    read: Callable[[], U8 | None] = field(compare=False, repr=False)
    source: str = ""


@dataclass(frozen=True)
class Subjects:
    """The pictures to measure, and those from which a model could have learnt the mean tint.

    Attributes
    ----------
    left_out : number of pictures of the whole folder already found unfit
    data_sha256 : the collection's hash as in model cards; None if its split was not used
    """

    measured: Sequence[Subject]
    learnt: Sequence[Subject]
    left_out: int = 0
    data_sha256: str | None = None


def find_subjects(data: Path, everything: bool, subset: Subset | None = None) -> Subjects:
    """The pictures that training holds out, or all, from a folder of any layout that training reads.

    With a ``subset``, the fifth held out from that part.

    Raises
    ------
    DataError : no pictures, or a half is empty.
    """
    if everything and not find_arrays(data, files_under(data)):
        # All means all: also pictures beside a collection's own halves, and a single picture, which has no halves.
        photographs = find_photographs(data)
        names = [p.path.relative_to(data).as_posix() for p in photographs]
        found = [
            Subject(n, p.group, partial(read_rgb, p.path), p.source) for n, p in zip(names, photographs, strict=True)
        ]
        return Subjects(found, found)
    collection = open_collection(data, 0, subset or Subset())  # no cache, because each picture is read once
    train, test = _of(collection.train), _of(collection.test)
    left_out = sum(left.pictures for left in collection.left_out)
    if everything:
        return Subjects([*train, *test], [*train, *test], left_out, collection.sha256)
    return Subjects(test, train, left_out, collection.sha256)


def collection_sha256(data: Path) -> str | None:
    """The hash by which model cards name the collection ``data``; None if it is not a collection. Reads every file."""
    try:
        return open_collection(data, cache_bytes=0).sha256
    except DataError:
        return None


def _of(pictures: Pictures) -> list[Subject]:
    named = zip(pictures.names, pictures.photographs, strict=True)
    return [Subject(name, p.group, partial(_rgb, pictures, i), p.source) for i, (name, p) in enumerate(named)]


def _rgb(pictures: Pictures, index: int) -> U8:
    pixels, space = pictures.read(index)
    return pixels if space == "rgb" else cv2.cvtColor(pixels, cv2.COLOR_Lab2RGB)


def spread(items: Sequence[T], count: int | None) -> list[T]:
    """At most ``count`` items at even distances: the first ones of a sorted listing would all come from one folder.

    >>> spread(list(range(10)), 4)
    [0, 2, 5, 7]
    """
    if count is None or count >= len(items):
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]


def one_a_photograph(subjects: Sequence[Subject]) -> list[Subject]:
    """The first picture of each photograph."""
    return list({subject.group: subject for subject in reversed(subjects)}.values())[::-1]
