"""The record of a run, ``runs/<id>.json``: the outcome of every scan, and what the next run goes on with."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engines.spec import PALETTE
from flows.catalogue.rebuild import stamp
from flows.inputs import SearchReport
from flows.outcome import ScanOutcome
from flows.run.jobs import RunContext, last_record
from flows.run.withdrawal import Withdrawal
from pipeline.results.run_spec import utc_now
from pipeline.support.files import write_whole, writing

_OF_A_NETWORK = ("backend", "precision", "model_sha256")
_NETWORKS = (*_OF_A_NETWORK, *(f"palette_{name}" for name in _OF_A_NETWORK))
# What a run says of its engine that needed none.
NO_ENGINE = "none: nothing was due"


def record_of(output: Path, started: str) -> Path:
    """Path of the record for a run of this process; its stem is the run's id in the catalogue."""
    path = output / "runs" / f"{stamp(started)}-{os.getpid()}.json"
    # Parts of a run are runs of one process, and several may begin within a second.
    others = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(2))
    return next(each for each in itertools.chain((path,), others) if not each.exists())


def write_run(
    path: Path,
    kind: str,
    started: str,
    context: RunContext | None,
    outcomes: Sequence[ScanOutcome],
    state: str,
    ignored: SearchReport,
    withdrawn: Sequence[Withdrawal] = (),
) -> Path:
    """Write the run's record, with the name that the run ended with; without a ``context`` it needed no engine."""
    with writing(path):
        path.parent.mkdir(exist_ok=True)
    record = {
        "kind": kind,
        "started": started,
        "finished": utc_now(),
        "state": state,
        "engine": NO_ENGINE if context is None else context.engines,
        "model": "" if context is None else context.model_name,
        **(_networks_before(path.parents[1]) if context is None else _networks_record(context)),
        **ignored.to_json(),
        **({"withdrawn": [each.to_json() for each in withdrawn]} if withdrawn else {}),
    }
    write_whole(path, _with_scans(record, outcomes).encode())
    return path


def _with_scans(record: Mapping[str, Any], outcomes: Sequence[ScanOutcome]) -> str:
    """Indented JSON with a line for each scan: the encoder that indents takes long for thousands of them."""
    head = json.dumps(record, indent=2, ensure_ascii=False).removesuffix("\n}")
    lines = ",\n".join("    " + json.dumps(outcome.to_json(), ensure_ascii=False) for outcome in outcomes)
    return head + ',\n  "scans": [\n' + lines + "\n  ]\n}\n"


def _networks_before(output: Path) -> Mapping[str, str]:
    """What the last run left for later ones to go on with."""
    last = last_record(output)
    return {name: last[name] for name in _NETWORKS if name in last}


def _networks_record(context: RunContext) -> Mapping[str, str]:
    """What a later run goes on with; nothing of one that asks no network."""
    if context.options.grade is not None:
        return {}
    choice, palette = context.choice, context.palette
    networks = {
        "backend": choice.backend,
        "precision": choice.precision,
        "model_sha256": context.model.card.sha256,
    }
    if palette is None:
        return networks
    sha256 = context.model.as_network(PALETTE).card.sha256
    return {
        **networks,
        "palette_backend": palette.backend,
        "palette_precision": palette.precision,
        "palette_model_sha256": sha256,
    }
