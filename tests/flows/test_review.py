"""Policy and decisions where a user meets them: in runs, in tables, in the catalogue."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from flows.catalogue.database import Catalogue, rebuild
from flows.inputs import ScanFile
from flows.options import parse_options
from flows.review.table import as_csv, decisions_of, import_csv
from flows.run.jobs import RunContext, ScanJob
from flows.run.planning import plan_scans
from pipeline.errors import UsageError
from pipeline.results.decisions import decide, decisions_beside
from pipeline.results.policy import Policy
from tests.request import asked
from tests.review_model import write_sidecar

DOCS = Path(__file__).parents[2] / "docs" / "review.md"


@pytest.fixture
def folder(tmp_path):
    """Three scans, one with a keyword."""
    scans = tmp_path / "scans"
    for name in ("a", "private/b"):
        (scans / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(scans / f"{name}.png"), np.full((40, 40), 90, np.uint8))
    _, jpeg = cv2.imencode(".jpg", np.full((40, 40), 90, np.uint8))
    dataset = b"\x1c\x02\x19\x00\x06sacred"
    resource = b"8BIM\x04\x04\0\0" + len(dataset).to_bytes(4, "big") + dataset + b"\0" * (len(dataset) % 2)
    block = b"Photoshop 3.0\0" + resource
    segment = b"\xff\xed" + (len(block) + 2).to_bytes(2, "big") + block
    (scans / "mask.jpg").write_bytes(jpeg.tobytes()[:2] + segment + jpeg.tobytes()[2:])
    return scans


def planned(folder, output, **given):
    output.mkdir(exist_ok=True)
    names = {"a": "a.png", "private/b": "private/b.png", "mask": "mask.jpg"}
    scans = [ScanFile(folder / name, stem) for stem, name in names.items()]
    context = RunContext.of(parse_options(asked(output, engine="identity", **given)))
    return dict(zip(names, plan_scans(scans, context), strict=True))


def write_policy(output, **values):
    output.mkdir(exist_ok=True)
    (output / "policy.yaml").write_text(yaml.safe_dump(values))


def test_what_policy_forbids_gets_no_job_and_the_line_names_the_rule(folder, tmp_path):
    rules = [
        {"name": "gifts", "action": "never", "folders": ["private"], "reason": "the donor's wish"},
        {"name": "objects", "action": "never", "keywords": ["Sacred"]},
    ]
    write_policy(tmp_path / "out", rules=rules)
    made = planned(folder, tmp_path / "out")
    assert isinstance(made["a"], ScanJob)
    assert [made[name].failure_kind for name in ("private/b", "mask")] == ["policy", "policy"]
    assert "'gifts' (the donor's wish) of policy.yaml" in made["private/b"].message
    assert "'objects'" in made["mask"].message
    assert not any(outcome.has_failed or outcome.is_left_out for outcome in (made["private/b"], made["mask"]))


def test_pictures_for_others_are_not_made_before_somebody_approved(folder, tmp_path):
    write_policy(tmp_path / "out", review={"approvals": 1})
    assert planned(folder, tmp_path / "out", formats="tiff,iiif")["a"].formats == ("tiff",)
    assert planned(folder, tmp_path / "out", formats="iiif")["a"].failure_kind == "policy"
    write_policy(tmp_path / "out", rules=[])
    assert planned(folder, tmp_path / "out", formats="tiff,iiif")["a"].formats == ("tiff", "iiif")


def test_a_policy_with_a_mistake_stops_the_run(folder, tmp_path):
    write_policy(tmp_path / "out", rules=[{"name": "x", "action": "nevr", "names": ["a"]}])
    with pytest.raises(UsageError, match="nevr"):
        planned(folder, tmp_path / "out")


def test_a_policy_holds_in_run_and_reprocess(command, folder, tmp_path):
    output = tmp_path / "out"
    words = ("--engine", "identity", "--tile", "32", "-o", output)
    write_policy(output, rules=[{"name": "gifts", "action": "never", "folders": ["private"]}])
    ran = command("run", folder, *words)
    assert ran.code == 0, ran.err
    ran.line("private/b.png", "never coloured", "'gifts'")
    assert ran.line("left out, by policy.yaml").startswith("1 ")
    assert not list(output.rglob("b*"))
    told = json.loads((output / "mask.color.json").read_text())["source"]["metadata"]
    assert (told["keywords"], told["numbers"]) == (["sacred"], [])
    write_policy(output, rules=[{"name": "objects", "action": "never", "keywords": ["sacred"]}])
    again = command("reprocess", output, "--stride", "8")
    again.line("mask", "never coloured", "'objects'")
    assert again.line("1 done", "1 skipped")
    decide(output / "a.color.json", "approve", "Ada", reason="fine")
    listed = command("decisions", output)
    assert listed.code == 0
    assert "Ada" in listed.out
    assert "1 approve" in listed.out


def test_the_documented_policy_is_one():
    text = DOCS.read_text().split("<!-- policy -->")[1].split("<!-- end of policy -->")[0]
    policy = Policy.from_json(yaml.safe_load(text.strip().removeprefix("```yaml").removesuffix("```")))
    assert (policy.approvals, [rule.action for rule in policy.rules]) == (2, ["never", "hold", "label"])


def test_decisions_survive_a_table_and_a_lost_catalogue(tmp_path):
    results = {stem: write_sidecar(tmp_path, stem) for stem in ("a", "box/b")}
    decide(results["a"], "approve", "Ada", note='=1+1, "quoted"\nand more')
    decide(results["box/b"], "reject", "-Grace", reason="@blue", lifts=("x#1",))
    text = as_csv(decisions_of(tmp_path))
    assert "'=1+1" in text  # no formula for a spreadsheet
    with rebuild(tmp_path) as catalogue:
        kept = catalogue.decisions()
    assert kept == decisions_of(tmp_path)
    assert [each.scan for each in kept] == ["a", "box/b"]
    for path in (*tmp_path.rglob("*.decision.json"), tmp_path / "catalogue.sqlite"):
        path.unlink()
    done = import_csv(tmp_path, text)
    assert (done.taken, done.there, done.refused) == (2, 0, ())
    assert decisions_of(tmp_path) == kept
    assert import_csv(tmp_path, text).there == 2
    with rebuild(tmp_path) as catalogue:
        assert catalogue.decisions("a") == kept[:1]


def test_the_catalogue_learns_of_decisions_that_are_written_later(tmp_path):
    result = write_sidecar(tmp_path, "a")
    rebuild(tmp_path).close()
    decide(result, "approve", "Ada")
    decisions_of(tmp_path)
    with Catalogue.open(tmp_path) as catalogue:
        assert [each.person for each in catalogue.decisions()] == ["Ada"]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("../a,approve,Ada", "no name of a result"),
        ("b,approve,Ada", "no result has this name"),
        ("a,aprove,Ada", "'aprove'"),
        ("a,approve, ", "without a person"),
    ],
)
def test_a_row_that_makes_no_sense_is_refused_with_its_line(row, told, tmp_path):
    (tmp_path / "out").mkdir()
    result = write_sidecar(tmp_path / "out", "a")
    write_sidecar(tmp_path, "a")
    done = import_csv(tmp_path / "out", f"scan,decision,person\n{row}\na,reject,Grace\n")
    assert done.taken == 1
    assert told in done.refused[0]
    assert done.refused[0].startswith("line 2: ")
    assert [each.person for each in decisions_beside(result)] == ["Grace"]


def test_a_table_without_the_needed_columns_is_refused(tmp_path):
    with pytest.raises(UsageError, match="columns scan, decision and person"):
        import_csv(tmp_path, "a;b\n")
