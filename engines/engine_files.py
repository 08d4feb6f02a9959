"""From a model folder to an engine file, built on the machine that runs it and cached by all that it depends on.

A file is a line of JSON with the key, followed by the runtime's own bytes. Its name consists of model, backend,
precision and shape and the SHA-256 of the whole key, so two keys never share a file. Files of another release, GPU or
model are found by the first part of the name, to explain why they are not used.
"""

from __future__ import annotations

import hashlib
import json
import logging
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from engines.cache import cache_folder, one_at_a_time, write_whole
from engines.errors import EngineUnavailableError, one_line
from engines.spec import Engine, EngineSpec, Model

_LOG = logging.getLogger("colorize_archive.engines")
_KIND = "engines"
_ENDING = ".engine"
_FORMAT = 1
# Names of the fields that may differ between two keys; the others are in the first part of a file's name.
_WORDS = {"sha256": "the model's hash", "version": "the runtime's version", "device": "the processor"}


class Compiling(Protocol):
    """A backend whose engines are compiled to bytes that can be cached; see ``engines/backends``."""

    def device(self) -> str: ...

    def library_version(self) -> str: ...

    def build(self, model: Model, spec: EngineSpec) -> bytes: ...

    def open_engine(self, model: Model, spec: EngineSpec, compiled: bytes) -> Engine: ...


@dataclass(frozen=True)
class EngineKey:
    """All that a compiled engine depends on.

    Attributes
    ----------
    model, sha256 : name of the model and hash of the ONNX file that was compiled
    recipe : the backend's RECIPE, incremented when it builds another network from the same file
    backend, version, device : the runtime, its version, and the device that it compiled for, such as "sm_90"
    precision, tile_yx, batch : as in EngineSpec; the profile is 1 to ``batch`` tiles
    """

    model: str
    sha256: str
    backend: str
    version: str
    device: str
    precision: str
    tile_yx: tuple[int, int]
    batch: int
    recipe: int = 0

    @classmethod
    def of(cls, backend: Compiling, model: Model, spec: EngineSpec) -> EngineKey:
        """The key of the engine for ``spec`` on this machine. Raises ModelError, EngineUnavailableError."""
        return cls(
            model=model.card.name,
            sha256=model.sha256_for(spec.precision),
            backend=spec.backend,
            version=backend.library_version(),
            device=backend.device(),
            precision=spec.precision,
            tile_yx=spec.tile_yx,
            batch=spec.batch,
            recipe=int(getattr(backend, "RECIPE", 0)),
        )

    @property
    def _beginning(self) -> str:
        model = "".join(c if c.isalnum() else "_" for c in self.model)
        return f"{model}-{self.backend}-{self.precision}-{self.batch}x{self.tile_yx[0]}x{self.tile_yx[1]}"

    @property
    def file_name(self) -> str:
        text = json.dumps(asdict(self), sort_keys=True)
        return f"{self._beginning}-{hashlib.sha256(text.encode()).hexdigest()[:12]}{_ENDING}"

    def others(self, folder: Path) -> Iterator[Path]:
        """Files of the same model, backend, precision and shape under another key."""
        for path in sorted(folder.glob(f"{self._beginning}-*{_ENDING}")):
            if path.name != self.file_name:
                yield path

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> EngineKey:
        return cls(**{**values, "tile_yx": tuple(values["tile_yx"])})


@dataclass(frozen=True)
class EngineFile:
    """An engine file: its key, the time it was built, the runtime's bytes, and whether they were built just now."""

    path: Path
    key: EngineKey
    built: str
    compiled: bytes
    is_new: bool = False


def read_engine(path: Path) -> EngineFile:
    """Read and check an engine file. Raises ValueError, which says what is wrong with it, and OSError."""
    head, _, compiled = path.read_bytes().partition(b"\n")
    try:
        values = json.loads(head)
        if values["format"] != _FORMAT:
            raise ValueError(f"it has format {values['format']}, not {_FORMAT}")
        key, built, checksum = EngineKey.from_json(values["key"]), str(values["built"]), int(values["crc32"])
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError("it is not an engine file") from error
    if zlib.crc32(compiled) != checksum:
        raise ValueError("its bytes are damaged")
    return EngineFile(path, key, built, compiled)


def engine_files() -> list[Path]:
    """All engine files of this user, by name."""
    return sorted(cache_folder(_KIND).glob(f"*{_ENDING}"))


def remove_engines(is_meant: Callable[[Path], bool]) -> list[Path]:
    """Delete the engine files for which ``is_meant`` is true. Returns their paths."""
    gone = [path for path in engine_files() if is_meant(path)]
    for path in gone:
        path.unlink(missing_ok=True)
    return gone


def build_engine(
    backend: Compiling, model: Model, spec: EngineSpec, anew: bool = False, refused: EngineFile | None = None
) -> EngineFile:
    """The engine file of ``spec``, built if it is missing; ``anew`` builds it in any case.

    With ``refused``, a file that could not be used, it is built unless another process has replaced that file since.

    Two processes that request the same file build it once. An unusable file is built again, with one line in the log.

    Raises
    ------
    ModelError : the model cannot be compiled. EngineUnavailableError : not on this machine. EngineError : the file
    cannot be written.
    """
    key = EngineKey.of(backend, model, spec)
    path = cache_folder(_KIND) / key.file_name
    with one_at_a_time(path):
        reason = "asked for" if anew else _why_not(path, key)
        if not reason:
            found = read_engine(path)
            if refused is None or found.compiled != refused.compiled:
                return found
            reason = "the runtime refused the one there"
        compiled = backend.build(model, spec)
        _LOG.info("%s: built (%s)", path.name, reason)
        built = datetime.now(UTC).isoformat(timespec="seconds")
        head = {"format": _FORMAT, "key": asdict(key), "built": built, "crc32": zlib.crc32(compiled)}
        write_whole(path, json.dumps(head).encode() + b"\n" + compiled)
        return EngineFile(path, key, built, compiled, is_new=True)


def _why_not(path: Path, key: EngineKey) -> str:
    """The reason why the file cannot be used; empty if it can."""
    if path.is_file():
        try:
            found = read_engine(path).key
        except (ValueError, OSError) as error:
            return f"the one there cannot be used: {error}"
        return "" if found == key else "the one there is of another key"
    for other in key.others(path.parent):
        try:
            return _difference(read_engine(other).key, key)
        except (ValueError, OSError):
            continue
    return "there was none"


def _difference(old: EngineKey, new: EngineKey) -> str:
    before, now = asdict(old), asdict(new)
    changed = [
        f"{_WORDS.get(name, name)} was {before[name]} and is {now[name]}" for name in now if before[name] != now[name]
    ]
    return "the one there is stale: " + ", ".join(changed)


def open_compiled(backend: Compiling, model: Model, spec: EngineSpec) -> Engine:
    """Open the engine of ``spec`` from its file, which is built first if needed.

    A file that the runtime refuses, for example after a driver update, is built again once.
    """
    kept = build_engine(backend, model, spec)
    try:
        return backend.open_engine(model, spec, kept.compiled)
    except EngineUnavailableError:
        raise  # a problem of the machine, such as too little memory: another file would not help
    except Exception as error:  # each runtime has its own types
        if kept.is_new:
            raise
        _LOG.info("%s: refused by the runtime (%s)", kept.path.name, one_line(error))
        return backend.open_engine(model, spec, build_engine(backend, model, spec, refused=kept).compiled)
