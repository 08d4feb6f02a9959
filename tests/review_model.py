"""Random histories of an output folder, and a plain model of what may leave it.

A history is a list of steps: colours made anew, another file under the same name, decisions of several people, other
policies. :func:`played` does them on disk with the code of the project, :func:`expected` follows the same steps with a
dictionary and no file, and says what is approved and what is forbidden.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from pipeline.results.decisions import Decision, decide, decision_path
from pipeline.results.policy import Policy
from pipeline.results.release import may_go_out, rules_to_lift
from pipeline.results.run_spec import RunSpec
from pipeline.results.sidecar import Sidecar

SCANS = ("box1/a", "box1/b", "box2/a")
PEOPLE = ("Ada", "ada ", "Grace", "Bob")
KEYWORDS = ("sacred", "press")


def spec(number: int) -> RunSpec:
    """Settings, another for each number."""
    return RunSpec((256, 256), (128 + number, 128), "hann", "identity", "1", "fp32", 1, "none", "0" * 64, 0.0)


def write_sidecar(output: Path, stem: str, version: int = 0, file: int = 0, keywords: tuple[str, ...] = ()) -> Path:
    """A sidecar with what decisions and policy read of it; its path."""
    path = output / f"{stem}.color.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    source = {
        "path": f"/scans/{stem}.tif",
        "bytes": 1,
        "sha256": sha256(stem, file),
        "height_px": 8,
        "width_px": 8,
        "metadata": {"keywords": list(keywords), "numbers": []},
    }
    path.write_text(json.dumps({"source": source, "settings": spec(version).to_json()}))
    return path


def sha256(stem: str, file: int) -> str:
    return hashlib.sha256(f"{stem} {file}".encode()).hexdigest()


_rules = st.fixed_dictionaries(
    {"action": st.sampled_from(["never", "hold"])},
    optional={
        "folders": st.sampled_from([["box1"], ["box?"], ["/scans/box2"]]),
        "names": st.sampled_from([["a"], ["b.tif"]]),
        "keywords": st.sampled_from([["Sacred"], ["pre*"]]),
    },
).filter(lambda rule: len(rule) > 1)
_scan = st.sampled_from(SCANS)
steps = st.one_of(
    st.tuples(
        st.just("made"), _scan, st.integers(0, 1), st.integers(0, 1), st.lists(st.sampled_from(KEYWORDS), max_size=1)
    ),
    st.tuples(
        st.just("decided"), _scan, st.sampled_from(["approve", "reject", "needs work", "undo"]), st.sampled_from(PEOPLE)
    ),
    st.tuples(st.just("decided"), _scan, st.just("approve"), st.sampled_from(PEOPLE)),
    st.tuples(st.just("policy"), st.integers(0, 2), st.lists(_rules, max_size=2)),
    st.tuples(st.just("killed"), _scan),
)
histories = st.lists(steps, min_size=1, max_size=25)


@dataclass
class Model:
    """What a plain reading of the rules expects."""

    made: dict[str, tuple[int, int, tuple[str, ...]]] = field(default_factory=dict)
    said: list[tuple[str, int, int, str, str, frozenset[str]]] = field(default_factory=list)
    approvals: int = 0
    rules: list[dict[str, Any]] = field(default_factory=list)

    def catches(self, rule: dict[str, Any], stem: str) -> bool:
        folder, name = stem.split("/")
        if folder in rule.get("folders", ()) or "box?" in rule.get("folders", ()):
            return True
        if f"/scans/{folder}" in rule.get("folders", ()) or name in rule.get("names", ()):
            return True
        if f"{name}.tif" in rule.get("names", ()):
            return True
        keywords = self.made[stem][2]
        wanted = {"Sacred": "sacred", "pre*": "press"}
        return any(wanted[each] in keywords for each in rule.get("keywords", ()))

    def holding(self, stem: str) -> frozenset[str]:
        """The rules that hold a scan, each with its place: one that is put back as it was is the same."""
        held = ((i, rule) for i, rule in enumerate(self.rules) if rule["action"] == "hold" and self.catches(rule, stem))
        return frozenset(json.dumps([i, rule], sort_keys=True) for i, rule in held)

    def goes_out(self, stem: str, unreviewed: bool = False) -> bool:
        if any(rule["action"] == "never" and self.catches(rule, stem) for rule in self.rules):
            return False
        version, file, _ = self.made[stem]
        last: dict[str, tuple[str, frozenset[str]]] = {}
        for said, its_version, its_file, word, person, lifts in self.said:
            if (said, its_version, its_file) == (stem, version, file):
                last[person.strip().lower()] = word, lifts
        words = [word for word, _ in last.values()]
        if "reject" in words or "needs work" in words:
            return False
        approvals = [lifts for word, lifts in last.values() if word == "approve"]
        for rule in self.holding(stem):
            if sum(rule in lifts for lifts in approvals) < max(1, self.approvals):
                return False
        return len(approvals) >= (self.approvals if unreviewed else max(1, self.approvals))

    def follow(self, step: Any) -> None:
        """Take in a step that was done."""
        if step[0] == "made":
            _, stem, version, file, keywords = step
            self.made[stem] = version, file, tuple(keywords)
        elif step[0] == "decided":
            _, stem, word, person = step
            self.said.append((stem, *self.made[stem][:2], word, person, self.holding(stem)))
        elif step[0] == "policy":
            _, self.approvals, self.rules = step


def played(output: Path, history: list[Any], between: Any = lambda model: None) -> Model:
    """Do the steps in an empty folder; ``between`` is called with the model after each."""
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    model = Model()
    for step in history:
        _do(output, step, model)
        between(model)
    return model


def policy_text(step: Any) -> str:
    """The file that a "policy" step writes."""
    _, approvals, rules = step
    named = [{"name": f"rule {number}", **rule} for number, rule in enumerate(rules)]
    return yaml.safe_dump({"review": {"approvals": approvals}, "rules": named})


def say(output: Path, step: Any) -> None:
    """Do a "decided" step on disk."""
    _, stem, word, person = step
    path = output / f"{stem}.color.json"
    lifts = rules_to_lift(Sidecar.read(path), Policy.read(output), stem) if word == "approve" else ()
    decide(path, word, person, lifts=lifts)


def _do(output: Path, step: Any, model: Model) -> None:
    model_knows = step[0] != "decided" or step[1] in model.made
    if step[0] == "made":
        _, stem, version, file, keywords = step
        write_sidecar(output, stem, version, file, tuple(keywords))
    elif step[0] == "decided" and model_knows:
        say(output, step)
    elif step[0] == "policy":
        (output / "policy.yaml").write_text(policy_text(step))
    elif step[0] == "killed" and step[1] in model.made:
        # A process that was killed while it wrote a decision leaves part of a file under another name.
        stem = step[1]
        unsaid = Decision(
            decision="approve",
            version=spec(0).version,
            source_sha256=sha256(stem, 0),
            person="Eve",
            when="2026-01-01T00:00:00+00:00",
        )
        path = decision_path(output / f"{stem}.color.json", unsaid)
        path.with_name(f"{path.name}.01234567.part").write_text(json.dumps(unsaid.to_json())[:-40])
    if model_knows:
        model.follow(step)


def released(output: Path, decisions: dict[str, tuple[Decision, ...]]) -> set[str]:
    """What the project lets out of a folder."""
    policy, found = Policy.read(output), set()
    for path in sorted(output.rglob("*.color.json")):
        stem = path.relative_to(output).as_posix().removesuffix(".color.json")
        if may_go_out(Sidecar.read(path), decisions.get(stem, ()), policy, stem=stem):
            found.add(stem)
    return found
