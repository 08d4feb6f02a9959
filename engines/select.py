"""``auto``: the choice of a backend and a precision, with the reason."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from engines.errors import BackendNotInstalledError, EngineError, EngineUnavailableError, ModelError, one_line
from engines.palette import plain_backend
from engines.registry import (
    backend_module,
    backend_names,
    check_engine,
    check_precision,
    check_tile,
    computes,
    model_for,
    precisions_of,
    usable_version,
)
from engines.spec import AUTO, GENERATOR, PALETTE, Model


@dataclass(frozen=True)
class EngineChoice:
    """The chosen backend, its runtime's version, the precision, and the reason in words."""

    backend: str
    version: str
    precision: str
    reason: str

    def __str__(self) -> str:
        return f"engine {self.backend} {self.version}, {self.precision}: {self.reason}"


def choose(
    name: str = AUTO,
    model: str = "default",
    precision: str = AUTO,
    tile_yx: tuple[int, int] | None = None,
    network: str = GENERATOR,
) -> tuple[EngineChoice, Model]:
    """Resolve ``auto``: the first usable backend, in the fastest precision that keeps the picture.

    Which precisions keep it is measured once per machine (:mod:`engines.measure.autotune`); a precision requested by
    name is used without a measurement. ``tile_yx`` is the size of the tiles, if known.

    Raises
    ------
    EngineUnavailableError : unknown or not usable; for ``auto``, none is. ModelError : the model cannot be used.
    """
    check_engine(name, precision)
    if name != AUTO:
        version = usable_version(name)
        found = model_for(name, model, network)
        chosen, why = _precision(name, version, found, precision, tile_yx)
        return EngineChoice(name, version, chosen, f"asked for{why}"), found
    missing, refused = [], []
    for candidate in [each for each in _ranked() if computes(each, network)]:
        try:
            version = str(backend_module(candidate).version())
            found = model_for(candidate, model, network)
            chosen, why = _precision(candidate, version, found, precision, tile_yx)
        except (ImportError, BackendNotInstalledError) as error:
            missing.append(f"{candidate}: {error}")
            continue
        except ModelError:
            raise
        except Exception as error:  # plugins may raise anything
            refused.append(f"{candidate}: {one_line(error)}")  # worth reporting: its library is installed
            continue
        reason = backend_module(candidate).REASON + why + "".join(f"; {each}" for each in refused)
        return EngineChoice(candidate, version, chosen, reason), found
    raise EngineUnavailableError(f"no engine is usable: {'; '.join([*refused, *missing])}")


def _ranked() -> list[str]:
    """The backends that ``auto`` tries, in order."""
    ranks = []
    for name in backend_names():
        with contextlib.suppress(EngineUnavailableError):
            rank = backend_module(name).RANK
            ranks += [] if rank is None else [(rank, name)]
    return [name for _, name in sorted(ranks)]


def _precision(
    name: str, version: str, model: Model, precision: str, tile_yx: tuple[int, int] | None
) -> tuple[str, str]:
    """The precision to use, and the reason in words. Raises EngineUnavailableError, ModelError."""
    if tile_yx is not None:
        check_tile(model, tile_yx)
    offered = precisions_of(name, model)
    if precision != AUTO:
        check_precision(name, precision)
        model.onnx_for(precision)
        return precision, ""
    if not offered:
        raise EngineUnavailableError(f"engine {name} computes model {model.card.name} in no precision that is here")
    if len(offered) == 1:
        return offered[0], ""
    from engines.measure.autotune import fastest_that_keeps_the_picture

    return fastest_that_keeps_the_picture(name, version, model, offered, tile_yx)


def choose_palette(model: Model, backend: str, precision: str = AUTO) -> EngineChoice:
    """Backend and precision of a model's palette network, in a run whose tiles are computed by ``backend``.

    Parameters
    ----------
    precision : requested for the tiles; used for the palette too if possible

    Raises
    ------
    EngineUnavailableError : no backend is usable. ModelError : the model has no palette network.
    """
    name = backend if computes(backend, PALETTE) else plain_backend()
    found = model.as_network(PALETTE)
    wanted = precision if precision in precisions_of(name, found) else AUTO
    side = found.card.size_multiple
    try:
        return choose(name, str(model.folder), wanted, (side, side), PALETTE)[0]
    except ModelError:
        raise
    except EngineError as error:
        plain = plain_backend()
        return EngineChoice(plain, usable_version(plain), "fp32", str(error))
