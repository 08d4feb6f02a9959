"""Where the Content Credentials of a picture are, and what the same bytes are: the picture's own, before it was signed.

Credentials lie in ``PICTURE.c2pa`` beside the picture, whose bytes stay as they were; or they are embedded. Embedding
puts one piece into the file: in the middle of a JPEG or PNG, at the end of a TIFF, of which some bytes of the header
then point there. The sidecar has the place of the piece and the bytes that were overwritten, so that **a signed picture
without its piece is, byte for byte, the picture that was written**. A file of which that cannot be shown is not used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from pipeline.support.files import file_sha256, open_file

Place = Literal["beside", "embedded"]

_CHUNK_BYTES = 2**22
# Pointers to directories; more is no longer the same file with a piece behind it.
_MOST_PATCHED_BYTES = 64


@dataclass(frozen=True)
class Signature:
    """The credentials of one picture, as its sidecar has them.

    Attributes
    ----------
    place : "beside", in a file of their own; "embedded"
    size_bytes, sha256 : of the credentials: that file, or the embedded piece
    unsigned_bytes, unsigned_sha256 : of the picture before it was signed
    start : offset of the piece in the picture; 0 beside
    patches : offset and bytes, in hexadecimal, of what was overwritten before the piece
    tried : they are beside the picture because the library cannot put them into it, or would change more than that
    """

    place: Place
    size_bytes: int
    sha256: str
    unsigned_bytes: int
    unsigned_sha256: str
    start: int = 0
    patches: tuple[tuple[int, str], ...] = ()
    tried: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self | None:
        """From the output of :meth:`to_json`; None if that is empty or no such thing."""
        try:
            place: Place = "embedded" if values["place"] == "embedded" else "beside"
            patches = tuple((int(at), bytes.fromhex(was).hex()) for at, was in values["patches"])
            size, unsigned_bytes, start = (int(values[name]) for name in ("size_bytes", "unsigned_bytes", "start"))
            sha256, unsigned_sha256 = str(values["sha256"]), str(values["unsigned_sha256"])
            tried = values["tried"] is True
            return cls(place, size, sha256, unsigned_bytes, unsigned_sha256, start, patches, tried)
        except (KeyError, TypeError, ValueError):
            return None

    @property
    def is_embedded(self) -> bool:
        return self.place == "embedded"

    def piece_sha256(self, picture: Path) -> str:
        """SHA-256 of the embedded piece. Raises OSError."""
        return _sha256(_read(picture, self.start, self.start + self.size_bytes))

    def unsigned(self, picture: Path) -> Iterator[bytes]:
        """The picture as it was before it was signed, if nobody changed it since. Raises OSError."""
        at = 0
        for chunk in _read(picture, 0, self.start):
            made = bytearray(chunk)
            for offset, was in self.patches:
                for place, byte in enumerate(bytes.fromhex(was), offset):
                    if at <= place < at + len(made):
                        made[place - at] = byte
            at += len(made)
            yield bytes(made)
        yield from _read(picture, self.start + self.size_bytes, picture.stat().st_size)

    def unsigned_sha256_of(self, picture: Path) -> str:
        """SHA-256 of :meth:`unsigned`. Raises OSError."""
        return _sha256(self.unsigned(picture))


def embedded(unsigned: Path, unsigned_sha256: str, signed: Path) -> Signature | None:
    """What was put into ``signed``; None if the rest is not ``unsigned``, byte for byte. Raises OSError."""
    before, after = unsigned.stat().st_size, signed.stat().st_size
    for found in _places(unsigned, signed) if after > before else ():
        start, patches = found
        made = Signature("embedded", after - before, "", before, unsigned_sha256, start, tuple(patches))
        if made.unsigned_sha256_of(signed) == unsigned_sha256:
            return replace(made, sha256=made.piece_sha256(signed))
    return None


def beside(credentials: Path, unsigned_bytes: int, unsigned_sha256: str, tried: bool) -> Signature:
    """Credentials in a file of their own. Raises OSError."""
    size, sha256 = credentials.stat().st_size, file_sha256(credentials)
    return Signature("beside", size, sha256, unsigned_bytes, unsigned_sha256, tried=tried)


def _places(unsigned: Path, signed: Path) -> Iterator[tuple[int, Sequence[tuple[int, str]]]]:
    """Where a piece may be, with what was overwritten: at the end, or where both begin to differ."""
    before = unsigned.stat().st_size
    differing: list[int] = []
    old: list[int] = []
    at = 0
    for mine, theirs in zip(_read(unsigned, 0, before), _read(signed, 0, before), strict=False):
        one, other = np.frombuffer(mine, np.uint8), np.frombuffer(theirs, np.uint8)
        places = np.flatnonzero(one != other)
        differing += (places[: _MOST_PATCHED_BYTES + 1] + at).tolist()
        old += one[places[: _MOST_PATCHED_BYTES + 1]].tolist()
        at += len(mine)
        if len(differing) > _MOST_PATCHED_BYTES:
            break
    else:
        yield before, [(place, f"{byte:02x}") for place, byte in zip(differing, old, strict=True)]
    if differing:
        yield differing[0], []


def _read(path: Path, start: int, stop: int) -> Iterator[bytes]:
    with open_file(path) as stream:
        stream.seek(start)
        while start < stop and (chunk := stream.read(min(_CHUNK_BYTES, stop - start))):
            yield chunk
            start += len(chunk)


def _sha256(chunks: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()
