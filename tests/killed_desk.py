"""Histories of a folder whose processes are killed: decisions, policies, runs, exports and catalogues, at any moment.

A process of its own does random steps on a folder of real results and says before and after each that it does it. It
is killed (SIGKILL) at a random moment. Then the next command comes, which is not killed, and what is there is compared
with the plain model of :mod:`tests.review_model`, which followed the steps that were said to be done.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import random
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from flows.catalogue.database import Catalogue, rebuild
from flows.review.table import decisions_of
from flows.run.withdrawal import withdraw
from flows.sharing.outgoing import address_of
from flows.sharing.site import open_site, publish_site
from flows.sharing.wording import Wording
from pipeline.export import export_picture, output_image
from pipeline.results.decisions import UNREADABLE, read_decisions
from pipeline.results.release import verdict_on
from pipeline.results.sidecar import PictureRecord, Sidecar
from pipeline.store import ScanStore
from pipeline.support.files import folder_lock, write_json, write_whole
from tests.review_model import KEYWORDS, PEOPLE, SCANS, Model, policy_text, say

_STEPS = 12
_LONGEST_SECONDS = 0.8
_RULES = (
    {"folders": ["box1"]},
    {"folders": ["/scans/box2"]},
    {"names": ["a"]},
    {"names": ["b.tif"]},
    {"keywords": ["Sacred"]},
    {"keywords": ["pre*"]},
)


@dataclass
class Told:
    """What was seen in all histories; ``faults`` must stay empty."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def draw_scans(folder: Path) -> None:
    """Scans of the names that the model knows."""
    y, x = np.mgrid[:48, :64]
    for number, stem in enumerate(SCANS):
        path = folder / f"{stem}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), ((x * (number + 2) + y) % 256).astype(np.uint8))


def adapt(output: Path) -> None:
    """Make of a run's results those that the model knows: scans in /scans, without keywords."""
    for stem in SCANS:
        _remake(output, stem, 0, [])


def _remake(output: Path, stem: str, version: int, keywords: list[str]) -> None:
    """What a run leaves that makes other colours: another version, whose picture is the same here."""
    path = output / f"{stem}.color.json"
    told = json.loads(path.read_text())
    told["settings"]["vivid"] = version / 2
    told["source"] |= {"path": f"/scans/{stem}.tif", "name": f"{stem.rpartition('/')[2]}.tif"}
    told["source"]["metadata"] |= {"keywords": keywords, "numbers": []}
    told["pictures"].pop("iiif", None)
    shutil.rmtree(path.with_name(path.name.replace(".json", ".iiif")), ignore_errors=True)
    told["result"]["version"] = Sidecar.from_json(told).version
    write_json(path, told)


def _export(output: Path, stem: str) -> None:
    """As a run does with ``--format iiif``: if it may go out, the tiles, and then the sidecar that lists them."""
    if not verdict_on(output, stem, unreviewed=True):
        return
    path = output / f"{stem}.color.json"
    sidecar, store = Sidecar.read(path), ScanStore.open(output / f"{stem}.zarr")
    picture = output_image(store, store.version(store.version_names()[0]), "test", "test", store.embedded)
    target = path.with_name(path.name.replace(".json", ".iiif"))
    export_picture("iiif", target, picture, 1)
    told = sidecar.to_json()
    told["pictures"]["iiif"] = PictureRecord(file=target.name, bytes=1, sha256="0" * 64, levels=1).to_json()
    write_json(path, told)


def random_step(draw: random.Random) -> tuple[Any, ...]:
    kind = draw.choice(("made", "decided", "decided", "policy", "exported", "exported", "published", "listed", "lost"))
    stem = draw.choice(SCANS)
    if kind == "made":
        return kind, stem, draw.randrange(2), 0, draw.sample(KEYWORDS, draw.randrange(2))
    if kind == "decided":
        return (
            kind,
            stem,
            draw.choice(("approve", "approve", "approve", "reject", "needs work", "undo")),
            draw.choice(PEOPLE),
        )
    if kind == "policy":
        rules = [{"action": draw.choice(("never", "hold")), **draw.choice(_RULES)} for _ in range(draw.randrange(3))]
        return kind, draw.randrange(3), rules
    return (kind, stem) if kind == "exported" else (kind,)


def do(output: Path, site: Path, step: tuple[Any, ...]) -> None:
    """One step, with the code of the project."""
    match step[0]:
        case "made":
            _remake(output, step[1], step[2], step[4])
        case "decided":
            say(output, step)
        case "policy":
            write_whole(output / "policy.yaml", policy_text(step).encode())
        case "exported":
            with folder_lock(output):
                withdraw(output, "run")
                _export(output, step[1])
        case "published":
            publish(output, site)
        case "listed":
            decisions_of(output)
            rebuild(output).close()
        case "lost":
            (output / "catalogue.sqlite").unlink(missing_ok=True)


def publish(output: Path, site: Path) -> None:
    with folder_lock(output):
        withdraw(output, "publish")
    opened = open_site(site, output, None, Wording.read(None, output))
    site.mkdir(exist_ok=True)
    with folder_lock(site):
        list(publish_site(opened))


def _work(output: Path, site: Path, steps: list[Any], says: Connection) -> None:
    for step in steps:
        says.send(("begun", step))
        do(output, site, step)
        says.send(("done", step))


def killed(output: Path, site: Path, steps: list[Any], seconds: float) -> Iterator[tuple[str, Any]]:
    """Do the steps in a process that is killed after ``seconds``; what it said."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.killed_desk"])
    hears, says = processes.Pipe(duplex=False)
    process = processes.Process(target=_work, args=(output, site, steps, says))
    process.start()
    says.close()
    # The first word says that it works: until then nothing could be broken off.
    with contextlib.suppress(EOFError):
        yield hears.recv()
    process.join(seconds)
    process.kill()
    process.join()
    with contextlib.suppress(EOFError, OSError):
        while True:
            yield hears.recv()
    assert process.exitcode in (0, -signal.SIGKILL), f"a step failed: {steps}"


def history(template: Path, folder: Path, seed: int, told: Told, kills: int = 3) -> None:
    """One history with several kills on a copy of ``template``; what is wrong goes to ``told.faults``."""
    draw, output, site = random.Random(seed), folder / "colour", folder / "site"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, output)
    model = Model(dict.fromkeys(SCANS, (0, 0, ())))
    fault = partial(_fault, told, seed)
    for _ in range(kills):
        steps = [random_step(draw) for _ in range(_STEPS)]
        said = list(killed(output, site, steps, draw.uniform(0, _LONGEST_SECONDS)))
        for word, step in said:
            if word == "done":
                model.follow(step)
        told.counts["steps"] += sum(word == "done" for word, _ in said)
        if said and said[-1][0] == "begun":
            told.counts[f"kills while {said[-1][1][0]}"] += 1
            _take_in(output, said[-1][1], model)
        _look(output, site, model, told, fault)
    told.counts["histories"] += 1


def _fault(told: Told, seed: int, line: str) -> None:
    told.faults.append(f"history {seed}: {line}")


def _take_in(output: Path, step: Any, model: Model) -> None:
    """A step that was broken off: it is done if that can be seen on the disk."""
    if step[0] == "made":
        sidecar = json.loads((output / f"{step[1]}.color.json").read_text())
        version = sidecar["settings"]["vivid"]
        if (2 * version, sidecar["source"]["metadata"]["keywords"]) == (step[2], step[4]):
            model.follow(step)
    elif step[0] == "decided" and sum(map(len, read_decisions(output).values())) > len(model.said):
        model.follow(step)
    elif step[0] == "policy":
        path = output / "policy.yaml"
        if path.exists() and yaml.safe_load(path.read_text()) == yaml.safe_load(policy_text(step)):
            model.follow(step)


def _look(output: Path, site: Path, model: Model, told: Told, fault: Any) -> None:
    """After a kill: nothing that was decided is lost; after the next command nothing is out that may not be."""
    found = read_decisions(output)
    decisions = [each for said in found.values() for each in said]
    if any(each.decision == UNREADABLE for each in decisions):
        fault("a decision cannot be read")
    words = Counter((each.scan, each.decision, " ".join(each.person.split())) for each in decisions)
    expected = Counter((stem, word, " ".join(person.split())) for stem, _, _, word, person, _ in model.said)
    if words != expected:
        fault(f"decisions {words} and not {expected}")
    publish(output, site)
    decisions_of(output)
    with Catalogue.open(output, is_locked=True) as catalogue:
        decisions_of(output)
        if sorted(each.id for each in catalogue.decisions()) != sorted(each.id for each in decisions):
            fault("the catalogue has other decisions than the files")
    told.counts["decisions"] += len(decisions)
    allowed = {address_of(stem) for stem in model.made if model.goes_out(stem)}
    there = {path.name for path in (site / "items").iterdir()}
    if there != allowed:
        fault(f"site has {sorted(there)}, may have {sorted(allowed)}")
    places = [path.relative_to(output) for path in output.rglob("*.iiif*")]
    beside = {place.as_posix() for place in places if ".iiif" not in place.parent.as_posix()}
    may = {f"{stem}.color.iiif" for stem in model.made if model.goes_out(stem, unreviewed=True)}
    # What a killed export left half made is no picture of a scan that may not go out.
    if wrong := {name for name in beside if name.removesuffix(".part") not in may}:
        fault(f"tiles of {sorted(wrong)} lie among the results")
    told.counts["let out"] += len(there) + len(beside)
