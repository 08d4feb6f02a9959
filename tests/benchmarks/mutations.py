"""Damaged files, made from whole ones: the same seed gives the same damage."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0x1000_0000)
_HEAD_BYTES = 512


def _place(chance: random.Random, size: int) -> int:
    """Half of them where headers lie, at the beginning or the end."""
    if chance.random() < 0.5:
        return chance.randrange(size)
    near = chance.randrange(min(size, _HEAD_BYTES))
    return near if chance.random() < 0.7 else size - 1 - near


def _flip(data: bytearray, chance: random.Random, _: bytes) -> None:
    for _n in range(chance.choice((1, 1, 2, 4, 16))):
        data[_place(chance, len(data))] ^= 1 << chance.randrange(8)


def _overwrite(data: bytearray, chance: random.Random, _: bytes) -> None:
    for _n in range(chance.choice((1, 1, 3, 9))):
        data[_place(chance, len(data))] = chance.randrange(256)


def _number(data: bytearray, chance: random.Random, _: bytes) -> None:
    for _n in range(chance.choice((1, 1, 2))):
        at, width = _place(chance, len(data)), chance.choice((1, 2, 4, 8))
        value = chance.choice(_NUMBERS) & (2 ** (8 * width) - 1)
        order = "little" if chance.random() < 0.5 else "big"
        data[at : at + width] = value.to_bytes(width, order)  # type: ignore[arg-type]


def _cut(data: bytearray, chance: random.Random, _: bytes) -> None:
    del data[chance.randrange(len(data)) :]


def _drop(data: bytearray, chance: random.Random, _: bytes) -> None:
    at = _place(chance, len(data))
    del data[at : at + chance.choice((1, 2, 4, 12, 100, 5000))]


def _repeat(data: bytearray, chance: random.Random, _: bytes) -> None:
    at, size = _place(chance, len(data)), chance.choice((1, 4, 12, 100, 3000))
    data[at:at] = data[at : at + size] * chance.choice((1, 2, 50))


def _splice(data: bytearray, chance: random.Random, other: bytes) -> None:
    at, size = _place(chance, len(data)), chance.choice((4, 12, 64, 1000))
    start = chance.randrange(max(1, len(other)))
    data[at : at + size] = other[start : start + size]


_KINDS: tuple[Callable[[bytearray, random.Random, bytes], None], ...] = (
    _flip,
    _flip,
    _overwrite,
    _number,
    _number,
    _number,
    _cut,
    _drop,
    _repeat,
    _splice,
)


def mutated(whole: Sequence[bytes], seed: int) -> bytes:
    """One of ``whole``, damaged once or a few times in ways that ``seed`` decides."""
    chance = random.Random(seed)
    data = bytearray(chance.choice(whole))
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        if data:
            chance.choice(_KINDS)(data, chance, chance.choice(whole))
    return bytes(data)
