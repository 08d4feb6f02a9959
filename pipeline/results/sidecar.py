"""``NAME.color.json``, the sidecar beside a result: what was done, by what, to which bytes.

``docs/sidecar.md`` describes its layout. Parts are independent: one that is damaged, or of another release, is None or
empty, and the rest still says whose picture it is. Code that needs a part asks with :meth:`Sidecar.needed`, which
raises the :class:`SidecarError` that says what is wrong with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Self, TypeVar, get_args, get_origin, get_type_hints

from pipeline.endings import FORMATS as ENDINGS
from pipeline.errors import SidecarError
from pipeline.quality.figures import Quality
from pipeline.results.run_spec import RunSpec
from pipeline.results.signatures import Signature
from pipeline.support.files import read_text

SIDECAR_ENDING = ".color.json"

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class _Record:
    """One object of the JSON.

    Attributes
    ----------
    unwritten : keys of this release's layout that the file lacks, because an earlier release wrote it
    further : keys of the file that are not in this release's layout, with their values
    """

    unwritten: frozenset[str] = field(default=frozenset(), repr=False)
    further: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def kinds(cls) -> Mapping[str, Any]:
        """The type of each key."""
        return _kinds(cls)  # type: ignore[arg-type]  # mypy takes the hash of the instances for that of the class

    @classmethod
    def from_json(cls, values: Any) -> Self:
        """A record from the output of :meth:`to_json`. Raises KeyError, TypeError for anything else."""
        kinds = cls.kinds()
        known = {name: value for name, value in _object(values).items() if name in kinds}
        for name, value in known.items():
            if not _fits(value, kinds[name]):
                raise TypeError(f"{name!r} is {value!r:.80}")
        further = {name: value for name, value in values.items() if name not in kinds}
        return cls(**known, unwritten=frozenset(kinds.keys() - known.keys()), further=further)

    def to_json(self) -> dict[str, Any]:
        """A JSON object with keys in the order of the layout."""
        return {
            **{name: getattr(self, name) for name in self.kinds() if name not in self.unwritten},
            **self.further,
        }


@dataclass(frozen=True, kw_only=True)
class SourceRecord(_Record):
    """The scan file. ``metadata`` is that of :class:`pipeline.types.ScanInfo`, ``holes`` are y0, y1, x0, x1."""

    path: str = ""
    page: int = 1
    name: str = ""
    bytes: int = 0
    sha256: str = ""
    height_px: int = 0
    width_px: int = 0
    channels: int = 1
    dtype: str = ""
    depth: str = ""
    tone: str = ""
    mask: str = ""
    holes: Sequence[Sequence[int]] = ()
    icc_profile: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """True if the record has all keys that every release wrote."""
        return not self.unwritten & {"path", "bytes", "sha256", "height_px", "width_px"}

    @property
    def shape_yx(self) -> tuple[int, int]:
        return self.height_px, self.width_px


@dataclass(frozen=True, kw_only=True)
class PictureRecord(_Record):
    """One picture of the result; None for values that the sidecar lacks.

    Attributes
    ----------
    file : its name beside the sidecar
    bytes, sha256 : of the file, or of all files of a folder
    levels : number of levels, the picture itself included
    carries_metadata : whether it should carry the scan's embedded metadata
    not_carried : the parts of the metadata that it does not carry, and why
    premis : the PREMIS event of its creation
    signed : its Content Credentials (:class:`pipeline.results.signatures.Signature`); empty if it has none
    """

    file: str = ""
    bytes: int | None = None
    sha256: str = ""
    levels: int = 0
    carries_metadata: bool | None = None
    not_carried: Mapping[str, str] = field(default_factory=dict)
    premis: Mapping[str, Any] = field(default_factory=dict)
    signed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def signature(self) -> Signature | None:
        return Signature.from_json(self.signed) if self.signed else None

    def with_signature(self, signature: Signature) -> PictureRecord:
        """The record of the picture that was signed; ``bytes`` and ``sha256`` are those of the file as it lies."""
        return replace(self, signed=signature.to_json(), unwritten=self.unwritten - {"signed"})

    def without_signature(self, size: int, sha256: str) -> PictureRecord:
        """The record of the picture without credentials, whose file has these bytes."""
        return replace(self, bytes=size, sha256=sha256, signed={})


@dataclass(frozen=True, kw_only=True)
class ResultRecord(_Record):
    """Names of the version and of its store beside the sidecar."""

    version: str
    store: str


@dataclass(frozen=True, kw_only=True)
class PaletteCopyRecord(_Record):
    """The coloured copy that the palette is of.

    Attributes
    ----------
    matrix : two rows of three numbers, from x, y, 1 on the scan to x, y on the copy, in pixels from the corner
    score, agreeing, covered : as in :class:`pipeline.palettes.registration.Registration`
    made_by : what the copy says of its making (:func:`pipeline.metadata.provenance.made_by`)
    """

    name: str = ""
    path: str = ""
    bytes: int = 0
    sha256: str = ""
    height_px: int = 0
    width_px: int = 0
    matrix: Sequence[Sequence[float]] = ()
    score: float = 0.0
    agreeing: float = 0.0
    covered: float = 0.0
    made_by: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SeriesRecord(_Record):
    """The series that the palette was made in.

    Attributes
    ----------
    name, sha256 : its name in the list, and the hash of the bytes of all its scans
    members : the scans of it, by the names of their results
    missing : those whose colours were not known, and so did not count
    shared : by fellow, the share of the scan that both show, 0 to 1
    """

    name: str = ""
    sha256: str = ""
    members: Sequence[str] = ()
    missing: Sequence[str] = ()
    shared: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class HintsRecord(_Record):
    """The hints that corrected the colours.

    Attributes
    ----------
    files : paths of the files they were read from
    sha256 : as ``hints_sha256`` in the settings
    count : number of hints
    authors, sources : whoever and whatever the hints name, each once
    from_series : how many of them were carried over from another scan of the series, by the name of its results
    """

    files: Sequence[str] = ()
    sha256: str = ""
    count: int = 0
    authors: Sequence[str] = ()
    sources: Sequence[str] = ()
    from_series: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StoreRecord(_Record):
    """SHA-256 of the store's small files, by path within the store, and of the records of all blocks."""

    sha256: Mapping[str, str]
    records_sha256: str


@dataclass(frozen=True, kw_only=True)
class WorkRecord(_Record):
    """The work that a result took; ``seconds`` by stage."""

    megapixels: float = 0.0
    tiles: int = 0
    predictions: int = 0
    blocks: int = 0
    blocks_there: int = 0
    block_px: int = 0
    seconds: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """The contents of the JSON. A missing or damaged part is None, a missing text or mapping empty.

    ``settings`` and ``quality`` are as in the file; :attr:`spec` and :attr:`figures` are the same, parsed as values of
    this release.

    Attributes
    ----------
    path : the file that it was read from; None if it was not read
    faults : the damaged parts, each with its error
    unwritten, further : as in the records of its parts
    """

    what: str = ""
    software: str = ""
    flow: str = ""
    finished: str = ""
    source: SourceRecord | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    palette_copy: PaletteCopyRecord | None = None
    series: SeriesRecord | None = None
    hints: HintsRecord | None = None
    result: ResultRecord | None = None
    pictures: Mapping[str, PictureRecord] = field(default_factory=dict)
    store: StoreRecord | None = None
    quality: Mapping[str, Any] | None = None
    work: WorkRecord | None = None
    versions: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = field(default=None, compare=False)
    faults: Mapping[str, SidecarError] = field(default_factory=dict, compare=False, repr=False)
    unwritten: frozenset[str] = field(default=frozenset(), repr=False)
    further: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, path: Path) -> Sidecar:
        """Read a sidecar. Raises SidecarError if the file holds no JSON object."""
        return cls.from_json(_parsed(str(path), lambda: _object(json.loads(read_text(path)))), path)

    @classmethod
    def find(cls, path: Path) -> Sidecar | None:
        """As :meth:`read`, but None if there is no readable sidecar."""
        try:
            return cls.read(path)
        except SidecarError:
            return None

    @classmethod
    def glance(cls, path: Path) -> Sidecar | None:
        """As :meth:`find`, with no more than what says whose pictures these are and what they were made with."""
        try:
            values = _parsed(str(path), lambda: _object(json.loads(read_text(path))))
        except SidecarError:
            return None
        return cls.from_json({name: values[name] for name in _AT_A_GLANCE if name in values}, path)

    @classmethod
    def from_json(cls, values: Mapping[str, Any], path: Path | None = None) -> Sidecar:
        """A sidecar from the output of :meth:`to_json`; invalid parts are listed in ``faults``."""
        faults: dict[str, SidecarError] = {}

        def part(name: str, parse: Callable[[Any], T], of: Mapping[str, Any] = values) -> T | None:
            if name not in of:
                return None
            try:
                return parse(of[name])
            except _WRONG as error:
                faults[name] = _reported(f"{path or SIDECAR_ENDING}: {name}", error)
                return None

        entries = {name: each for name, each in (part("pictures", _object) or {}).items() if isinstance(each, Mapping)}
        # Even a damaged entry shows that the picture is this project's.
        unknown = PictureRecord(unwritten=frozenset(PictureRecord.kinds()))
        return cls(
            what=part("what", _text) or "",
            software=part("software", _text) or "",
            flow=part("flow", _text) or "",
            finished=part("finished", _text) or "",
            source=part("source", SourceRecord.from_json),
            settings=part("settings", _object) or {},
            palette_copy=part("palette_copy", lambda value: PaletteCopyRecord.from_json(value) if value else None),
            series=part("series", lambda value: SeriesRecord.from_json(value) if value else None),
            hints=part("hints", lambda value: HintsRecord.from_json(value) if value else None),
            result=part("result", ResultRecord.from_json),
            pictures={name: part(name, PictureRecord.from_json, entries) or unknown for name in entries},
            store=part("store", StoreRecord.from_json),
            quality=part("quality", lambda value: _object(value) if value else None),
            work=part("work", WorkRecord.from_json),
            versions=part("versions", _object) or {},
            path=path,
            faults=faults,
            unwritten=frozenset(_LAYOUT - values.keys()),
            further={name: value for name, value in values.items() if name not in _LAYOUT},
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON object with keys in the order of the layout, which is that of the fields."""
        known = {each.name: getattr(self, each.name) for each in fields(self) if each.name in _LAYOUT}
        known["pictures"] = {name: each.to_json() for name, each in self.pictures.items()}
        for name, value in known.items():
            known[name] = value.to_json() if isinstance(value, _Record) else value
        return {**{name: value for name, value in known.items() if name not in self.unwritten}, **self.further}

    @cached_property
    def spec(self) -> RunSpec | None:
        """The settings; None if this release cannot parse them."""
        return self._value("settings", lambda: RunSpec.from_json(self.settings))

    @cached_property
    def figures(self) -> Quality | None:
        """The quality; None if it is missing or this release cannot parse it."""
        quality = self.quality
        return self._value("quality", lambda: Quality.from_json(quality)) if quality else None

    @property
    def version(self) -> str | None:
        """The version's name by the settings; None if this release cannot parse them."""
        return self.spec.version if self.spec else None

    def _value(self, name: str, parse: Callable[[], T]) -> T | None:
        try:
            return _parsed(f"{self.path}: {name}", parse)
        except SidecarError:
            return None

    def is_of(self, sha256: str) -> bool:
        """True if the result was made from a scan file with this hash."""
        return self.source is not None and self.source.sha256 == sha256 != ""

    def says(self, *names: str) -> bool:
        """True if all these parts are present and undamaged."""
        return not (self.unwritten | self.faults.keys()) & set(names)

    @property
    def whole_source(self) -> SourceRecord | None:
        """The scan file, if its record has all keys that every release wrote; else None."""
        return self.source if self.source is not None and self.source.is_whole else None

    def needed(self, name: str, part: T | None) -> T:
        """Return ``part``, which is called ``name``. Raises SidecarError if it is missing or damaged."""
        if part is None:
            raise self.faults.get(name) or self._lacks(name, "it is missing, or of another release")
        return part

    def needs(self, name: str, record: _Record, *keys: str) -> None:
        """Raises SidecarError if ``record``, the part called ``name``, lacks any of ``keys`` in the file."""
        if lacking := sorted(record.unwritten & set(keys)):
            raise self.faults.get(name) or self._lacks(name, f"no {', '.join(map(repr, lacking))}")

    def _lacks(self, name: str, reason: str) -> SidecarError:
        return _error(f"{self.path or SIDECAR_ENDING}: {name}", reason)


_WRONG = (AttributeError, LookupError, OSError, TypeError, ValueError)
_AT_A_GLANCE = ("flow", "source", "settings", "pictures")
_LAYOUT = frozenset(each.name for each in fields(Sidecar)) - {"path", "faults", "unwritten", "further"}


def _parsed(where: str, parse: Callable[[], T]) -> T:
    """The result of ``parse``. Errors in sidecars are reported only here. Raises SidecarError."""
    try:
        return parse()
    except _WRONG as error:
        raise _reported(where, error) from error


def _reported(where: str, error: Exception) -> SidecarError:
    reason = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
    made = _error(where, getattr(error, "strerror", None) or reason)
    made.__cause__ = error
    return made


def _error(where: str, reason: str) -> SidecarError:
    return SidecarError(
        f"{where}: {reason}, so what the result should be is not known; restore the file, or run again with --force"
    )


@cache
def _kinds(record: type) -> dict[str, Any]:
    """The type of each key of a record."""
    hints = get_type_hints(record)
    return {each.name: hints[each.name] for each in fields(record) if each.name not in ("unwritten", "further")}


def _fits(value: Any, kind: Any) -> bool:
    """True if a JSON value has a type such as ``Mapping[str, float]``."""
    if type(value) is kind or kind is Any:
        return True
    origin, inner = _taken_apart(kind)
    if origin is Mapping:
        return isinstance(value, Mapping) and (inner is Any or all(_fits(each, inner) for each in value.values()))
    if origin is Sequence:
        return isinstance(value, list | tuple) and all(_fits(each, inner) for each in value)
    return isinstance(value, (int, float) if kind is float else kind)


@cache
def _taken_apart(kind: Any) -> tuple[Any, Any]:
    """``Mapping`` or ``Sequence`` and the type of its values; None for other types."""
    return get_origin(kind), (get_args(kind) or (None,))[-1]


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{value!r:.80} is no object")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.80} is no text")
    return value


def sidecar_of(result: Path) -> Path | None:
    """The sidecar's path for a picture of this project, by its name, or the sidecar itself; None for other names."""
    for ending in (SIDECAR_ENDING, *sorted(ENDINGS.values(), key=len, reverse=True)):
        if result.name.endswith(ending):
            return result.with_name(result.name.removesuffix(ending) + SIDECAR_ENDING)
    return None


def version_of(path: Path) -> str | None:
    """The version that a sidecar describes, or None if there is no readable sidecar."""
    sidecar = Sidecar.find(path)
    return sidecar.version if sidecar else None


def pictures_of(path: Path) -> dict[str, PictureRecord]:
    """The records of a sidecar's pictures, by format; unknown formats are left out."""
    sidecar = Sidecar.find(path)
    return {} if sidecar is None else {name: each for name, each in sidecar.pictures.items() if name in ENDINGS}
