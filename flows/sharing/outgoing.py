"""The results of a folder that may leave the house, and why others may not: from what is stored, one at a time."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from flows.inputs import STORE_ENDINGS
from pipeline.endings import FORMATS as ENDINGS
from pipeline.errors import ColorizeError, SidecarError, UsageError
from pipeline.formats.labels import Label, as_one
from pipeline.metadata.description import Description, description_of_scan
from pipeline.metadata.model import EmbeddedMetadata
from pipeline.readers import open_scan
from pipeline.results.decisions import Decision, read_decisions
from pipeline.results.policy import Policy
from pipeline.results.release import may_go_out
from pipeline.results.sidecar import SIDECAR_ENDING, PictureRecord, ResultRecord, Sidecar, SourceRecord
from pipeline.results.versions import ResultPaths
from pipeline.store import ScanStore
from pipeline.support.files import read_text, walk
from pipeline.support.names import folded, shown
from pipeline.types import ReadOptions

_SLUG_LETTERS = 40
_NOT_IN_SLUGS = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True)
class Outgoing:
    """A scan's current colours that may go out.

    Attributes
    ----------
    output : the folder of results
    stem : path of the result in it, without ending
    sidecar : of the current version
    approved_by : the people who approved it; empty if nobody was asked
    decisions : of people on this version
    labels : what copies must say, by the policy
    code : reference code of the archive; empty if none is known
    """

    output: Path
    stem: str
    sidecar: Sidecar
    approved_by: tuple[str, ...] = ()
    decisions: tuple[Decision, ...] = ()
    labels: tuple[Label, ...] = ()
    code: str = ""

    @property
    def paths(self) -> ResultPaths:
        return ResultPaths.of(self.output, self.stem)

    @property
    def source(self) -> SourceRecord:
        return self.sidecar.needed("source", self.sidecar.whole_source)

    @property
    def result(self) -> ResultRecord:
        return self.sidecar.needed("result", self.sidecar.result)

    @property
    def pictures(self) -> dict[str, tuple[Path, PictureRecord]]:
        """Path and record of each picture that is there, by format."""
        every = {
            name: (self.paths.picture(name), each) for name, each in self.sidecar.pictures.items() if name in ENDINGS
        }
        return {name: found for name, found in every.items() if found[0].exists()}

    @property
    def store_path(self) -> Path:
        return self.paths.store.with_name(Path(self.result.store).name)

    @cached_property
    def embedded(self) -> EmbeddedMetadata:
        """What the scan says beside its pixels, from the store or else the scan file; empty if both are gone."""
        try:
            store = ScanStore.open(self.store_path)
            if self.sidecar.is_of(store.source.sha256):
                return store.embedded
        except ColorizeError:
            pass
        try:
            with open_scan(Path(self.source.path), ReadOptions(page=self.source.page, salvage=True)) as reader:
                return reader.embedded
        except (ColorizeError, OSError):
            return EmbeddedMetadata()

    @cached_property
    def description(self) -> Description:
        return description_of_scan(self.embedded)

    @property
    def label(self) -> Label | None:
        """What copies must say, all in one."""
        return as_one(self.labels)

    @property
    def name(self) -> str:
        return shown(PurePosixPath(self.stem).name)

    @property
    def folder(self) -> str:
        """The folder of the result, below that of all results; empty for this one itself."""
        parts = PurePosixPath(self.stem).parent.parts
        return "/".join(map(shown, parts))

    @property
    def address(self) -> str:
        return address_of(self.stem)


@dataclass(frozen=True)
class Kept:
    """A result that stays in the house.

    Attributes
    ----------
    reason : one line
    is_fault : somebody has to mend something
    result : what would go out; None if it cannot be read
    """

    stem: str
    reason: str
    is_fault: bool = False
    result: Outgoing | None = None


def address_of(stem: str) -> str:
    """A name for addresses that is one on every drive and web server: plain letters, and a hash of the path.

    >>> address_of("albums/1910 #3/Étude 50 %")
    'etude-50-5a1b29a5f6d7a2c1'
    """
    name = unicodedata.normalize("NFKD", PurePosixPath(stem).name).encode("ascii", "ignore").decode().lower()
    slug = _NOT_IN_SLUGS.sub("-", name).strip("-")[:_SLUG_LETTERS].strip("-")
    digest = hashlib.sha256(os.fsencode(stem)).hexdigest()[:16]
    return f"{slug}-{digest}" if slug else digest


def results_of(output: Path, unreviewed: bool, codes: Mapping[str, str] | None = None) -> Iterator[Outgoing | Kept]:
    """Every scan of a folder of results, in the order of their names: what goes out, and what stays.

    Parameters
    ----------
    unreviewed : let out what nobody has reviewed, too
    codes : reference codes, as :func:`read_codes` returns them

    Raises UsageError for a policy with a mistake.
    """
    policy, decisions = Policy.read(output), read_decisions(output)
    for stem in stems_of(output):
        try:
            sidecar = Sidecar.read(output / f"{stem}{SIDECAR_ENDING}")
            for name, part in (
                ("source", sidecar.whole_source),
                ("result", sidecar.result),
                ("settings", sidecar.spec),
            ):
                sidecar.needed(name, part)
        except SidecarError as error:
            yield Kept(stem, str(error), is_fault=True)
            continue
        said = decisions.get(stem, ())
        verdict = may_go_out(sidecar, said, policy, stem=stem, unreviewed=unreviewed)
        result = Outgoing(output, stem, sidecar, verdict.approved_by, labels=verdict.labels)
        ours = tuple(each for each in said if each.is_on(result.result.version, result.source.sha256))
        result = replace(result, decisions=ours, code=_code_of(stem, sidecar, codes or {}))
        yield result if verdict else Kept(stem, verdict.reason, verdict.state == "unknown", result)


def stems_of(output: Path) -> list[str]:
    """The results of a folder that have a sidecar, without versions that are not current, in their order."""
    found = []
    for parent, folders, files in walk(output):
        folders[:] = [name for name in folders if not name.endswith((*STORE_ENDINGS, *ENDINGS.values()))]
        names = {name.removesuffix(SIDECAR_ENDING) for name in files if name.endswith(SIDECAR_ENDING)}
        folder = PurePosixPath(parent.relative_to(output).as_posix())
        for name in names:
            if not _is_version(parent / f"{name}{SIDECAR_ENDING}", name, names):
                found.append((folder / name).as_posix())
    return sorted(found)


def _is_version(path: Path, name: str, names: set[str]) -> bool:
    """True for NAME.VERSION, which is not the current one. Only names that begin with another's are opened."""
    parts = name.split(".")
    if len(parts) < 2:
        return False
    beginnings = {".".join(parts[:count]) for count in range(1, len(parts))}
    if not beginnings & names and not _looks_like_version(name):
        return False
    sidecar = Sidecar.find(path)
    version = sidecar.result.version if sidecar is not None and sidecar.result is not None else None
    return version is not None and name.endswith(f".{version}")


def _looks_like_version(name: str) -> bool:
    return re.search(r"-[0-9a-f]{8}$", name) is not None


def read_codes(path: Path) -> dict[str, str]:
    """Reference codes by file name, from a CSV of two columns: a file's name, with or without folders, and its code.

    A first line that names columns is skipped. Raises UsageError for a file that is none, or that says two things.
    """
    try:
        text = read_text(path).removeprefix("\ufeff")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as UTF-8 ({error}), so no code is known; save it as UTF-8") from error
    try:
        dialect: type[csv.Dialect] | csv.Dialect = csv.Sniffer().sniff(text[:4096], ",;\t")
    except csv.Error:
        dialect = csv.excel
    codes: dict[str, str] = {}
    for number, row in enumerate(csv.reader(io.StringIO(text), dialect), 1):
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        if len(cells) < 2 or not all(cells[:2]):
            raise UsageError(f"{path}: line {number} is not a file name and its reference code; mend it")
        name, code = _key(cells[0]), cells[1]
        if codes.setdefault(name, code) != code:
            raise UsageError(f"{path}: line {number} gives {cells[0]!r} a second code, {code!r}; keep one of them")
    return codes


def _key(name: str) -> str:
    return folded(name.replace("\\", "/").removeprefix("./"))


def _code_of(stem: str, sidecar: Sidecar, codes: Mapping[str, str]) -> str:
    """The code of a result by the scan's path, name, or the result's own path; the longest match counts."""
    source = sidecar.source
    names = [stem, PurePosixPath(stem).name]
    if source is not None:
        suffix = PurePosixPath(source.name).suffix
        names = [f"{stem}{suffix}", stem, source.name, PurePosixPath(source.name).stem, names[1]]
    return next((codes[_key(name)] for name in names if _key(name) in codes), "")
