"""Which precision of a backend is worth using: measured once for a model on a machine, and kept.

A precision must keep the picture (:mod:`engines.parity`), and must be faster than float32 by more than these
measurements scatter; half the arithmetic in half the precision is no gain where its kernels are missing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engines.bench import best_rates
from engines.cache import cache_folder, one_at_a_time, write_whole
from engines.errors import EngineError
from engines.parity import measure_parity
from engines.spec import EngineSpec, Model

_LOG = logging.getLogger("colorize_archive.engines")
_KIND = "trials"
_BATCH = 8
_TILES = 24
_TILE_PX = 256
_GAIN = 1.1
# Raised when trials of older code do not count any more.
_FORMAT = 3


@dataclass(frozen=True)
class Trial:
    """What one precision does.

    Attributes
    ----------
    precision : as in EngineSpec
    keeps : whether the picture stays what it was
    said : the figures, or why there are none
    tiles_per_s : of 256x256 px; 0 where it was not measured
    """

    precision: str
    keeps: bool
    said: str
    tiles_per_s: float


def fastest_that_keeps_the_picture(backend: str, version: str, model: Model, offered: list[str]) -> tuple[str, str]:
    """One of ``offered``, and in words what was measured of it and of those that were refused."""
    found = trials(backend, version, model, offered)
    speeds = {each.precision: each.tiles_per_s for each in found if each.keeps}
    floor = speeds.get("fp32", 0.0)
    faster = {name: speed for name, speed in speeds.items() if speed > _GAIN * floor}
    chosen = max(faster, key=lambda name: faster[name], default="fp32")
    told = []
    if chosen != "fp32":
        (one,) = (each for each in found if each.precision == chosen)
        told.append(f"{chosen} {one.said}" + (f", {one.tiles_per_s / floor:.1f}x as fast as fp32" if floor else ""))
    told += [f"{each.precision} refused: {each.said}" for each in found if not each.keeps and each.precision != "fp32"]
    return chosen, "".join(f"; {each}" for each in told)


def trials(backend: str, version: str, model: Model, offered: list[str]) -> list[Trial]:
    """Of each of ``offered``; measured where this machine has not done so yet. Raises EngineError."""
    key = {
        "format": _FORMAT,
        "backend": backend,
        "version": version,
        "model": [model.card.sha256, model.card.int8_sha256],
        "machine": _machine(),
        "precisions": sorted(offered),
    }
    path = cache_folder(_KIND) / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}.json"
    with one_at_a_time(path):
        if (kept := _read(path)) is not None:
            return kept
        _LOG.warning("measuring the precisions of %s for model %s, once on this machine", backend, model.card.name)
        found = _measured(backend, model, offered)
        write_whole(path, json.dumps({"key": key, "trials": [asdict(each) for each in found]}, indent=2).encode())
        return found


def _measured(backend: str, model: Model, offered: list[str]) -> list[Trial]:
    side = -(-_TILE_PX // model.card.size_multiple) * model.card.size_multiple
    threads = os.cpu_count() or 1
    specs = {name: EngineSpec(backend, str(model.folder), (side, side), _BATCH, threads, 1, name) for name in offered}
    said: dict[str, str] = {}
    keeping: list[str] = []
    for name, spec in specs.items():
        try:
            parity = measure_parity(spec, _TILES)
        except EngineError as error:
            said[name] = str(error)
            continue
        said[name] = f"99.9 % of pixels within {parity.p999:.2f} CIEDE2000 of fp32 (bound {parity.bound:g})"
        if parity.passes:
            keeping.append(name)
    rates = best_rates([specs[name] for name in keeping]) if len(keeping) > 1 else [0.0] * len(keeping)
    speeds = dict(zip(keeping, rates, strict=True))
    return [Trial(name, name in keeping, said[name], speeds.get(name, 0.0)) for name in offered]


def _read(path: Path) -> list[Trial] | None:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return [Trial(**each) for each in values["trials"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _machine() -> list[str]:
    """What a processor's speed and arithmetic depend on: machines of one kind share their trials."""
    flags = ""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        flags = "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    except OSError:
        flags = platform.processor()
    return [platform.machine(), hashlib.sha256(flags.encode()).hexdigest()[:16], str(os.cpu_count())]
