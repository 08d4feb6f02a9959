"""What a package holds of one scan, by path: the original, the pictures, the records of their making and reviewing.

Files are named one after the other and read only when they are copied, so that a package of any size needs the memory
of one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flows.sharing.outgoing import Outgoing
from flows.sharing.records import as_json, premis_of
from pipeline.errors import StoreError
from pipeline.results.credentials import credential_of
from pipeline.results.decisions import decision_path
from pipeline.support.files import open_file, tree_sha256, writing
from pipeline.support.names import shown

ORIGINAL, COLOURS, DECISIONS = "original", "colours", "decisions"
RECORD, PREMIS, METS, REFERENCE = "record.json", "premis.xml", "mets.xml", "original.reference.json"
_CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class Member:
    """One file of a package.

    Attributes
    ----------
    path : in the scan's folder of the package
    source : the file that it is copied from; None if ``data`` are its bytes
    sha256 : what the bytes must have; empty if that is not known
    may_link : whether it may be a hard link
    """

    path: str
    source: Path | None = None
    data: bytes = b""
    sha256: str = ""
    may_link: bool = False


@dataclass(frozen=True)
class Digests:
    """Hashes and size of a file that was copied."""

    sha256: str
    sha512: str
    bytes: int


@dataclass(frozen=True)
class Choice:
    """What of each scan goes into a package.

    Attributes
    ----------
    by_reference : name the original's path, size and hash instead of taking the file
    with_mets : a METS document for each scan
    links : hard links to the results where the drive is the same, instead of copies; never to an original
    organization : address and name of the institution; None if it is not told
    """

    by_reference: bool = False
    with_mets: bool = False
    links: bool = False
    organization: tuple[str, str] | None = None


def members_of(result: Outgoing, choice: Choice) -> Iterator[Member]:
    """The files of one scan, in a fixed order; records of what is in the package come last.

    Raises StoreError, before anything is yielded, if the original or a picture is gone.
    """
    source, original = result.source, Path(result.source.path)
    if not choice.by_reference and not original.is_file():
        raise StoreError(f"{original}: the original is not there; bring it back, or take it by reference (--reference)")
    gone = [name for name in result.sidecar.pictures if name not in result.pictures]
    if gone or not result.pictures:
        raise StoreError(f"{result.stem}: {', '.join(gone) or 'every picture'} is not there any more; run it again")
    if choice.by_reference:
        told = {"path": source.path, "page": source.page, "bytes": source.bytes, "sha256": source.sha256}
        yield Member(REFERENCE, data=as_json({"name": source.name, **told}))
    else:
        yield Member(f"{ORIGINAL}/{plain_name(source.name)}", original, sha256=source.sha256)
    for path, record in result.pictures.values():
        if path.is_dir():
            if tree_sha256(path) != record.sha256:
                raise StoreError(f"{path}: its bytes are not those that were recorded; restore it, or run again")
            for file in sorted(each for each in path.rglob("*") if each.is_file()):
                inside = file.relative_to(path.parent).as_posix()
                yield Member(f"{COLOURS}/{plain_name(inside)}", file, may_link=choice.links)
        else:
            yield Member(f"{COLOURS}/{plain_name(path.name)}", path, sha256=record.sha256, may_link=choice.links)
    for path, _ in result.pictures.values():
        if (credential := credential_of(path)).is_file():
            yield Member(f"{COLOURS}/{plain_name(credential.name)}", credential, may_link=choice.links)
    yield Member(RECORD, result.paths.sidecar, may_link=choice.links)
    for decision in result.decisions:
        file = decision_path(result.paths.sidecar, decision)
        yield Member(f"{DECISIONS}/{plain_name(file.name)}", file, may_link=choice.links)
    yield Member(PREMIS, data=premis_of(result, choice.organization))


def plain_name(name: str) -> str:
    """A path that every drive and every list of files can hold: what is not text in it is spelt out.

    A percent sign is one of those, because programs disagree on how a bag's list has it (RFC 8493, 2.1.3).
    """
    return "/".join(shown(part).replace("\\", "_").replace("%", "_") for part in name.split("/"))


def copied(member: Member, target: Path) -> Digests:
    """Copy a member to ``target``, or link it there, and hash it in the same pass.

    Raises
    ------
    StoreError : its bytes are not those that were recorded
    OutputError : it cannot be read or written
    """
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if member.source is None:
            target.write_bytes(member.data)
            digests = digests_of(target)
        elif member.may_link and _linked(member.source, target):
            digests = digests_of(target)
        else:
            digests = _streamed(member.source, target)
    if member.sha256 and digests.sha256 != member.sha256:
        target.unlink()
        raise StoreError(f"{member.source}: its bytes are not those that were recorded; restore it, or run again")
    return digests


def digests_of(path: Path) -> Digests:
    """Hashes and size of a file, read once."""
    sha256, sha512, size = hashlib.sha256(), hashlib.sha512(), 0
    with open_file(path) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            sha256.update(chunk)
            sha512.update(chunk)
            size += len(chunk)
    return Digests(sha256.hexdigest(), sha512.hexdigest(), size)


def _linked(source: Path, target: Path) -> bool:
    """A link to the file; False where the two are on different drives, or the drive has none."""
    try:
        os.link(source, target)
    except OSError:
        return False
    return True


def _streamed(source: Path, target: Path) -> Digests:
    sha256, sha512, size = hashlib.sha256(), hashlib.sha512(), 0
    with open_file(source) as stream, target.open("wb") as made:
        while chunk := stream.read(_CHUNK_BYTES):
            sha256.update(chunk)
            sha512.update(chunk)
            size += len(chunk)
            made.write(chunk)
        made.flush()
        os.fsync(made.fileno())
    shutil.copystat(source, target)
    return Digests(sha256.hexdigest(), sha512.hexdigest(), size)
