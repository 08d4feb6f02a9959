"""Read a folder of any known layout: two halves of pictures, a list of what was left out and why, and one hash.

========================================  =====================================================================
what is in the folder                     split
========================================  =====================================================================
photographs, nested or not                80/20 by photograph, never by file: a crop of a training picture is
                                          never in the test. ``MANIFEST.tsv`` names the photograph of each file;
                                          without it, files of equal content are one photograph
``train2017/``, ``val2017/`` (COCO),      those folders; a photograph in both is left out of training, pictures
``train/``, ``val/`` (ImageNet, Places)   in neither altogether: :func:`training.data.files.own_split`
``gray_scale.npy``, ``ab*.npy``           80/20 by the content of each sample
========================================  =====================================================================

Of files that hold a gray and a colour picture side by side, only the colour one is used: :mod:`training.data.pairs`. A
recipe may ask for a part of the pictures: :mod:`training.data.subset`; pictures that are not drawn are not read.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from engines.machine import memory_left_bytes, processors
from training.data.arrays import LabArrays, find_arrays
from training.data.decode import quiet_decoders, why_unfit
from training.data.files import Manifest, Photograph, files_under, is_test, own_split, picture_files, read_bytes
from training.data.pictures import LabSamples, PhotographFiles, Pictures, processes_here
from training.data.subset import Subset
from training.errors import DataError

_CHUNK = 64  # items for each task of a thread: a million futures would take a gigabyte
_LEAKS = "the same photograph is in the test half"
_WHOLE = Subset()

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class LeftOut:
    """A picture that is not used, and why: unreadable, gray, too small, too large, or also in the other half.

    It may also be a folder of ``pictures`` that are in neither half.
    """

    path: Path
    reason: str
    pictures: int = 1


@dataclass(frozen=True)
class Collection:
    """The pictures for training and those for testing.

    Attributes
    ----------
    sha256 : hash over the name, content and half of every picture used: equal only for equal data
    layout : how the folder was read, in words
    subset : the requested part and the number of pictures it was drawn from; None is the whole
    """

    train: Pictures
    test: Pictures
    left_out: tuple[LeftOut, ...]
    sha256: str
    layout: str
    subset: dict[str, Any] | None = None

    def describe(self) -> dict[str, Any]:
        """The record of the training half for a model's card: counts, licences, sources, hash."""
        used = self.train.photographs
        return {
            "pictures": len(used),
            "photographs": len({photograph.group for photograph in used}),
            "left_out": sum(left.pictures for left in self.left_out),
            "licences": dict(Counter(p.licence or "unknown" for p in used).most_common()),
            "sources": dict(Counter(p.source or "unknown" for p in used).most_common()),
            "layout": self.layout,
            "subset": self.subset,
            "sha256": self.sha256,
        }


@dataclass(frozen=True)
class _Checked:
    """A checked picture: ``test`` is its half, ``reason`` why not to use it."""

    photograph: Photograph
    name: str
    sha256: str
    index: int
    test: bool
    reason: str | None


def open_collection(data: Path, cache_bytes: int | None = None, subset: Subset = _WHOLE) -> Collection:
    """Find, check and split the pictures under ``data``; every file is read once, in threads, and none stays open.

    Parameters
    ----------
    cache_bytes : memory for decoded pictures of both halves; by default a quarter of the available memory, shared by
        the processes of a run
    subset : the part of the pictures to use

    Raises
    ------
    DataError : no such folder, no picture, no picture fit for training, or NumPy files that do not belong together.
    """
    missed: dict[Path, str] = {}
    files = files_under(data, missed)
    arrays = find_arrays(data, files)
    outside: list[LeftOut] = []
    with quiet_decoders():
        if arrays:
            checked, layout = _check_arrays(data, arrays, subset), "NumPy files of 8-bit Lab, split 80/20"
            found = len(arrays)
        else:
            checked, layout, outside, found = _check_photographs(data, files, subset)
    checked = _without_leaks(checked)
    used = [item for item in checked if item.reason is None]
    left_out = tuple(LeftOut(item.photograph.path, item.reason) for item in checked if item.reason)
    train, test = ([item for item in used if item.test is half] for half in (False, True))
    if not train:
        reasons = ", ".join(f"{n} {reason}" for reason, n in Counter(o.reason for o in left_out).most_common())
        raise DataError(
            f"{data}: none of {len(checked)} pictures is left to train on ({reasons or 'all in the test half'}); "
            "give more colour photographs"
        )
    lines = sorted(f"{item.name}\t{item.sha256}\t{'test' if item.test else 'train'}\n" for item in used)
    budget = memory_left_bytes() // (4 * processes_here()) if cache_bytes is None else cache_bytes
    return Collection(
        _pictures(train, arrays, budget * len(train) // len(used)),
        _pictures(test, arrays, budget * len(test) // len(used)),
        (*left_out, *outside, *(LeftOut(path, reason) for path, reason in missed.items())),
        hashlib.sha256("".join(lines).encode()).hexdigest(),
        layout,
        None if subset.is_whole else subset.describe(found),
    )


def _check_photographs(
    data: Path, files: Sequence[Path], subset: Subset
) -> tuple[list[_Checked], str, list[LeftOut], int]:
    """Check every picture file of the subset, and count all files.

    If the collection has its own halves, only files in them are checked; the others are listed as left out.
    """
    manifest = Manifest(data)
    paths = picture_files(data, files)
    split = own_split(data, paths)
    layout, outside = "photographs, split 80/20 by photograph", []
    if split:
        halves = " and ".join(half.relative_to(data).as_posix() for half in split)
        inside = {path for path in paths if any(path.is_relative_to(half) for half in split)}
        outside = _outside(split[0].parent, [path for path in paths if path not in inside], halves)
        paths = [path for path in paths if path in inside]
        layout = f"its own halves, {halves}"

    def check(path: Path) -> _Checked:
        name = path.relative_to(data).as_posix()
        content = read_bytes(path)
        digest = hashlib.sha256(content).hexdigest()
        photograph = manifest.photograph(path, digest)
        half = path.is_relative_to(split[1]) if split else is_test(photograph)
        return _Checked(photograph, name, digest, 0, half, why_unfit(content))

    names = [path.relative_to(data).as_posix() for path in paths]
    checked = _drawn(lambda index: check(paths[index]), data, names, subset, split is not None)
    return checked, layout, outside, len(paths)


def _drawn(
    check: Callable[[int], _Checked], data: Path, names: Sequence[str], subset: Subset, has_own_halves: bool = False
) -> list[_Checked]:
    """The pictures of ``names`` in ``subset``, checked in the order of drawing until there are enough."""
    order = subset.drawn(names)
    subset.refuse_empty(data, names, order)
    room = subset.room(has_own_halves)
    found: dict[int, _Checked] = {}
    # Read a few more than needed, because some may be unfit; all at once if all are needed.
    at_once = len(order) if subset.pictures is None else max(_CHUNK, subset.pictures // 4)
    for start in range(0, len(order), max(1, at_once)):
        if room.is_full:
            break
        part = order[start : start + at_once]
        for index, looked_at in zip(part, _in_threads(check, part), strict=True):
            item = replace(looked_at, reason=looked_at.reason or subset.refusal(looked_at.photograph))
            if not room.is_full and (item.reason is not None or room.take(item.test)):
                found[index] = item
    return [found[index] for index in sorted(found)]


def _outside(parent: Path, paths: Sequence[Path], halves: str) -> list[LeftOut]:
    """One entry for each folder beside the halves: COCO's test2017 alone has 40,670 pictures with the same reason."""
    counts = Counter(parent.joinpath(*path.relative_to(parent).parts[:-1][:1]) for path in paths)
    return [
        LeftOut(folder, f"{count} picture{'s' * (count > 1)} outside the collection's own halves {halves}", count)
        for folder, count in counts.items()
    ]


def _check_arrays(data: Path, arrays: LabArrays, subset: Subset) -> list[_Checked]:
    def check(index: int) -> _Checked:
        digest, reason = arrays.inspect(index)
        name = f"{arrays.lightness.name}[{index}]"
        photograph = Photograph(arrays.lightness.with_name(name) if reason else arrays.lightness, digest)
        return _Checked(photograph, name, digest, index, is_test(photograph), reason)

    return _drawn(check, data, [f"{arrays.lightness.name}[{index}]" for index in range(len(arrays))], subset)


def _without_leaks(checked: Sequence[_Checked]) -> list[_Checked]:
    """Mark training pictures that are also in the test half: the same photograph, or the same bytes in another group.

    A collection's own halves may overlap, and a manifest may put a copy into another group.
    """
    tested = {
        mark for item in checked if item.test and item.reason is None for mark in (item.photograph.group, item.sha256)
    }

    def leaks(item: _Checked) -> bool:
        same = item.photograph.group in tested or item.sha256 in tested
        return same and not item.test and item.reason is None

    return [replace(item, reason=_LEAKS) if leaks(item) else item for item in checked]


def _in_threads(work: Callable[[Item], Answer], items: Sequence[Item]) -> list[Answer]:
    """The results of ``work`` for all items, in order; decoding and hashing release the interpreter's lock."""

    def chunks() -> Iterator[Sequence[Item]]:
        return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))

    with ThreadPoolExecutor(processors()) as pool:
        return [answer for part in pool.map(lambda chunk: [work(item) for item in chunk], chunks()) for answer in part]


def _pictures(half: Sequence[_Checked], arrays: LabArrays | None, cache_bytes: int) -> Pictures:
    photographs, names = tuple(item.photograph for item in half), tuple(item.name for item in half)
    if arrays is None:
        return Pictures(PhotographFiles(photographs, names), cache_bytes)
    # Mapped files are already in the system's cache.
    return Pictures(LabSamples(arrays, tuple(item.index for item in half), photographs, names))
