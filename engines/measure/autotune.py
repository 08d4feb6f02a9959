"""The best precision of a backend: measured once per model and machine, and cached.

A precision must keep the picture (:mod:`engines.measure.parity`), and must be faster than those that keep it better by
more than the scatter of these measurements; a lower precision gains nothing if kernels for it are missing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import platform
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from engines.cache import cache_folder, one_at_a_time, write_whole
from engines.errors import EngineError, EngineUnavailableError, one_line
from engines.machine import processors
from engines.measure.bench import best_rates
from engines.measure.parity import BOUNDS, measure_parity
from engines.palette import BATCH
from engines.registry import backend_module, model_for, precisions_of, usable_version
from engines.spec import GENERATOR, PALETTE, EngineSpec, Model

_LOG = logging.getLogger("colorize_archive.engines")
_KIND = "trials"
_BATCH = 8
_TILES = {GENERATOR: 24, PALETTE: 8}
_ALONE = {GENERATOR: 6, PALETTE: 2}
_GAIN = 1.15
# Tiles as large as whole scans take minutes each: their precision is chosen on tiles of the usual size.
_LARGEST_PX = 512 * 512
_USUAL_PX = 256
# Incremented when trials of older code become invalid.
_FORMAT = 4


# Trials that could not be cached on disk, kept for this process.
_not_kept: dict[str, list[Trial]] = {}


@dataclass(frozen=True)
class Trial:
    """The result of trying one precision.

    Attributes
    ----------
    precision : as in EngineSpec
    keeps : whether the picture stays the same
    said : the figures, or why there are none
    tiles_per_s : the best measured rate; 0 if not measured
    lasts : whether the result is permanent; a lack of memory may be temporary
    """

    precision: str
    keeps: bool
    said: str
    tiles_per_s: float = 0.0
    lasts: bool = True


def fastest_that_keeps_the_picture(
    backend: str, version: str, model: Model, offered: list[str], tile_yx: tuple[int, int] | None
) -> tuple[str, str]:
    """One of ``offered``, and a text on its measurements and on the refused ones.

    Raises
    ------
    EngineUnavailableError : none keeps the picture.
    """
    found = trials(backend, version, model, offered, tile_yx)
    keepers = {each.precision: each for each in found if each.keeps}
    refused = [f"{each.precision} refused: {each.said}" for each in found if not each.keeps]
    if not keepers:
        raise EngineUnavailableError(
            f"engine {backend}, model {model.card.name}: the colours would be others ({'; '.join(refused)}); "
            "use another --engine, or name a --precision"
        )
    fastest, *coarser = sorted(keepers.values(), key=lambda each: BOUNDS[each.precision])
    for each in coarser:
        if each.tiles_per_s > _GAIN * fastest.tiles_per_s:
            fastest = each
    plain = keepers.get("fp32")
    told = [] if fastest is plain else [f"{fastest.precision} {fastest.said}"]
    if plain is not None and fastest is not plain:
        told[0] += f", {fastest.tiles_per_s / plain.tiles_per_s:.1f}x as fast as fp32"
    return fastest.precision, "".join(f"; {each}" for each in [*told, *refused])


def trials(
    backend: str, version: str, model: Model, offered: list[str], tile_yx: tuple[int, int] | None
) -> list[Trial]:
    """Trials of all ``offered`` precisions; measured if this machine has not done so yet, and cached if possible."""
    key = _key(backend, version, model, offered, tile_yx)
    name = _name(key)
    try:
        path = cache_folder(_KIND) / name
        if (kept := _read(path)) is not None:
            return kept
        with one_at_a_time(path):
            if (kept := _read(path)) is not None:
                return kept
            found = _measured(backend, model, offered, tile_yx)
            if all(each.lasts for each in found):
                write_whole(path, json.dumps({"key": key, "trials": [asdict(t) for t in found]}, indent=2).encode())
            return found
    except EngineError as error:
        if name not in _not_kept:
            _LOG.warning("%s", error)
            _not_kept[name] = _measured(backend, model, offered, tile_yx)
        return _not_kept[name]


def machine_rate(spec: EngineSpec) -> float:
    """Tiles a second of an engine that has all of this machine: of its trial, or else measured now; 0 of no network.

    Raises EngineError.
    """
    model = model_for(spec.backend, spec.model_folder, spec.network)
    if not model.onnx_path.is_file():
        return 0.0
    key = _key(spec.backend, usable_version(spec.backend), model, precisions_of(spec.backend, model), spec.tile_yx)
    kept = _read(cache_folder(_KIND) / _name(key)) if _shape(model, spec.tile_yx) == spec.tile_yx else None
    known = {trial.precision: trial.tiles_per_s for trial in kept or () if trial.tiles_per_s}
    if spec.precision in known:
        return known[spec.precision]
    return best_rates([replace(spec, threads=processors(), streams=1)], turns=2)[0]


def remove_trials() -> int:
    """Delete this machine's cached trials. Returns the number of files. Raises EngineError."""
    paths = list(cache_folder(_KIND).glob("*.json*"))
    for path in paths:
        path.unlink(missing_ok=True)
    return sum(path.suffix == ".json" for path in paths)


def _measured(backend: str, model: Model, offered: list[str], tile_yx: tuple[int, int] | None) -> list[Trial]:
    _LOG.warning("measuring the precisions of %s for model %s, once on this machine", backend, model.card.name)
    shape = _shape(model, tile_yx)
    batch = max(1, min(_BATCH, _BATCH * _USUAL_PX**2 // math.prod(shape))) if model.network == GENERATOR else BATCH
    plain = EngineSpec(backend, str(model.folder), shape, batch, processors(), network=model.network)
    specs = {name: replace(plain, precision=name) for name in offered}
    found = {name: _parity(spec) for name, spec in specs.items()}
    keeping = [name for name, trial in found.items() if trial.keeps]
    rates = best_rates([specs[name] for name in keeping]) if len(keeping) > 1 else [0.0] * len(keeping)
    for name, rate in zip(keeping, rates, strict=True):
        found[name] = Trial(name, True, found[name].said, rate)
    return list(found.values())


def _parity(spec: EngineSpec) -> Trial:
    try:
        parity = measure_parity(spec, _TILES[spec.network], _ALONE[spec.network])
    except Exception as error:  # each runtime has its own types
        return Trial(spec.precision, False, one_line(error), lasts=not isinstance(error, EngineUnavailableError))
    what = "pixels" if spec.network == GENERATOR else "a palette's cells"
    said = f"99.9 % of {what} within {parity.p999:.2f} CIEDE2000 of fp32 (bound {parity.bound:g})"
    rows = "" if parity.rows_equal else ", and a tile's colours depend on its neighbours in the batch"
    return Trial(spec.precision, parity.passes, said + rows)


def _shape(model: Model, tile_yx: tuple[int, int] | None) -> tuple[int, int]:
    """Tile shape for the trials: the run's own, unless it is too large."""
    if tile_yx is not None and math.prod(tile_yx) <= _LARGEST_PX:
        return tile_yx
    side = -(-_USUAL_PX // model.card.size_multiple) * model.card.size_multiple
    return side, side


def _key(
    backend: str, version: str, model: Model, offered: list[str], tile_yx: tuple[int, int] | None
) -> dict[str, Any]:
    """All that a trial depends on."""
    device = getattr(backend_module(backend), "device", None)
    card = {name: value for name, value in asdict(model.card).items() if name != "training"}
    return {
        "format": _FORMAT,
        "backend": [backend, version, usable_version("onnxruntime"), device() if device else ""],
        "model": card,
        "tile_yx": _shape(model, tile_yx),
        "machine": _machine(),
        "precisions": sorted(offered),
    }


def _name(key: dict[str, Any]) -> str:
    return f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}.json"


def _read(path: Path) -> list[Trial] | None:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return [Trial(**each) for each in values["trials"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _machine() -> list[str]:
    """The processor's properties that affect speed and arithmetic: machines of one kind share their trials."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        flags = "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    except OSError:
        flags = platform.processor()
    return [platform.machine(), hashlib.sha256(flags.encode()).hexdigest()[:16], str(processors())]
