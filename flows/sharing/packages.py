"""Packages for preservation: every scan of a folder that may go out, as a BagIt bag, an Archivematica transfer or OCFL.

Bag and transfer are written beside their place and renamed. What fails for one scan leaves nothing of it behind; the
others are packaged. OCFL objects are written one by one, each with the versions that it had
(:mod:`flows.sharing.ocfl`).

    BAG/data/ADDRESS/      original/ colours/ decisions/ record.json premis.xml, and mets.xml where asked
    BAG/data/index.csv     address, name, reference code
    BAG/data/mets.xml      where asked: one METS document of all of them

The same results give the same package, but for the dates in ``bag-info.txt`` and in OCFL's inventories.

References
----------
RFC 8493 (BagIt 1.0); Archivematica documentation, "Transfer: preparing digital objects".
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TextIO

from flows.sharing.contents import METS, PREMIS, Choice, Digests, Member, copied, digests_of, members_of
from flows.sharing.mets import mets_of
from flows.sharing.ocfl import StorageRoot
from flows.sharing.outgoing import Kept, Outgoing, results_of
from flows.sharing.package_mets import PackageMets, package_mets
from flows.sharing.site import Step
from pipeline.errors import ColorizeError, UsageError
from pipeline.metadata.description import Texts
from pipeline.support.files import remove, writing
from pipeline.support.names import shown

KINDS = ("bagit", "ocfl", "archivematica")
INDEX = "index.csv"
_AGENT = "colorize-archive"


@dataclass(frozen=True)
class Order:
    """What to package, of which folder of results, and where to."""

    output: Path
    to: Path
    choice: Choice
    unreviewed: bool = False
    codes: Mapping[str, str] = field(default_factory=dict)

    def results(self) -> Iterator[Outgoing | Kept]:
        return results_of(self.output, self.unreviewed, self.codes)

    def mets(self) -> AbstractContextManager[PackageMets | None]:
        """The METS document of the whole package, to be written beside it; None where it is not asked for."""
        return package_mets(self.to.parent) if self.choice.with_mets else nullcontext()

    def finish(self, mets: PackageMets, path: Path) -> Digests:
        """Write that document."""
        return mets.write(path, shown(self.output.name), self.choice.organization)


def package(order: Order, kind: str) -> Iterator[Step | Kept]:
    """Write the package, one scan at a time.

    Raises
    ------
    UsageError : no such kind; the place is taken, or lies among the results
    OutputError : the package cannot be written
    """
    if kind not in KINDS:
        raise UsageError(f"--as {kind!r}: not known, nothing was packaged; give one of {', '.join(KINDS)}")
    if not order.output.is_dir():
        raise UsageError(f"{order.output}: no folder, nothing to package; give the --output of earlier runs")
    if order.to == order.output or order.output in order.to.parents:
        raise UsageError(f"{order.to}: among the results, where a run would find it; give another --to")
    if kind == "ocfl":
        yield from _into_ocfl(order)
        return
    if order.to.exists():
        raise UsageError(f"{order.to}: is there already, and a package is never changed; give a new --to")
    part = order.to.with_name(f"{order.to.name}.part")
    with writing(part):
        remove(part)
        part.mkdir(parents=True)
    yield from (_bag if kind == "bagit" else _transfer)(order, part)
    with writing(order.to):
        part.rename(order.to)


def _bag(order: Order, part: Path) -> Iterator[Step | Kept]:
    count = size = 0
    with _written(part / "manifest-sha256.txt") as manifest, _index(part / "data") as index, order.mets() as mets:
        for step in _each(order, part / "data"):
            if isinstance(step, _Packed):
                index.add(step.result)
                if mets is not None:
                    mets.add(step.result, step.files, f"{step.result.address}/{{}}".format)
                for path, digests in step.files.items():
                    manifest.write(_line(digests.sha256, f"data/{step.result.address}/{path}"))
                count, size = count + len(step.files), size + sum(each.bytes for each in step.files.values())
                yield Step("new", step.result.stem)
            else:
                yield step
        index.close()
        lists = {INDEX: digests_of(part / "data" / INDEX)}
        if mets is not None:
            mets.add_list(INDEX, lists[INDEX])
            lists[METS] = order.finish(mets, part / "data" / METS)
        for name, digests in lists.items():
            manifest.write(_line(digests.sha256, f"data/{name}"))
            count, size = count + 1, size + digests.bytes
    _write(part / "bagit.txt", "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n")
    told = {
        "Bag-Software-Agent": f"{_AGENT} {version(_AGENT)}",
        "Bagging-Date": datetime.now(UTC).date().isoformat(),
        "External-Description": "Scans and their colours, which an algorithm added; the colours are not evidence.",
        "Payload-Oxum": f"{size}.{count}",
    }
    if order.choice.organization is not None:
        told = {"Source-Organization": " ".join(order.choice.organization[1].split()), **told}
    _write(part / "bag-info.txt", "".join(f"{name}: {value}\n" for name, value in told.items()))
    names = ("bag-info.txt", "bagit.txt", "manifest-sha256.txt")
    _write(part / "tagmanifest-sha256.txt", "".join(_line(digests_of(part / name).sha256, name) for name in names))


def _transfer(order: Order, part: Path) -> Iterator[Step | Kept]:
    """A standard transfer: ``objects``, and in ``metadata`` checksums and the Dublin Core of each scan."""
    metadata = part / "metadata"
    with (
        _written(metadata / "checksum.sha256") as manifest,
        _written(metadata / "metadata.csv") as table,
        order.mets() as mets,
    ):
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(("filename", *(f"dc.{name}" for name in _ELEMENTS)))
        for step in _each(order, part / "objects"):
            if not isinstance(step, _Packed):
                yield step
                continue
            home = f"objects/{step.result.address}"
            rows.writerow((home, *_dublin_core(step.result)))
            if mets is not None:
                mets.add(step.result, step.files, f"../{home}/{{}}".format)
            for path, digests in step.files.items():
                manifest.write(f"{digests.sha256}  ../{home}/{path}\n")
            yield Step("new", step.result.stem)
        if mets is not None:
            order.finish(mets, metadata / METS)


_ELEMENTS = ("title", "description", "creator", "date", "rights", "subject", "coverage", "identifier")


def _dublin_core(result: Outgoing) -> Iterator[str]:
    told = result.description
    yield _all(told.title) or result.name
    for texts in (told.summary, told.creator, told.date, told.rights, told.subject, told.place):
        yield _all(texts)
    yield result.code or _all(told.identifier)


def _all(texts: Texts) -> str:
    """All texts of all languages in one cell."""
    return " | ".join(" ".join(text.split()) for each in texts.values() for text in each)


def _into_ocfl(order: Order) -> Iterator[Step | Kept]:
    root = StorageRoot.open(order.to)
    with order.mets() as mets:
        for found in order.results():
            if isinstance(found, Kept):
                yield found
                continue
            try:
                with root.staged(found) as staging:
                    files = _copied(found, order.choice, staging)
                    state = root.put(found, staging, files)
                if mets is not None:
                    mets.add(found, files, root.places(found).__getitem__)
                yield Step(state, found.stem)
            except ColorizeError as error:
                yield Step("failed", found.stem, str(error))
        if mets is not None:
            order.finish(mets, root.path / METS)


@dataclass(frozen=True)
class _Packed:
    """A scan that is in the package, with its files by path."""

    result: Outgoing
    files: Mapping[str, Digests]


def _each(order: Order, folder: Path) -> Iterator[_Packed | Step | Kept]:
    """Copy each scan into a folder of its own below ``folder``."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for found in order.results():
        if isinstance(found, Kept):
            yield found
            continue
        home = folder / found.address
        try:
            yield _Packed(found, _copied(found, order.choice, home))
        except ColorizeError as error:
            shutil.rmtree(home, ignore_errors=True)
            yield Step("failed", found.stem, str(error))


def _copied(result: Outgoing, choice: Choice, home: Path) -> dict[str, Digests]:
    """Copy the files of a scan to ``home``; their digests by path."""
    files = {}
    premis = b""
    for member in members_of(result, choice):
        files[member.path] = copied(member, home / member.path)
        if member.path == PREMIS:
            premis = member.data
    if choice.with_mets:
        member = Member(METS, data=mets_of(result, files, premis))
        files[METS] = copied(member, home / METS)
    return files


class _Index:
    """The list of a bag's scans."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._rows = csv.writer(stream, lineterminator="\n")
        self._rows.writerow(("address", "name", "reference code"))

    def add(self, result: Outgoing) -> None:
        name = "/".join(filter(None, (result.folder, result.name)))
        self._rows.writerow((result.address, name, result.code))

    def close(self) -> None:
        self._stream.flush()


@contextmanager
def _index(folder: Path) -> Iterator[_Index]:
    with _written(folder / INDEX) as stream:
        yield _Index(stream)


@contextmanager
def _written(path: Path) -> Iterator[TextIO]:
    """A text file to write line by line."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
            yield stream


def _write(path: Path, text: str) -> None:
    with _written(path) as stream:
        stream.write(text)


def _line(digest: str, path: str) -> str:
    return f"{digest}  {path}\n"
