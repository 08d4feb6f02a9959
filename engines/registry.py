"""The available backends, what each can do on this machine, and the only place where engines are opened.

A backend is one module with RANK, REASON, PRECISIONS, ``version()`` and ``open_engine(model, spec)``: a file under
``engines/backends``, or any module that an installed package names in the entry point group
``colorize_archive.backends``. A compiling backend also has ``build``, ``device`` and ``library_version``
(:class:`engines.engine_files.Compiling`), and its ``open_engine`` takes the compiled bytes too.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import engines.backends
from engines.engine_files import Compiling, open_compiled
from engines.errors import EngineError, EngineUnavailableError, ModelError, one_line
from engines.spec import AUTO, GENERATOR, PRECISIONS, Engine, EngineSpec, Model, find_model

PLUGINS = "colorize_archive.backends"


@cache
def _plugins() -> dict[str, importlib.metadata.EntryPoint]:
    return {entry.name: entry for entry in importlib.metadata.entry_points(group=PLUGINS)}


def has_plugins() -> bool:
    """True if an installed package brings a backend."""
    return bool(_plugins())


def backend_names() -> list[str]:
    """All backends with a file or a plugin, whether usable on this machine or not."""
    names = {module.name for module in pkgutil.iter_modules(engines.backends.__path__) if module.name[0] != "_"}
    return sorted(names | set(_plugins()))


def check_engine(name: str, precision: str) -> None:
    """Raises EngineUnavailableError if there is no such backend or number format, which no library has to say."""
    if name != AUTO:
        _check_name(name)
    if precision not in (AUTO, *PRECISIONS):
        raise EngineUnavailableError(
            f"unknown precision {precision!r}: nothing could be predicted; give auto or one of {', '.join(PRECISIONS)}",
            "precision",
        )


def _check_name(name: str) -> None:
    if name not in backend_names():
        raise EngineUnavailableError(
            f"unknown engine {name!r}: nothing could be predicted; give auto or one of {', '.join(backend_names())}",
            "engine",
        )


def backend_module(name: str) -> ModuleType:
    """The backend's module. Raises EngineUnavailableError."""
    _check_name(name)
    if name not in _plugins():
        return importlib.import_module(f"engines.backends.{name}")
    try:
        module = cast(ModuleType, _plugins()[name].load())
    except Exception as error:  # whatever another's code does
        raise EngineUnavailableError(
            f"engine {name}: its package cannot be loaded ({one_line(error)}); mend it", "engine"
        ) from error
    missing = [each for each in ("RANK", "REASON", "PRECISIONS", "version", "open_engine") if not hasattr(module, each)]
    if missing:
        raise EngineUnavailableError(
            f"engine {name}: its module lacks {', '.join(missing)}; see docs/engines.md", "engine"
        )
    return module


def refusal(name: str, precision: str) -> str:
    """The reason why a backend cannot compute in ``precision`` on this machine; empty if it can."""
    module = backend_module(name)
    if precision not in module.PRECISIONS:
        return f"it has {', '.join(module.PRECISIONS)}"
    return str(getattr(module, "lacks", lambda _: "")(precision))


def processor_of(name: str) -> str:
    """The kind of processor that a backend uses: "cpu" or "gpu". Raises EngineUnavailableError."""
    return str(getattr(backend_module(name), "PROCESSOR", "cpu"))


def compiles(name: str) -> bool:
    """True if a backend compiles engines to cached files. Raises EngineUnavailableError."""
    return hasattr(backend_module(name), "build")


def usable_version(name: str) -> str:
    """The version of a backend's runtime, if it can run here. Raises EngineUnavailableError."""
    module = backend_module(name)
    try:
        return str(module.version())
    except EngineError:
        raise
    except ImportError as error:
        raise EngineUnavailableError(
            f"engine {name} is not usable here ({error}): nothing could be predicted; "
            f"pip install {getattr(module, 'INSTALL', name)}, or use auto",
            "engine",
        ) from error
    except Exception as error:  # whatever another's code does
        raise EngineUnavailableError(
            f"engine {name} is not usable here ({one_line(error)}); use auto", "engine"
        ) from error


def computes(name: str, network: str) -> bool:
    """True if a backend supports this kind of network, not only generators. Raises EngineUnavailableError."""
    return network in getattr(backend_module(name), "NETWORKS", (GENERATOR,))


def precisions_of(name: str, model: Model) -> list[str]:
    """The precisions in which a backend can compute ``model`` on this machine, its preferred one first."""
    offered = [precision for precision in backend_module(name).PRECISIONS if not refusal(name, precision)]
    return [precision for precision in offered if precision != "int8" or model.card.int8_sha256]


def check_precision(name: str, precision: str) -> None:
    """Raise EngineUnavailableError if a backend cannot compute in ``precision`` here."""
    if reason := refusal(name, precision):
        raise EngineUnavailableError(
            f"engine {name} cannot compute in {precision} here ({reason}): nothing could be predicted; "
            "give another --precision, or auto",
            "precision",
        )


def model_for(backend: str, name_or_folder: str, network: str = GENERATOR) -> Model:
    """The model that ``backend`` runs: the named one, or the backend's own if it needs none.

    Raises
    ------
    ModelError : no such model, or it has no such network. EngineUnavailableError : the backend does not support it.
    """
    if not computes(backend, network):
        raise EngineUnavailableError(
            f"engine {backend} computes no {network} networks: nothing could be predicted; use another --engine"
        )
    card = getattr(backend_module(backend), "CARD", None)
    return find_model(name_or_folder).as_network(network) if card is None else Model(Path(), card)


def open_engine(spec: EngineSpec) -> Engine:
    """Load the spec's model into its backend; a compiling backend compiles it once, see :mod:`engines.engine_files`.

    Raises
    ------
    ModelError : damaged model, or tiles that the model does not accept. EngineUnavailableError : backend not usable.
    """
    model = model_for(spec.backend, spec.model_folder, spec.network)
    check_tile(model, spec.tile_yx)
    usable_version(spec.backend)
    check_precision(spec.backend, spec.precision)
    module: Any = backend_module(spec.backend)
    try:
        if compiles(spec.backend):
            return open_compiled(cast(Compiling, module), model, spec)
        engine: Engine = module.open_engine(model, spec)
    except EngineError:
        raise
    except Exception as error:  # each runtime has its own types
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise ModelError(
            f"{model.files_for(spec.precision)[-1]}: engine {spec.backend} cannot load it in {spec.precision} "
            f"({reason[0]}); export the model again, or use another --engine or --precision"
        ) from error
    return engine


def extra_bytes(spec: EngineSpec) -> int:
    """Memory of an engine beyond that of a float32 engine with a single stream, as stated by its backend."""
    return int(getattr(backend_module(spec.backend), "extra_bytes", lambda _: 0)(spec))


def check_tile(model: Model, tile_yx: tuple[int, int]) -> None:
    """Raise ModelError if the model does not accept tiles of ``tile_yx`` pixels; the message names the nearest size."""
    multiple = model.card.size_multiple
    if any(size % multiple or size < 1 for size in tile_yx):
        nearest = "x".join(str(max(multiple, round(size / multiple) * multiple)) for size in tile_yx)
        raise ModelError(
            f"tile {tile_yx[0]}x{tile_yx[1]}: model {model.card.name} takes multiples of {multiple} px, others would "
            f"be cut; give --tile {nearest}"
        )
