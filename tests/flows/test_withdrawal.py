"""What may no longer go out leaves the folder of results, by a later rule or decision; what is the house's stays."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from flows.events import Message, listening
from flows.run.withdrawal import find_withdrawals, withdraw
from flows.sharing.signing import sign_results
from pipeline.results.credentials import Signing
from pipeline.results.decisions import decide
from pipeline.results.policy import Policy
from pipeline.results.release import rules_to_lift
from pipeline.results.sidecar import Sidecar
from pipeline.results.verify import verify
from tests.certificates import signer
from tests.results import make_result
from tests.review_model import spec, write_sidecar
from tests.stops import stopped_anywhere

NEVER = {"name": "objects", "action": "never", "keywords": ["sacred"], "reason": "agreed in 2021"}
HOLD = {"name": "gifts", "action": "hold", "folders": ["box"]}


def policy(output: Path, *rules: dict, **review) -> None:
    told = {"rules": list(rules), **({"review": review} if review else {})}
    (output / "policy.yaml").write_text(yaml.safe_dump(told))


def result(output: Path, stem: str, version: int = 0, is_kept: bool = False, keywords=()) -> Path:
    """A result with a picture for the house, one for others, and credentials of both; its sidecar."""
    path = write_sidecar(output, stem, version, keywords=keywords)
    if is_kept:
        path = path.rename(path.with_name(path.name.replace(".color", f".{spec(version).version}.color")))
    start = path.name.removesuffix(".json")
    told = json.loads(path.read_text())
    told["pictures"] = {name: {"file": f"{start}.{end}"} for name, end in (("tiff", "tif"), ("iiif", "iiif"))}
    path.write_text(json.dumps(told))
    (path.with_name(f"{start}.iiif") / "full").mkdir(parents=True)
    (path.with_name(f"{start}.iiif") / "info.json").write_text("{}")
    for end in ("tif", "tif.c2pa", "iiif.c2pa"):
        path.with_name(f"{start}.{end}").write_text("x")
    (output / f"{stem}.zarr").mkdir(exist_ok=True)
    return path


def names(output: Path) -> set[str]:
    """All that lies beside a sidecar, but sidecars and decisions."""
    found = {
        path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file() or not any(path.iterdir())
    }
    return {name for name in found if "runs/" not in name and not name.endswith((".json", ".yaml"))}


def test_a_later_rule_withdraws_copies_for_others_and_nothing_else(tmp_path):
    path, other = result(tmp_path, "box/a", keywords=["sacred"]), result(tmp_path, "b")
    assert withdraw(tmp_path, "colorize") == []
    policy(tmp_path, NEVER)
    (gone,) = withdraw(tmp_path, "colorize")
    assert "box/a: never coloured by the policy's rule 'objects' (agreed in 2021)" in gone.line
    assert "a.color.iiif, a.color.iiif.c2pa, a.color.tif.c2pa removed" in gone.line
    assert {name for name in names(tmp_path) if name.startswith("box")} == {"box/a.color.tif", "box/a.zarr"}
    assert list(Sidecar.read(path).pictures) == ["tiff"]
    assert list(Sidecar.read(other).pictures) == ["tiff", "iiif"]
    assert {"b.color.tif.c2pa", "b.color.iiif.c2pa", "b.color.iiif/full"} <= names(tmp_path)
    (record,) = (tmp_path / "runs" / "withdrawn").glob("*.json")
    told = json.loads(record.read_text())
    assert (told["scan"], told["by"], told["version"]) == ("box/a", "colorize", spec(0).version)
    assert told["premis"]["eventType"]["value"] == "deletion"
    assert "a.color.iiif" in told["premis"]["eventDetailInformation"][0]["eventDetail"]
    assert withdraw(tmp_path, "colorize") == []


@pytest.mark.parametrize("word", ["reject", "needs work"])
def test_a_later_word_against_it_withdraws(word, tmp_path):
    path = result(tmp_path, "box/a")
    decide(path, "approve", "Ada")
    assert withdraw(tmp_path, "publish") == []
    decide(path, word, "Grace", reason="a blue face")
    (gone,) = withdraw(tmp_path, "publish")
    assert "by Grace: a blue face" in gone.line
    assert not path.with_name("a.color.iiif").exists()


@pytest.mark.parametrize("embeds", [True, False])
def test_credentials_go_from_pictures_sidecars_and_their_side(embeds, tmp_path, monkeypatch):
    formats = ("jp2", "jpeg", "png", "tiff")
    paths = make_result(tmp_path / "first", "a", formats=formats)
    before = {name: paths.picture(name).read_bytes() for name in formats}
    decide(paths.sidecar, "approve", "Ada")
    archive = signer()
    list(sign_results(tmp_path / "first", Signing(archive.chain, archive.key), "", True, False, embeds))
    assert withdraw(tmp_path / "first", "run") == []
    decide(paths.sidecar, "reject", "Ada")
    gone = []

    def again(output):
        gone[:] = withdraw(output, "run")

    for output, is_stopped in stopped_anywhere(tmp_path / "first", monkeypatch, again):
        if is_stopped:
            withdraw(output, "run")
        sidecar = Sidecar.read(output / paths.sidecar.name)
        for name, data in before.items():
            assert (output / paths.picture(name).name).read_bytes() == data
            assert not sidecar.pictures[name].signed
        assert not list(output.glob("*.c2pa*"))
        assert all(each.passes and not each.signed for each in verify(sidecar.path))
        assert find_withdrawals(output) == []
    (withdrawal,) = gone
    assert ("Content Credentials in a.color.png" if embeds else "a.color.png.c2pa") in withdrawal.line


def test_a_picture_that_somebody_changed_keeps_its_bytes_and_is_told(tmp_path):
    paths = make_result(tmp_path, "a", formats=("png",), scans=tmp_path / "scans")
    archive = signer()
    list(sign_results(tmp_path, Signing(archive.chain, archive.key), "", False, True))
    changed = paths.picture("png").read_bytes() + b"!"
    paths.picture("png").write_bytes(changed)
    decide(paths.sidecar, "reject", "Ada")
    heard = Heard()
    with listening(heard):
        assert withdraw(tmp_path, "run") == []
    assert ["could not be taken out" in line for line in heard.lines] == [True]
    assert paths.picture("png").read_bytes() == changed
    assert Sidecar.read(paths.sidecar).pictures["png"].signed


class Heard:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def on(self, event: Message) -> None:
        self.lines.append(event.line)


def test_a_hold_that_came_later_withdraws_until_it_is_lifted(tmp_path):
    path = result(tmp_path, "box/a")
    decide(path, "approve", "Ada")
    policy(tmp_path, HOLD)
    assert [each.stem for each in find_withdrawals(tmp_path)] == ["box/a"]
    assert path.with_name("a.color.iiif").exists()  # only looked for
    lifted = rules_to_lift(Sidecar.read(path), Policy.read(tmp_path), "box/a")
    decide(path, "approve", "Ada", lifts=lifted)
    assert withdraw(tmp_path, "colorize") == []


def test_of_two_versions_the_one_that_was_rejected_goes(tmp_path):
    kept = result(tmp_path, "box/a", version=1, is_kept=True)
    current = result(tmp_path, "box/a")
    decide(current, "reject", "Ada")
    (gone,) = withdraw(tmp_path, "colorize")
    assert (gone.sidecar, gone.version) == (current, spec(0).version)
    assert kept.with_name(kept.name.replace(".json", ".iiif")).exists()
    policy(tmp_path, {**HOLD, "folders": ["box"]})
    (gone,) = withdraw(tmp_path, "colorize")
    assert (gone.sidecar, gone.stem) == (kept, "box/a")


@pytest.mark.parametrize("is_forgotten", [False, True])
def test_a_killed_withdrawal_is_finished_by_the_next(is_forgotten, tmp_path):
    path = result(tmp_path, "a")
    policy(tmp_path, {**NEVER, "names": ["a"]})
    path.with_name("a.color.iiif").rename(path.with_name("a.color.iiif.part"))
    if is_forgotten:
        told = json.loads(path.read_text())
        del told["pictures"]["iiif"]
        path.write_text(json.dumps(told))
    (gone,) = withdraw(tmp_path, "colorize")
    assert path.with_name("a.color.iiif") in gone.paths
    assert names(tmp_path) == {"a.color.tif", "a.zarr"}
    assert list(Sidecar.read(path).pictures) == ["tiff"]


@pytest.mark.parametrize("is_version", [False, True])
def test_tiles_whose_export_was_killed_before_its_sidecar_go_too(is_version, tmp_path):
    write_sidecar(tmp_path, "box/a")
    left = tmp_path / "box" / (f"a.{spec(1).version}.color.iiif" if is_version else "a.color.iiif")
    left.mkdir()
    (left / "info.json").write_text("{}")
    assert withdraw(tmp_path, "colorize") == []
    policy(tmp_path, {**NEVER, "names": ["a"]})
    (gone,) = withdraw(tmp_path, "colorize")
    assert (gone.stem, gone.paths) == ("box/a", (left,))
    assert not list(tmp_path.rglob("*.iiif*"))


def test_a_folder_that_no_sidecar_lists_is_left_alone(tmp_path):
    path = write_sidecar(tmp_path, "a")
    theirs = [path.with_name("a.color.iiif"), tmp_path / "mine.iiif"]
    for each in theirs:
        each.mkdir()
    policy(tmp_path, {**NEVER, "names": ["a"]})
    assert withdraw(tmp_path, "colorize") == []
    assert all(each.is_dir() for each in theirs)


def test_run_reprocess_and_publish_withdraw(command, tmp_path):
    scans, output = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    for name in "abc":
        cv2.imwrite(str(scans / f"{name}.png"), np.full((40, 40), 90, np.uint8))
    words = ("--engine", "identity", "--tile", "32", "-o", output)
    first = command("run", scans, *words, "--format", "tiff,iiif")
    assert first.code == 0, first.err
    policy(output, {**NEVER, "names": ["a"]})
    again = command("run", scans, *words, "--format", "tiff,iiif", "--quiet")
    assert again.code == 0, again.err
    again.line("withdrawn", "a.color.iiif removed", "'objects'")
    record = json.loads(max((output / "runs").glob("*.json")).read_text())
    assert [each["scan"] for each in record["withdrawn"]] == ["a"]
    assert sorted(path.name for path in output.glob("*.iiif")) == ["b.color.iiif", "c.color.iiif"]
    assert (output / "a.zarr").is_dir()
    decide(output / "b.color.json", "reject", "Ada")
    made = command("reprocess", output, "b", "--stride", "8")
    made.line("withdrawn", "b: rejected by Ada")
    # The new colours are of a version that nobody is against, and for which nobody asked for tiles.
    assert sorted(path.name for path in output.glob("*.iiif")) == ["c.color.iiif"]
    decide(output / "c.color.json", "reject", "Ada")
    published = command("publish", output, "--to", tmp_path / "site", "--unreviewed")
    assert "withdrawn  c: rejected by Ada: c.color.iiif removed" in published.out
    assert not list(output.glob("*.iiif"))
    assert (output / "c.color.tif").is_file()
