"""Packages as other programs read them: bagit-python, an OCFL validator, the schemas of PREMIS and METS."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import bagit
import metsrw
import ocfl
import pytest
from lxml import etree
from typer.testing import CliRunner

from flows.cli.app import app
from flows.sharing.contents import Choice
from flows.sharing.outgoing import Kept, address_of
from flows.sharing.packages import Order, package
from flows.sharing.site import Step
from pipeline.errors import UsageError
from pipeline.metadata.model import EmbeddedMetadata
from pipeline.results.decisions import decide
from tests.results import SPEC, make_result
from tests.schemas import problems

STEMS = ("harbour", "albums/1910/50 %20 #<b>", "albums/plate")
TITLE = b"""<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:dc="http://purl.org/dc/elements/1.1/">
<rdf:Description rdf:about=""><dc:title><rdf:Alt><rdf:li xml:lang="en">The harbour</rdf:li>
<rdf:li xml:lang="nl">De haven</rdf:li></rdf:Alt></dc:title></rdf:Description></rdf:RDF>"""


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("archive") / "colour"
    first = make_result(output, STEMS[0], formats=("tiff", "iiif"), embedded=EmbeddedMetadata(xmp=TITLE))
    decide(first.sidecar, "approve", "A. Reviewer", reason="looks right")
    for seed, stem in enumerate(STEMS[1:], 1):
        make_result(output, stem, seed=seed)
    return output


def order_of(output: Path, to: Path, **choice: Any) -> Order:
    return Order(output, to, Choice(**choice), unreviewed=True)


def states(steps: Any) -> dict[str, str]:
    return {step.name: step.state for step in steps if isinstance(step, Step)}


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_a_bag_is_valid_and_says_all(output, tmp_path):
    choice = {"with_mets": True, "organization": ("https://archive.example/", "City Archive")}
    assert set(states(package(order_of(output, tmp_path / "bag", **choice), "bagit")).values()) == {"new"}
    bag = bagit.Bag(str(tmp_path / "bag"))
    bag.validate()
    assert bag.info["Source-Organization"] == "City Archive"
    rows = list(csv.reader((tmp_path / "bag" / "data" / "index.csv").read_text().splitlines()))
    assert {row[1] for row in rows[1:]} == set(STEMS)
    home = tmp_path / "bag" / "data" / address_of("harbour")
    assert (home / "original" / "harbour.png").read_bytes() == (output.parent / "scans" / "harbour.png").read_bytes()
    assert (home / "colours" / "harbour.color.tif").read_bytes() == (output / "harbour.color.tif").read_bytes()
    assert (home / "colours" / "harbour.color.iiif" / "info.json").is_file()
    assert json.loads((home / "record.json").read_text())["source"]["path"].endswith("scans/harbour.png")
    assert len(list((home / "decisions").iterdir())) == 1


def test_premis_and_mets_are_valid_and_name_who_did_what(output, tmp_path):
    choice = {"with_mets": True, "organization": ("https://archive.example/", "City Archive")}
    list(package(order_of(output, tmp_path / "bag", **choice), "bagit"))
    for stem in STEMS:
        home = tmp_path / "bag" / "data" / address_of(stem)
        assert problems((home / "premis.xml").read_bytes(), "premis-3.0.xsd") == []
        assert problems((home / "mets.xml").read_bytes(), "mets-with-premis.xsd") == []
    home = tmp_path / "bag" / "data" / address_of("harbour")
    premis, mets = (home / "premis.xml").read_text(), (home / "mets.xml").read_text()
    kinds = [">software<", ">person<", ">organization<"]
    assert [kind for kind in kinds if kind not in premis] == []
    named = ["colorize-archive", "model default", "A. Reviewer", "City Archive", "has source", "is source of"]
    assert [name for name in named if name not in premis] == []
    assert '<dc:title xml:lang="nl">De haven</dc:title>' in mets
    assert 'xlink:href="original/harbour.png"' in mets


def test_the_same_results_give_the_same_bag_but_its_date(output, tmp_path):
    for name in ("one", "two"):
        list(package(order_of(output, tmp_path / name, with_mets=True), "bagit"))
    one, two = files(tmp_path / "one"), files(tmp_path / "two")
    assert {name for name in one | two if one.get(name) != two.get(name)} <= {"bag-info.txt", "tagmanifest-sha256.txt"}


@pytest.mark.parametrize("kind", ["bagit", "ocfl", "archivematica"])
def test_one_flipped_byte_is_found_wherever_it_is(output, tmp_path, kind):
    list(package(order_of(output, tmp_path / "made"), kind))
    chance = random.Random(kind)
    payload = [path for path in (tmp_path / "made").rglob("*") if path.is_file() and path.stat().st_size]
    payload = [path for path in payload if {"content", "data", "objects"} & set(path.parts)]
    for path in chance.sample(payload, 5):
        whole = path.read_bytes()
        at = chance.randrange(len(whole))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert not is_valid(tmp_path / "made", kind), path
        path.write_bytes(whole)
    assert is_valid(tmp_path / "made", kind)


LISTS = {"bagit": "data/mets.xml", "archivematica": "metadata/mets.xml", "ocfl": "mets.xml"}
METS = {"m": "http://www.loc.gov/METS/"}
HREF = "{http://www.w3.org/1999/xlink}href"


@pytest.mark.parametrize("kind", list(LISTS))
def test_one_mets_document_names_every_file_of_the_package_by_folder_and_scan(output, tmp_path, kind):
    choice = {"with_mets": True, "organization": ("https://archive.example/", "City & Archive")}
    list(package(replace(order_of(output, tmp_path / "made", **choice), codes={"harbour": "NL-12"}), kind))
    document = tmp_path / "made" / LISTS[kind]
    assert problems(document.read_bytes(), "mets-1.12.xsd") == []
    tree = etree.parse(document).getroot()
    # Every file is named, and what is said of it is so.
    named = told_of(document)
    payload = {path for path in files_in(tmp_path / "made") if {"data", "objects", "content"} & set(path.parts)}
    assert set(named) == payload - {document}
    assert wrong_by(document) == []
    assert {use for use, _ in named.values()} == {"original", "derivative", "record", "decisions", "metadata"}
    kinds = {path.suffix: each.get("MIMETYPE") for path, (_, each) in named.items()}
    assert (kinds[".tif"], kinds[".png"], kinds[".json"]) == ("image/tiff", "image/png", "application/json")
    # metsrw reads the folders of the results, the scans in them, and what each file is for.
    (top,) = [each for each in metsrw.METSDocument.fromfile(str(document)).all_files() if each.parent is None]
    folders = {each.label: each for each in top.children}
    assert {"albums", "harbour"} <= set(folders)
    assert {each.label for each in folders["albums"].children} == {"1910", "plate"}
    parts = {each.label: each for each in folders["harbour"].children}
    assert [each.label for each in parts["original"].children] == ["harbour.png"]
    assert "harbour.color.iiif/info.json" in [each.label for each in parts["derivative"].children]
    assert len(parts["decisions"].children) == 1
    # Each scan's PREMIS is referred to, and its reference code is there.
    records = [quoted(document, each) for each in tree.iterfind(".//m:digiprovMD/m:mdRef", METS)]
    assert {path.name for path in records} == {"premis.xml"}
    assert len(records) == len(STEMS)
    assert [each.get("LABEL") for each in tree.iterfind(".//m:div[@ORDERLABEL='NL-12']", METS)] == ["harbour"]
    # One bit that flipped and one file that went are found.
    flipped, gone = random.Random(kind).sample(sorted(named), 2)
    whole = flipped.read_bytes()
    flipped.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    gone.unlink()
    assert set(wrong_by(document)) == {flipped, gone}


def files_in(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def told_of(document: Path) -> dict[Path, tuple[str, Any]]:
    """Use of each file, and the element that has its size and checksum."""
    every = etree.parse(document).getroot().iterfind(".//m:fileGrp/m:file", METS)
    return {quoted(document, each[0]): (each.getparent().get("USE"), each) for each in every}


def quoted(document: Path, element: Any) -> Path:
    """The file that an element refers to."""
    return Path(os.path.normpath(document.parent / unquote(element.get(HREF))))


def wrong_by(document: Path) -> list[Path]:
    """The files that are not what a METS document says."""
    return [
        path
        for path, (_, told) in told_of(document).items()
        if not path.is_file()
        or path.stat().st_size != int(told.get("SIZE"))
        or hashlib.sha256(path.read_bytes()).hexdigest() != told.get("CHECKSUM")
    ]


def is_valid(path: Path, kind: str) -> bool:
    if kind == "bagit":
        return bool(bagit.Bag(str(path)).is_valid())
    if kind == "archivematica":
        lines = (path / "metadata" / "checksum.sha256").read_text().splitlines()
        told = (line.split("  ", 1) for line in lines)
        return all(hashlib.sha256((path / "metadata" / name).read_bytes()).hexdigest() == sha for sha, name in told)
    every = [found.parent for found in path.rglob("0=ocfl_object_1.1")]
    assert every
    validators = [ocfl.Object(spec_version="1.1") for _ in every]
    return all(each.validate(str(folder))[0] for each, folder in zip(validators, every, strict=True))


def test_an_ocfl_root_is_valid_and_keeps_what_was(tmp_path):
    output, root = tmp_path / "colour", tmp_path / "root"
    paths = make_result(output, "a")
    make_result(output, "b", seed=1)
    assert states(package(order_of(output, root), "ocfl")) == {"a": "new", "b": "new"}
    assert states(package(order_of(output, root), "ocfl")) == {"a": "same", "b": "same"}
    before = paths.picture("tiff").read_bytes()
    make_result(output, "a", spec=replace(SPEC, stride_yx=(64, 64)), seed=3)
    assert states(package(order_of(output, root), "ocfl")) == {"a": "changed", "b": "same"}
    assert ocfl.StorageRoot(root=str(root)).validate(validate_objects=True, check_digests=True)
    assert is_valid(root, "ocfl")
    assert not root.with_name("root.staging").exists()
    inventories = [json.loads(path.read_text()) for path in root.glob("*/*/*/*/inventory.json")]
    assert sorted(each["head"] for each in inventories) == ["v1", "v2"]
    assert before in [path.read_bytes() for path in root.rglob("v1/content/colours/a.color.tif")]
    with pytest.raises(UsageError, match="no OCFL 1"):
        list(package(order_of(output, output.parent / "scans"), "ocfl"))


def test_a_version_has_no_file_that_an_earlier_one_has(tmp_path):
    output, root = tmp_path / "colour", tmp_path / "root"
    paths = make_result(output, "a")
    list(package(order_of(output, root), "ocfl"))
    decide(paths.sidecar, "approve", "A. Reviewer")
    assert states(package(order_of(output, root), "ocfl")) == {"a": "changed"}
    added = sorted(path.name for path in root.rglob("v2/content/**/*") if path.is_file())
    assert len(added) == 2
    assert added[1] == "premis.xml"
    assert is_valid(root, "ocfl")


def test_a_transfer_lists_every_object_with_its_hash(output, tmp_path):
    list(package(order_of(output, tmp_path / "transfer"), "archivematica"))
    lines = (tmp_path / "transfer" / "metadata" / "checksum.sha256").read_text().splitlines()
    named = {line.partition("  ")[2].removeprefix("../") for line in lines}
    there = {f"objects/{name}" for name in files(tmp_path / "transfer" / "objects")}
    assert named == there
    table = (tmp_path / "transfer" / "metadata" / "metadata.csv").read_text().splitlines()
    rows = {row["filename"]: row for row in csv.DictReader(table)}
    assert rows[f"objects/{address_of('harbour')}"]["dc.title"] == "The harbour | De haven"


def test_an_original_that_is_gone_or_changed_leaves_nothing_of_its_scan(tmp_path):
    output = tmp_path / "colour"
    for name in ("gone", "changed", "whole"):
        make_result(output, name)
    (tmp_path / "scans" / "gone.png").unlink()
    (tmp_path / "scans" / "changed.png").write_bytes(b"another scan")
    made = {step.name: step for step in package(order_of(output, tmp_path / "bag"), "bagit") if isinstance(step, Step)}
    assert {name: step.state for name, step in made.items()} == {"changed": "failed", "gone": "failed", "whole": "new"}
    assert "take it by reference" in made["gone"].reason
    assert "not those that were recorded" in made["changed"].reason
    bagit.Bag(str(tmp_path / "bag")).validate()
    assert not (tmp_path / "bag" / "data" / address_of("changed")).exists()
    list(package(order_of(output, tmp_path / "referring", by_reference=True), "bagit"))
    home = tmp_path / "referring" / "data" / address_of("gone")
    assert json.loads((home / "original.reference.json").read_text())["sha256"]
    assert not (home / "original").exists()


def test_links_share_the_pictures_and_never_the_original(output, tmp_path):
    list(package(order_of(output, tmp_path / "bag", links=True), "bagit"))
    home = tmp_path / "bag" / "data" / address_of("harbour")
    if output.stat().st_dev == tmp_path.stat().st_dev:
        assert (home / "colours" / "harbour.color.tif").samefile(output / "harbour.color.tif")
    assert not (home / "original" / "harbour.png").samefile(output.parent / "scans" / "harbour.png")


def test_only_what_may_go_out_is_packaged(output, tmp_path):
    steps = list(package(Order(output, tmp_path / "bag", Choice()), "bagit"))
    assert [step.name for step in steps if isinstance(step, Step)] == ["harbour"]
    assert len([step for step in steps if isinstance(step, Kept)]) == 2


def test_the_command_packages_and_refuses_what_makes_no_sense(output, tmp_path):
    words = ["package", str(output), "--unreviewed", "--to", str(tmp_path / "bag")]
    made = CliRunner().invoke(app, [*words, "--as", "bagit", "--mets"])
    assert made.exit_code == 0, made.output
    assert "3 new" in made.output
    again = CliRunner().invoke(app, [*words, "--as", "bagit"])
    assert (again.exit_code, "is there already" in again.output) == (2, True)
    assert CliRunner().invoke(app, [*words, "--as", "zip"]).exit_code == 2
