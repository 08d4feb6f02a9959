"""The site as a web server shows it to viewers: every address is there, and what may not go out is not."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from iiif_prezi3 import Collection, Manifest
from typer.testing import CliRunner

from flows.cli.app import app
from flows.sharing.outgoing import Kept, address_of
from flows.sharing.signing import sign_results
from flows.sharing.site import Site, Step, check_site, open_site, publish_site
from flows.sharing.wording import Wording
from pipeline.errors import UsageError
from pipeline.metadata.description import description_of_scan
from pipeline.metadata.model import EmbeddedMetadata
from pipeline.results.credentials import Signing
from pipeline.results.decisions import decide
from pipeline.results.policy import POLICY_FILE
from pipeline.results.verify import verify
from pipeline.store import ScanStore
from pipeline.support.files import LOCK_FILE
from pipeline.types import Roi
from tests.certificates import signer
from tests.level0 import Crawl
from tests.results import SPEC, make_result
from tests.schemas import problems

TITLE = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" photoshop:DateCreated="1910-06">
<dc:title><rdf:Alt><rdf:li xml:lang="x-default">De haven</rdf:li><rdf:li xml:lang="nl">De haven</rdf:li>
<rdf:li xml:lang="en">The harbour</rdf:li></rdf:Alt></dc:title>
<dc:description><rdf:Alt>
<rdf:li xml:lang="x-default">&lt;b onclick="x()"&gt;ships&lt;/b&gt;</rdf:li>
</rdf:Alt></dc:description>
<dc:creator><rdf:Seq><rdf:li>A. Photographer</rdf:li><rdf:li>B. Other</rdf:li></rdf:Seq></dc:creator>
</rdf:Description></rdf:RDF></x:xmpmeta>"""
HOSTILE = "50 %20 #<b>"


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("archive") / "colour"
    make_result(output, "harbour", shape_yx=(700, 1300), embedded=EmbeddedMetadata(xmp=TITLE), orientation=6)
    make_result(output, f"albums/1910/{HOSTILE}", dtype="uint16", seed=1)
    make_result(output, "albums/plate", seed=2)
    return output


def site_of(folder: Path, output: Path, base_url: str | None = "http://archive.example/x", **more: Any) -> Site:
    wording = Wording.model_validate(more)
    site = open_site(folder, output, base_url, wording)
    return Site(site.folder, site.output, site.base_url, wording, unreviewed=True)


def states(steps: Iterator[Step | Kept]) -> dict[str, str]:
    return {step.name: step.state for step in steps if isinstance(step, Step)}


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def published(web: tuple[Path, str], output: Path) -> Site:
    folder, address = web
    provider = {"id": "https://archive.example/", "label": {"en": "City Archive"}}
    rights = "https://creativecommons.org/publicdomain/mark/1.0/"
    site = site_of(folder, output, address, provider=provider, rights=rights, attribution="City Archive")
    assert set(states(publish_site(site)).values()) == {"new"}
    return site


def test_a_strict_level_0_client_finds_every_file_by_following_the_collection(published):
    crawl = Crawl.of(f"{published.base_url}/collection.json")
    assert crawl.missing == []
    assert (crawl.manifests, crawl.collections) == (3, 3)
    assert crawl.tiles > 20


def test_every_manifest_and_collection_is_valid(published):
    for path in (published.folder / "items").glob("*/manifest.json"):
        Manifest.model_validate_json(path.read_text())
    collections = [published.folder / "collection.json", *(published.folder / "collections").iterdir()]
    assert len(collections) == 3
    for path in collections:
        Collection.model_validate_json(path.read_text())


def test_the_manifest_says_what_the_scan_says_and_that_the_colours_are_no_evidence(published):
    manifest = read(published.item(address_of("harbour")) / "manifest.json")
    assert manifest["label"] == {"nl": ["De haven"], "en": ["The harbour"]}
    assert manifest["summary"] == {"none": ["<span>&lt;b onclick=&quot;x()&quot;&gt;ships&lt;/b&gt;</span>"]}
    told = {each["label"]["en"][0]: each["value"] for each in manifest["metadata"]}
    assert told["Creator"] == {"none": ["A. Photographer", "B. Other"]}
    assert told["Date"] == {"none": ["1910-06"]}
    assert told["Reviewed"]["de"] == ["nein"]
    statement = manifest["requiredStatement"]["value"]
    assert statement["en"] == ["City Archive. Coloured by an algorithm; the colours are not evidence."]
    assert statement["fr"]
    assert manifest["rights"].endswith("/mark/1.0/")
    assert manifest["provider"][0]["label"] == {"en": ["City Archive"]}


def test_both_choices_have_the_size_of_the_upright_canvas(published):
    (canvas,) = read(published.item(address_of("harbour")) / "manifest.json")["items"]
    assert (canvas["height"], canvas["width"]) == (1300, 700)
    body = canvas["items"][0]["items"][0]["body"]
    assert body["type"] == "Choice"
    assert [each["label"]["en"] for each in body["items"]] == [["Coloured by an algorithm"], ["Scan"]]
    for each in body["items"]:
        info = json.load(urllib.request.urlopen(f"{each['service'][0]['id']}/info.json"))
        assert (info["height"], info["width"]) == (1300, 700)
        assert info["id"] == each["service"][0]["id"]


def test_the_scan_is_gray_the_colours_are_coloured_and_both_equally_light(published, output):
    home = published.item(address_of("harbour"))
    scan, colours = (cv2.imread(str(home / part / "full/700,1300/0/default.jpg")) for part in ("scan", "colours"))
    assert np.ptp(scan, axis=2).max() <= 2
    assert np.ptp(colours, axis=2).mean() > 10
    stored = ScanStore.open(output / "harbour.zarr").read_scan
    upright = np.rot90(stored(Roi(0, 700, 0, 1300)), -1)
    assert np.abs(scan[..., 0].astype(int) - upright).mean() < 4


def test_records_name_the_scan_and_no_path_of_this_machine(published, output):
    home = published.item(address_of("harbour"))
    record = read(home / "record.json")
    assert record["source"]["path"] == "harbour.png"
    premis = (home / "premis.xml").read_bytes()
    assert problems(premis, "premis-3.0.xsd") == []
    assert record["source"]["sha256"].encode() in premis
    for path in published.folder.rglob("*"):
        if path.is_file() and path.suffix in (".json", ".xml", ".html"):
            assert str(output.parent).encode() not in path.read_bytes(), path


def test_publishing_again_writes_nothing(published):
    before = {path: path.stat().st_mtime_ns for path in published.folder.rglob("*") if path.name != "site.json"}
    assert set(states(publish_site(published)).values()) == {"same"}
    after = {path: path.stat().st_mtime_ns for path in published.folder.rglob("*") if path.name != "site.json"}
    assert {path for path in before if path.is_file() and before[path] != after.get(path)} == set()
    assert set(states(check_site(published)).values()) == {"same"}


def test_other_colours_are_taken_over_and_the_scans_tiles_stay(tmp_path):
    output = tmp_path / "colour"
    make_result(output, "a")
    make_result(output, "b")
    site = site_of(tmp_path / "site", output)
    list(publish_site(site))
    scan = site.item(address_of("a")) / "scan" / "full/max/0/default.jpg"
    inode = scan.stat().st_ino
    make_result(output, "a", spec=replace(SPEC, stride_yx=(64, 64)))
    assert states(check_site(site)) == {"a": "changed", "b": "same"}
    assert states(publish_site(site)) == {"a": "changed", "b": "same"}
    assert scan.stat().st_ino == inode
    assert states(check_site(site)) == {"a": "same", "b": "same"}
    # Another address changes what is written about pictures, and no picture.
    assert states(publish_site(site_of(site.folder, output, "https://other.example"))) == {
        "a": "changed",
        "b": "changed",
    }
    assert scan.stat().st_ino == inode
    assert "https://other.example/items" in (site.folder / "collection.json").read_text()


def test_what_is_gone_from_the_results_is_gone_from_the_site(tmp_path):
    output = tmp_path / "colour"
    make_result(output, "albums/a")
    make_result(output, "b")
    site = site_of(tmp_path / "site", output)
    list(publish_site(site))
    (output / "albums" / "a.color.json").unlink()
    assert states(check_site(site))["albums/a"] == "withdrawn"
    assert states(publish_site(site)) == {"albums/a": "withdrawn", "b": "same"}
    assert [path.name for path in (site.folder / "items").iterdir()] == [address_of("b")]
    assert "albums" not in (site.folder / "search.json").read_text() + (site.folder / "collection.json").read_text()
    assert list((site.folder / "collections").iterdir()) == []


def test_check_finds_a_tile_that_is_missing(tmp_path):
    output = tmp_path / "colour"
    make_result(output, "a", shape_yx=(600, 600))
    site = site_of(tmp_path / "site", output)
    list(publish_site(site))
    next((site.item(address_of("a")) / "colours").glob("512,0,*/*/0/default.jpg")).unlink()
    (step,) = [each for each in check_site(site) if isinstance(each, Step)]
    assert step.state == "changed"
    assert "colours: 1 of its pictures are missing" in step.reason
    assert states(publish_site(site))["a"] == "changed"
    assert states(check_site(site)) == {"a": "same"}


def test_without_its_store_a_result_is_published_from_its_files(tmp_path):
    output = tmp_path / "colour"
    paths = make_result(output, "a", formats=("tiff", "jpeg"))
    from_store = site_of(tmp_path / "one", output)
    list(publish_site(from_store))
    shutil.rmtree(paths.store)
    from_files = site_of(tmp_path / "two", output)
    assert states(publish_site(from_files)) == {"a": "new"}
    for part in ("scan", "colours"):
        tile = Path("items", address_of("a"), part, "full", "max", "0", "default.jpg")
        one, two = (cv2.imread(str(site.folder / tile)) for site in (from_store, from_files))
        assert np.abs(one.astype(int) - two).max() <= 4
    (output.parent / "scans" / "a.png").unlink()
    lone = site_of(tmp_path / "three", output)
    (step,) = [each for each in publish_site(lone) if isinstance(each, Step)]
    assert step.state == "failed"
    assert "neither its store nor its scan is there" in step.reason


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path):
    output = tmp_path / "colour"
    make_result(output, "a")
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "index.html").write_text("ours")
    with pytest.raises(UsageError, match="holds other things"):
        site_of(tmp_path / "web", output)
    with pytest.raises(UsageError, match="among the results"):
        site_of(output / "site", output)
    with pytest.raises(UsageError, match="no address of a web server"):
        site_of(tmp_path / "site", output, "archive.example")


def test_nothing_goes_out_unreviewed_without_being_asked_for(tmp_path):
    output = tmp_path / "colour"
    make_result(output, "a")
    site = open_site(tmp_path / "site", output, None, Wording())
    (kept,) = publish_site(site)
    assert isinstance(kept, Kept)
    assert read(site.folder / "search.json")["items"] == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("statement: ''", "not marked as an algorithm's"),
        ("rights: https://archive.example/ours", "neither of Creative Commons"),
        ("titel: x", "titel"),
        ("provider: {id: archive, label: x}", "no address"),
        ("a: [", "expected"),
    ],
)
def test_a_wording_that_is_not_understood_is_refused(tmp_path, text, reason):
    (tmp_path / "publish.yaml").write_text(text)
    with pytest.raises(UsageError, match=reason):
        Wording.read(None, tmp_path)


def test_a_description_without_xmp_comes_from_iptc_and_tags():
    def dataset(number: int, text: str) -> bytes:
        return b"\x1c\x02" + bytes([number]) + len(text.encode()).to_bytes(2, "big") + text.encode()

    told = description_of_scan(EmbeddedMetadata(iptc=dataset(5, "Brücke") + dataset(25, "a") + dataset(25, "b")))
    assert told.title == {"none": ("Brücke",)}
    assert told.subject == {"none": ("a", "b")}
    assert description_of_scan(EmbeddedMetadata(iptc=b"broken", xmp=b"<broken", exif=b"no")).title == {}


def test_addresses_are_plain_and_differ(published):
    addresses = [address_of(stem) for stem in ("a/b", "a", "A", "b", "é", "e", HOSTILE, ".htaccess", "x" * 300)]
    assert len(set(addresses)) == len(addresses)
    assert all(each.isascii() and urlsplit(each).path == each and not each.startswith(".") for each in addresses)
    assert (published.item(address_of(f"albums/1910/{HOSTILE}")) / "manifest.json").is_file()


def test_the_command_says_what_it_did_and_check_ends_with_1_where_something_is_older(tmp_path):
    make_result(tmp_path / "colour", "a")
    runner, words = CliRunner(), ["publish", str(tmp_path / "colour"), "--to", str(tmp_path / "site"), "--unreviewed"]
    (tmp_path / "codes.csv").write_text("file;code\na.png;NL-1/a.12\n")
    words += ["--codes", str(tmp_path / "codes.csv")]
    missing = runner.invoke(app, [*words, "--check"])
    assert missing.exit_code == 1, missing.output
    assert not (tmp_path / "site").exists()
    made = runner.invoke(app, [*words, "--base-url", "https://archive.example/colour/"])
    assert made.exit_code == 0, made.output
    assert "1 new" in made.output
    assert "https://archive.example/colour/" in made.output
    manifest = read(tmp_path / "site" / "items" / address_of("a") / "manifest.json")
    assert manifest["label"] == {"none": ["NL-1/a.12, a"]}
    assert manifest["metadata"][0]["value"] == {"none": ["NL-1/a.12"]}
    same = runner.invoke(app, [*words, "--check"])
    assert (same.exit_code, "1 same" in same.output) == (0, True)
    refused = runner.invoke(app, ["publish", str(tmp_path / "nothing"), "--to", str(tmp_path / "site")])
    assert refused.exit_code == 2


def test_the_site_loses_what_cannot_be_withdrawn_from_the_results(tmp_path):
    output, site = tmp_path / "colour", tmp_path / "site"
    paths, archive = make_result(output, "a", formats=("png",)), signer()
    list(sign_results(output, Signing(archive.chain, archive.key), "", False, True))
    runner, words = CliRunner(), ["publish", str(output), "--to", str(site), "--unreviewed", "--json"]
    assert json.loads(runner.invoke(app, words).stdout)["withdrawn"] == []
    decide(paths.sidecar, "reject", "Ada")
    (output / LOCK_FILE).mkdir()  # nobody can lock it, as if it was read-only
    made = runner.invoke(app, words)
    told = json.loads(made.stdout)
    assert (made.exit_code, told["counts"]["failed"], told["counts"]["withdrawn"], told["withdrawn"]) == (1, 1, 1, [])
    assert any("could not be removed" in each["reason"] for each in told["scans"])
    assert not (site / "items" / address_of("a")).exists()
    (output / LOCK_FILE).rmdir()
    made = runner.invoke(app, words)
    (gone,) = json.loads(made.stdout)["withdrawn"]
    assert (made.exit_code, gone["removed"]) == (0, ["Content Credentials in a.color.png"])
    assert verify(paths.sidecar)[0].passes


def test_without_its_approval_a_scan_is_gone_from_everywhere(tmp_path):
    output = tmp_path / "colour"
    kept, withdrawn = (make_result(output, stem).sidecar for stem in ("albums/kept", "albums/plate"))
    (tmp_path / "colour" / "publish.yaml").write_text("names_reviewers: false")
    for sidecar in (kept, withdrawn):
        decide(sidecar, "approve", "A. Reviewer", note="a note for us alone")
    site = open_site(tmp_path / "site", output, None, Wording.read(None, output))
    assert states(publish_site(site)) == {"albums/kept": "new", "albums/plate": "new"}
    home = site.item(address_of("albums/plate"))
    assert "by a person" in (home / "manifest.json").read_text()
    assert b"review by a person" in (home / "premis.xml").read_bytes()
    assert problems((home / "premis.xml").read_bytes(), "premis-3.0.xsd") == []
    every = [path.read_bytes() for path in site.folder.rglob("*") if path.is_file()]
    assert not any(b"A. Reviewer" in data or b"for us alone" in data for data in every)

    decide(withdrawn, "undo", "A. Reviewer")
    older = dict.fromkeys(("search.json", f"collections/{address_of('albums')}.json"), "changed")
    assert states(check_site(site)) == {"albums/kept": "same", "albums/plate": "withdrawn", **older}
    assert states(publish_site(site)) == {"albums/kept": "same", "albums/plate": "withdrawn"}
    assert not home.exists()
    left = b"".join(path.read_bytes() for path in site.folder.rglob("*.json") if path.is_file())
    assert address_of("albums/plate").encode() not in left
    assert b"plate" not in left


def test_what_the_policy_forbids_is_withdrawn_whoever_approved_it(tmp_path):
    output = tmp_path / "colour"
    decide(make_result(output, "secret/a").sidecar, "approve", "A. Reviewer")
    site = open_site(tmp_path / "site", output, None, Wording(names_reviewers=True))
    assert states(publish_site(site)) == {"secret/a": "new"}
    assert "A. Reviewer" in (site.item(address_of("secret/a")) / "manifest.json").read_text()
    (output / POLICY_FILE).write_text("rules:\n- {name: secret, action: never, folders: [secret]}\n")
    assert states(publish_site(site)) == {"secret/a": "withdrawn"}


LABEL = {"en": "Coloured by an algorithm; no evidence.", "ru": "Цвета добавлены алгоритмом."}


def labelling(output: Path, place: str) -> None:
    rule = {"name": "press", "action": "label", "names": "press", "label": LABEL, "place": place}
    (output / POLICY_FILE).write_text(json.dumps({"rules": [rule]}))


def picture_of(site: Site, stem: str, part: str) -> np.ndarray:
    """The largest whole picture of an item."""
    return cv2.imread(str(site.item(address_of(stem)) / part / "full/max/0/default.jpg"))


@pytest.mark.parametrize("place", ["strip", "corner"])
def test_copies_have_the_label_that_the_policy_asks_for(place, tmp_path):
    output = tmp_path / "colour"
    make_result(output, "press", shape_yx=(400, 500), seed=3, orientation=6)
    make_result(output, "other", shape_yx=(40, 50))
    site = site_of(tmp_path / "site", output)
    list(publish_site(site))
    bare = {part: picture_of(site, "press", part) for part in ("scan", "colours")}
    labelling(output, place)
    assert {step.name: step.state for step in check_site(site)}["press"] == "changed"
    assert {step.name: step.state for step in publish_site(site)} == {"press": "changed", "other": "same"}
    made = {part: picture_of(site, "press", part) for part in ("scan", "colours")}
    assert made["scan"].shape == made["colours"].shape
    height = bare["scan"].shape[0]
    if place == "strip":
        assert made["scan"].shape[0] > height
        assert made["scan"][height + 8 :].min() > 250
        assert made["colours"][height + 8 :].min() < 80
    else:
        assert made["scan"].shape == bare["scan"].shape
        assert made["colours"][height * 3 // 4 :, 200:].max() > 240
    # JPEG's blocks at the edge of the strip have a part of it.
    rows = slice(0, height - 16 if place == "strip" else height * 3 // 4 - 16)
    for part, picture in bare.items():
        assert np.abs(made[part][rows].astype(int) - picture[rows]).max() <= 2, part
    manifest = json.loads((site.item(address_of("press")) / "manifest.json").read_text())
    assert (manifest["items"][0]["height"], manifest["items"][0]["width"]) == made["scan"].shape[:2]
    statement = manifest["requiredStatement"]["value"]
    assert LABEL["en"] in statement["en"]
    assert statement["ru"] == [LABEL["ru"]]
    assert {step.state for step in check_site(site) if isinstance(step, Step)} == {"same"}
    (output / POLICY_FILE).unlink()
    list(publish_site(site))
    assert np.array_equal(picture_of(site, "press", "colours"), bare["colours"])


def test_a_label_that_cannot_be_set_keeps_the_scan_in_the_house(tmp_path):
    output = tmp_path / "colour"
    make_result(output, "press")
    site = site_of(tmp_path / "site", output)
    list(publish_site(site))
    rule = {"name": "press", "action": "label", "names": "*", "label": "no \u0378"}
    (output / POLICY_FILE).write_text(json.dumps({"rules": [rule]}))
    (step,) = publish_site(site)
    assert step.state == "failed"
    assert "no font here" in step.reason
    assert not site.item(address_of("press")).exists()
    assert json.loads((site.folder / "search.json").read_text())["items"] == []
