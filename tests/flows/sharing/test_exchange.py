"""The catalogue as other programs read it."""

from __future__ import annotations

import csv
import json

import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from flows.sharing.outgoing import address_of, read_codes
from pipeline.errors import UsageError
from pipeline.metadata.model import EmbeddedMetadata
from pipeline.results.decisions import decide
from tests.results import make_result

FORMULA = b"""<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:dc="http://purl.org/dc/elements/1.1/">
<rdf:Description rdf:about=""><dc:title><rdf:Alt><rdf:li xml:lang="en">=1+1</rdf:li>
<rdf:li xml:lang="de">Der Hafen</rdf:li></rdf:Alt></dc:title></rdf:Description></rdf:RDF>"""


def test_both_forms_have_every_result_and_its_reference_code(tmp_path):
    output = tmp_path / "colour"
    decide(make_result(output, "albums/plate 12", embedded=EmbeddedMetadata(xmp=FORMULA)).sidecar, "approve", "A. B.")
    make_result(output, "harbour", seed=1)
    (output / "broken.color.json").write_text("{}")
    (tmp_path / "codes.csv").write_text("\ufefffile,code\nALBUMS\\plate 12.png,NL-1_12\nharbour.png,NL-1_13\n")
    words = [
        "catalogue",
        str(output),
        "--codes",
        str(tmp_path / "codes.csv"),
        "--base-url",
        "https://archive.example/x/",
    ]
    for name in ("all.csv", "all.jsonl"):
        ran = CliRunner().invoke(app, [*words, "--to", str(tmp_path / name)])
        assert (ran.exit_code, "2 results" in ran.output, "broken" in ran.output) == (1, True, True), ran.output
    with (tmp_path / "all.csv").open(encoding="utf-8-sig", newline="") as stream:
        plate, harbour = csv.DictReader(stream)
    told = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert [row["reference_code"] for row in (plate, harbour)] == ["NL-1_12", "NL-1_13"]
    assert [row["name"] for row in told] == [plate["name"], harbour["name"]] == ["albums/plate 12", "harbour"]
    assert plate["title"] == "'=1+1 | Der Hafen"
    assert told[0]["title"] == {"en": ["=1+1"], "de": ["Der Hafen"]}
    assert (plate["may_go_out"], plate["approved_by"]) == ("yes", "A. B.")
    assert (harbour["may_go_out"], "nobody has reviewed it" in harbour["why_not"]) == ("no", True)
    assert plate["manifest"] == f"https://archive.example/x/items/{address_of('albums/plate 12')}/manifest.json"
    assert harbour["manifest"] == ""
    assert told[0]["scan_sha256"] == plate["scan_sha256"]
    assert CliRunner().invoke(app, [*words, "--to", str(tmp_path / "all.xlsx")]).exit_code == 2


@pytest.mark.parametrize(
    ("text", "reason"), [("a.tif;1\na.tif;2\n", "a second code"), ("a.tif\nb.tif,2\n", "line 1 is not a file name")]
)
def test_codes_that_say_two_things_are_refused(tmp_path, text, reason):
    (tmp_path / "codes.csv").write_text(text)
    with pytest.raises(UsageError, match=reason):
        read_codes(tmp_path / "codes.csv")
