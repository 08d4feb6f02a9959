"""What the content credentials of a JPEG or PNG say made it: the claim generator of a C2PA manifest store.

The manifest is read, not verified: no signature is checked, so what is found is what the file says of itself.

References
----------
C2PA Technical Specification 2.1, 10.2 and 11 (claims; embedding in JPEG's APP11 and PNG's caBX); ISO 19566-5 (JUMBF);
RFC 8949 (CBOR), 3.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_LIMIT_BYTES = 2**24  # of the file's beginning, where manifests are
_JPEG, _PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
_STORE = b"jumb"
_LONGEST = 200


def claim_generator(path: Path) -> str:
    """The program that signed the newest claim, as it names itself; empty without a manifest. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(_LIMIT_BYTES)
    if head.startswith(_JPEG):
        store = b"".join(_of_jpeg(head))
    elif head.startswith(_PNG):
        store = b"".join(_of_png(head))
    else:
        return ""
    if _STORE not in store or b"c2pa" not in store:
        return ""
    # The active manifest is the last of the store, and its claim names the program.
    for key, name in ((b"\x6fclaim_generator", b""), (b"\x74claim_generator_info", b"\x64name")):
        at = store.rfind(key)
        if at < 0:
            continue
        at += len(key)
        if name:
            at = store.find(name, at, at + _LONGEST)
            if at < 0:
                continue
            at += len(name)
        if text := _text(store, at):
            return text
    return "content credentials without a name"


def _of_jpeg(head: bytes) -> Iterator[bytes]:
    """The contents of the APP11 segments that hold JUMBF, without their headers."""
    at = 2
    while at + 4 <= len(head) and head[at] == 0xFF and head[at + 1] not in (0xDA, 0xD9):
        size = int.from_bytes(head[at + 2 : at + 4], "big")
        segment = head[at + 4 : at + 2 + size]
        if head[at + 1] == 0xEB and segment[:2] == b"JP":
            # After the first segment of a box each repeats the box's header: 8 bytes behind identifier and numbers.
            number = int.from_bytes(segment[4:8], "big")
            yield segment[8:] if number <= 1 else segment[16:]
        at += 2 + size


def _of_png(head: bytes) -> Iterator[bytes]:
    at = len(_PNG)
    while at + 8 <= len(head):
        size, kind = int.from_bytes(head[at : at + 4], "big"), head[at + 4 : at + 8]
        if kind == b"caBX":
            yield head[at + 8 : at + 8 + size]
        if kind == b"IEND":
            return
        at += 12 + size


def _text(data: bytes, at: int) -> str:
    """The CBOR text that begins there; empty where something else does."""
    first = data[at] if at < len(data) else 0
    if first >> 5 != 3:
        return ""
    size, start = first & 31, at + 1
    if size in (24, 25):
        width = size - 23
        size, start = int.from_bytes(data[start : start + width], "big"), start + width
    elif size > 25:
        return ""
    text = data[start : start + min(size, _LONGEST)].decode("utf-8", "replace")
    return "".join(each for each in text if each.isprintable()).strip()
