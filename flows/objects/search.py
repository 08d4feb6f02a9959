"""Finds the scans among the objects that addresses name: one object, all below a folder, or those that match a pattern.

The rules are those of the search through folders (:mod:`flows.inputs`): the ending says what is taken, results of this
project are passed over, and what is not taken is counted. Nothing is fetched.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from glob import has_magic
from hashlib import sha256
from pathlib import Path, PurePosixPath

from flows.inputs import NO_ENDING, SHEET, NoScansError, PassedOver, ScanFile, SearchReport, Why, is_result
from flows.objects.bucket import Address, Bucket, ObjectInfo, is_safe
from flows.objects.layout import is_known, of_scan
from pipeline.endings import SCANS as ENDINGS
from pipeline.endings import WORLDS as WORLD_ENDINGS
from pipeline.hints import ENDINGS as HINT_ENDINGS
from pipeline.results.sidecar import SIDECAR_ENDING
from pipeline.support.names import folded

_OME_ZARR = ".ome.zarr"
_MOST_KEPT = 100


@dataclass(frozen=True)
class ScanObjects:
    """A scan in a bucket.

    Attributes
    ----------
    address : of its object, or of the folder of its objects
    etag, bytes, modified_ns : change when the scan does
    objects : what is fetched: the scan, and files beside it that are read with it
    stem : path of its results below the output, without ending
    """

    address: Address
    etag: str
    bytes: int
    modified_ns: int
    objects: tuple[ObjectInfo, ...]
    stem: str
    is_named: bool = False

    def scan_in(self, cache: Path) -> ScanFile:
        """The scan as it will be once it is fetched."""
        path = cache / self.address.bucket / self.address.key
        return ScanFile(path, self.stem, is_named=self.is_named, origin=str(self.address))


@dataclass(frozen=True)
class Unit:
    """A scan of a run: its file, and what has to be fetched for it to be there; None if it is."""

    file: ScanFile
    bytes: int
    objects: ScanObjects | None = None

    @property
    def has_hints(self) -> bool:
        """True if hints come with it, so that only a plan can say whether its result is that of today's."""
        return self.objects is not None and any(each.key.endswith(HINT_ENDINGS) for each in self.objects.objects)


@dataclass
class _Found:
    scans: dict[str, ScanObjects] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)
    passed: dict[Why, list[str]] = field(default_factory=lambda: defaultdict(list))
    empty: list[str] = field(default_factory=list)


def find_objects(addresses: Sequence[str], output: str) -> tuple[list[ScanObjects], SearchReport]:
    """The scans that addresses name, each once, in the order of their keys; and what was left out.

    Parameters
    ----------
    output : the address of the results, which are no scans

    Raises
    ------
    UsageError : an address is none. NoScansError : nothing was found. BucketError : a bucket cannot be listed.
    """
    found, buckets = _Found(), dict[str, Bucket]()
    for text in addresses:
        address = Address.parse(text)
        bucket = buckets.setdefault(address.bucket, Bucket(address.bucket))
        before = len(found.scans)
        if address.key and not text.endswith("/") and (named := bucket.find(address.key)) is not None:
            folder = address.key.rpartition("/")[0]
            near = [each for each in bucket.list(folder) if _is_beside(named.key, each.key)]
            stem = PurePosixPath(named.key).stem
            _take(found, ScanObjects(address, named.etag, named.bytes, named.modified_ns, (named, *near), stem, True))
        elif has_magic(address.key):
            _look_at(found, address, list(bucket.list(_fixed_part(address.key))), output, address.key)
        elif _is_ome_zarr(address.key) and not is_result(Path(address.key)):
            near = [each for each in bucket.list(address.key.rpartition("/")[0]) if _is_beside(address.key, each.key)]
            if parts := list(bucket.list(address.key)):
                stem = _stem(PurePosixPath(address.key).name, "", False)
                _take(found, replace(_of_folder(address, parts, near, stem), is_named=True))
        else:
            _look_at(found, address, list(bucket.list(address.key)), output)
        if len(found.scans) == before:
            found.empty.append(f"{text}: no scans there ({' '.join(ENDINGS)}); check the address")
    passed = {why: PassedOver(len(paths), tuple(paths[:_MOST_KEPT])) for why, paths in found.passed.items()}
    report = SearchReport(dict(found.ignored.most_common()), tuple(found.empty), passed)
    if not found.scans:
        raise NoScansError("; ".join(report.lines))
    return list(found.scans.values()), report


def _take(found: _Found, scan: ScanObjects) -> None:
    found.scans.setdefault(str(scan.address), scan)


def _look_at(found: _Found, address: Address, objects: list[ObjectInfo], output: str, pattern: str = "") -> None:
    """Take the scans among the objects of a folder, in the order of their keys."""
    folder = _fixed_part(pattern) if pattern else address.key
    keys = {each.key for each in objects}
    folders: dict[str, list[ObjectInfo]] = defaultdict(list)
    beside: dict[str, list[ObjectInfo]] = defaultdict(list)
    for each in objects:
        if each.key.lower().endswith((*HINT_ENDINGS, *WORLD_ENDINGS)):
            beside[each.key.rpartition("/")[0]].append(each)
    for each in sorted(objects, key=lambda each: each.key):
        if each.key.endswith("/") or _is_of_output(address.of(each.key), output):
            continue
        if not is_safe(each.key):
            found.passed["node"].append(address.of(each.key))
        elif (top := _top(each.key, folder)) is not None:
            if any(part.startswith(".") for part in top.removeprefix(folder).split("/")):
                found.passed["hidden"].append(address.of(each.key))
            else:
                folders[top].append(each)
        elif (not pattern or _matches(each.key, pattern)) and _is_scan(found, each.key, folder, keys, address):
            near = [other for other in beside[each.key.rpartition("/")[0]] if _is_beside(each.key, other.key)]
            of = Address(address.bucket, each.key)
            stem = _stem(each.key, folder, bool(pattern))
            _take(found, ScanObjects(of, each.etag, each.bytes, each.modified_ns, (each, *near), stem))
    for top, parts in folders.items():
        if not is_result(Path(top)) and (not pattern or _matches(top, pattern)):
            near = [other for other in beside[top.rpartition("/")[0]] if _is_beside(top, other.key)]
            _take(found, _of_folder(Address(address.bucket, top), parts, near, _stem(top, folder, bool(pattern))))


def _is_of_output(address: str, output: str) -> bool:
    """True if an object is one of those that runs put beside results; results themselves are known by their names."""
    start = f"{output.rstrip('/')}/"
    path = address.removeprefix(start)
    return address.startswith(start) and (path == SHEET or is_known(path))


def _top(key: str, folder: str) -> str | None:
    """The OME-Zarr folder that an object is in; results of this project's are such folders too."""
    parts = key.split("/")
    first = len(folder.split("/")) if folder else 0
    names = enumerate(parts[:-1])
    return next(("/".join(parts[: n + 1]) for n, name in names if n >= first and _is_ome_zarr(name)), None)


def _is_ome_zarr(name: str) -> bool:
    return name.lower().endswith(_OME_ZARR)


def _of_folder(address: Address, parts: list[ObjectInfo], near: list[ObjectInfo], stem: str) -> ScanObjects:
    told = "".join(f"{each.key} {each.etag}\n" for each in sorted(parts, key=lambda each: each.key))
    modified_ns = max(each.modified_ns for each in parts)
    size = sum(each.bytes for each in parts)
    return ScanObjects(address, sha256(told.encode()).hexdigest(), size, modified_ns, (*parts, *near), stem)


def _is_scan(found: _Found, key: str, folder: str, keys: set[str], address: Address) -> bool:
    """True if an object is named like a scan; notes why not."""
    path = PurePosixPath(key)
    below = key.removeprefix(f"{folder}/") if folder else key
    ending = path.suffix.lower()
    if (of := of_scan(below)) is not None:
        if of.top == below and is_result(Path(below)):
            told = f"{folder}/{of.base}{SIDECAR_ENDING}" if folder else f"{of.base}{SIDECAR_ENDING}"
            found.passed["result" if told in keys else "like a result"].append(address.of(key))
        return False
    if any(part.startswith(".") for part in below.split("/")):
        if ending in ENDINGS:
            found.passed["hidden"].append(address.of(key))
        return False
    if key.endswith(HINT_ENDINGS) or ending in WORLD_ENDINGS:
        return False
    if ending not in ENDINGS:
        found.ignored[ending or NO_ENDING] += 1
    return ending in ENDINGS


def _stem(key: str, folder: str, is_matched: bool) -> str:
    path = PurePosixPath(key)
    below = path.name if is_matched else key.removeprefix(f"{folder}/") if folder else key
    return _without_ending(below)


def _without_ending(key: str) -> str:
    return key[: -len(_OME_ZARR)] if _is_ome_zarr(key) else key.removesuffix(PurePosixPath(key).suffix)


def _is_beside(key: str, other: str) -> bool:
    """True if an object is read together with a scan: a world file, or hints of it or of its pages."""
    base = _without_ending(key)
    is_kind = other.endswith(HINT_ENDINGS) or PurePosixPath(other).suffix.lower() in WORLD_ENDINGS
    return is_kind and other != key and other.startswith(f"{base}.") and "/" not in other[len(base) :]


def _fixed_part(pattern: str) -> str:
    parts = pattern.split("/")
    first = next(n for n, part in enumerate(parts) if has_magic(part))
    return "/".join(parts[:first])


def _matches(key: str, pattern: str) -> bool:
    """As ``glob`` does: ``*`` stays within a folder, ``**`` is any number of folders."""
    return _match(key.split("/"), pattern.split("/"))


def _match(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    if not patterns:
        return not parts
    if patterns[0] == "**":
        return any(_match(parts[n:], patterns[1:]) for n in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], patterns[0]) and _match(parts[1:], patterns[1:])


def parts_of(scans: Iterable[Unit], limit_bytes: int, most: int) -> Iterator[list[Unit]]:
    """The scans in parts of at most ``limit_bytes`` and ``most`` scans; a larger scan is a part of its own.

    Scans that might get the same name are in one part, so that the same one of them gets it whatever the limit is.
    """
    alike: dict[str, list[Unit]] = defaultdict(list)
    for scan in scans:
        alike[folded(scan.file.stem)].append(scan)
    part: list[Unit] = []
    for group in alike.values():
        size = sum(each.bytes for each in (*part, *group))
        if part and (size > limit_bytes or len(part) + len(group) > most):
            yield part
            part = []
        part += group
    if part:
        yield part
