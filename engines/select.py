"""Which backend runs, and why; and the one place where an engine is opened."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import engines.backends
from engines.errors import EngineUnavailableError, ModelError
from engines.spec import Engine, EngineSpec, Model, find_model

AUTO = "auto"


@dataclass(frozen=True)
class Choice:
    """The backend that will run, its runtime's version, and the reason in words."""

    backend: str
    version: str
    reason: str

    def __str__(self) -> str:
        return f"engine {self.backend} {self.version}: {self.reason}"


def backend_names() -> list[str]:
    """All backends that have a file, installed or not."""
    return sorted(module.name for module in pkgutil.iter_modules(engines.backends.__path__))


def _backend(name: str) -> ModuleType:
    if name not in backend_names():
        raise EngineUnavailableError(
            f"unknown engine {name!r}: nothing could be predicted; give auto or one of {', '.join(backend_names())}"
        )
    return importlib.import_module(f"engines.backends.{name}")


def _version(name: str) -> str:
    try:
        return str(_backend(name).version())
    except ImportError as error:
        raise EngineUnavailableError(
            f"engine {name} is not usable here ({error}): nothing could be predicted; pip install {name}, or use auto"
        ) from error


def choose(name: str = AUTO) -> Choice:
    """Resolve ``auto`` to the fastest backend that is installed, or check the named one.

    Raises
    ------
    EngineUnavailableError : unknown or not installed; for ``auto``, none is.
    """
    if name != AUTO:
        return Choice(name, _version(name), "asked for")
    ranked = sorted((_backend(n).RANK, n) for n in backend_names() if _backend(n).RANK is not None)
    problems = []
    for _, candidate in ranked:
        try:
            return Choice(candidate, _version(candidate), str(_backend(candidate).REASON))
        except EngineUnavailableError as error:
            problems.append(str(error))
    raise EngineUnavailableError(f"no engine is usable: {'; '.join(problems)}")


def model_for(backend: str, name_or_folder: str) -> Model:
    """The model that ``backend`` runs: the named one, or the backend's own where it needs none. Raises ModelError."""
    card = getattr(_backend(backend), "CARD", None)
    return find_model(name_or_folder) if card is None else Model(Path(), card)


def open_engine(spec: EngineSpec) -> Engine:
    """Load the spec's model into its backend.

    Raises
    ------
    ModelError : damaged model, or tiles that the model cannot take. EngineUnavailableError : backend not usable.
    """
    model = model_for(spec.backend, spec.model_folder)
    check_tile(model, spec.tile_yx)
    _version(spec.backend)
    try:
        engine: Engine = _backend(spec.backend).open_engine(model, spec)
    except Exception as error:  # each runtime has its own kinds
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise ModelError(
            f"{model.onnx_path}: engine {spec.backend} cannot load it ({reason[0]}); export the model again"
        ) from error
    return engine


def check_tile(model: Model, tile_yx: tuple[int, int]) -> None:
    """Raise ModelError where the model cannot take tiles of ``tile_yx`` pixels, naming the nearest that it can."""
    multiple = model.card.size_multiple
    if any(size % multiple or size < 1 for size in tile_yx):
        nearest = "x".join(str(max(multiple, round(size / multiple) * multiple)) for size in tile_yx)
        raise ModelError(
            f"tile {tile_yx[0]}x{tile_yx[1]}: model {model.card.name} takes multiples of {multiple} px, others would "
            f"be cut; give --tile {nearest}"
        )
