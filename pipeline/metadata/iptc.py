"""Photoshop's image resource blocks and IPTC's datasets: parsing and writing, with size limits.

References
----------
Adobe Photoshop File Formats Specification (2019), "Image Resource Blocks"; IPTC-NAA Information Interchange Model 4.2,
chapter 1.6.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.metadata.model import BLOCK_LIMIT_BYTES

_SIGNATURES = (b"8BIM", b"MeSa", b"PHUT", b"AgHg", b"DCSR")
_ONLY_SCAN = frozenset((1033, 1036, 1039, 1058, 1059, 1060))


@dataclass(frozen=True)
class Resource:
    """One image resource: its number, its name (mostly empty), its data, and its four-letter signature."""

    number: int
    name: bytes
    data: bytes
    signature: bytes = b"8BIM"


def parse_resources(block: bytes) -> tuple[Resource, ...]:
    """The resources of ``block``, with or without "Photoshop 3.0" in front; zeros may follow the last.

    Raises ValueError, one line, if it is something else or cut off.
    """
    return tuple(resources_of(block))


def resources_of(block: bytes) -> Iterator[Resource]:
    """As :func:`parse_resources`, but lazily: resources before any damage are yielded before the ValueError."""
    _check_size(block, "Photoshop resources")
    block = block.removeprefix(b"Photoshop 3.0\0")
    at = 0
    while block[at : at + 4].strip(b"\0"):
        signature = block[at : at + 4]
        if signature not in _SIGNATURES or at + 7 > len(block):
            raise ValueError(f"damaged Photoshop resources: {signature.hex()} at byte {at}; leave them out")
        number, letters = int.from_bytes(block[at + 4 : at + 6], "big"), block[at + 6]
        name = block[at + 7 : at + 7 + letters]
        at += 6 + (letters + 2) // 2 * 2
        size = int.from_bytes(block[at : at + 4], "big")
        if at + 4 + size > len(block):
            raise ValueError(f"damaged Photoshop resources: {number} of {size} bytes is cut off; leave them out")
        yield Resource(number, name, block[at + 4 : at + 4 + size], signature)
        at += 4 + size + size % 2


def resource_block(resources: tuple[Resource, ...]) -> bytes:
    """The resources concatenated into a block that :func:`parse_resources` reads."""
    block = bytearray()
    for each in resources:
        block += each.signature + each.number.to_bytes(2, "big") + bytes([len(each.name)]) + each.name
        block += b"\0" * ((len(each.name) + 1) % 2)
        block += len(each.data).to_bytes(4, "big") + each.data + b"\0" * (len(each.data) % 2)
    return bytes(block)


def without_scan_parts(resources: tuple[Resource, ...]) -> tuple[Resource, ...]:
    """The resources without thumbnails (1033, 1036), profile (1039), EXIF and XMP; the last three have other places."""
    return tuple(each for each in resources if each.number not in _ONLY_SCAN)


def parse_iim(block: bytes) -> tuple[tuple[int, int, bytes], ...]:
    """Record, dataset and value of each IPTC dataset, in their order; zeros may follow the last.

    Raises ValueError, one line, if it is something else or cut off.
    """
    _check_size(block, "IPTC datasets")
    found, at = [], 0
    while block[at : at + 4].strip(b"\0"):
        if block[at] != 0x1C or at + 5 > len(block):
            raise ValueError(f"damaged IPTC: {block[at : at + 5].hex()} at byte {at} begins no dataset; leave it out")
        size, start = int.from_bytes(block[at + 3 : at + 5], "big"), at + 5
        if size & 0x8000:  # an extended dataset: the low bits count the bytes of the length that follows
            size, start = int.from_bytes(block[start : start + (size & 0x7FFF)], "big"), start + (size & 0x7FFF)
        if start + size > len(block):
            raise ValueError(f"damaged IPTC: {size} bytes at byte {start} are cut off; leave it out")
        found.append((block[at + 1], block[at + 2], block[start : start + size]))
        at = start + size
    return tuple(found)


def _check_size(block: bytes, what: str) -> None:
    if len(block) > BLOCK_LIMIT_BYTES:
        raise ValueError(f"{what} of {len(block)} bytes, above the limit of {BLOCK_LIMIT_BYTES}; leave them out")
