"""What a result says of its making: XMP as other programs read it, and PREMIS events."""

from __future__ import annotations

import json
import shutil
import subprocess
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.metadata.provenance import SOURCE_TYPE, premis_event, xmp_packet
from pipeline.metadata.xmp import merged, properties

SCAN = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>
<rdf:Description rdf:about='' xmlns:xmp='http://ns.adobe.com/xap/1.0/' xmlns:tiff='http://ns.adobe.com/tiff/1.0/'
  xmlns:photoshop='http://ns.adobe.com/photoshop/1.0/' photoshop:City='Köln' photoshop:ColorMode='1'
  xmp:CreatorTool='SilverFast 8' xmp:Rating='4' tiff:Orientation='6' tiff:Make='Epson'/>
<rdf:Description rdf:about='' xmlns:dc='http://purl.org/dc/elements/1.1/' xmlns:my='http://example.org/my/'
  xmlns:xmpMM='http://ns.adobe.com/xap/1.0/mm/' xmlns:stRef='http://ns.adobe.com/xap/1.0/sType/ResourceRef#'
  xmlns:ext='http://iptc.org/std/Iptc4xmpExt/2008-02-29/' xmlns:stEvt='http://ns.adobe.com/xap/1.0/sType/ResourceEvent#'>
 <dc:description><rdf:Alt><rdf:li xml:lang='x-default'>A house &amp; garden</rdf:li>
   <rdf:li xml:lang='de'>Ein Haus</rdf:li></rdf:Alt></dc:description>
 <dc:subject><rdf:Bag><rdf:li>house</rdf:li><rdf:li>garden</rdf:li></rdf:Bag></dc:subject>
 <dc:source>Album 3</dc:source>
 <ext:DigitalSourceType>http://cv.iptc.org/newscodes/digitalsourcetype/negativeFilm</ext:DigitalSourceType>
 <xmpMM:InstanceID>xmp.iid:1</xmpMM:InstanceID>
 <xmpMM:DerivedFrom stRef:documentID='xmp.did:7'/>
 <xmpMM:History><rdf:Seq><rdf:li stEvt:action='saved' stEvt:when='2020-01-01'/></rdf:Seq></xmpMM:History>
 <my:shelf rdf:parseType='Resource'><my:room>5</my:room></my:shelf>
</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end='w'?>""".encode()
TRUE_OF_THE_SCAN = ("tiff/1.0/}Orientation", "photoshop/1.0/}ColorMode", "/mm/}InstanceID")


def packet(scan=SCAN):
    return xmp_packet("ours 1", "Colour added", "house.tif", scan)


def test_every_property_of_the_scan_is_in_the_result():
    before, after = properties(SCAN), properties(packet())
    ours = ("}DigitalSourceType", "}CreatorTool", "}description", "}source", "}History")
    same = {name: value for name, value in before.items() if not name.endswith((*ours, *TRUE_OF_THE_SCAN))}
    assert len(same) == 6  # city, rating, make, subject, derived from, shelf
    assert {name: after.get(name) for name in same} == same
    assert not [name for name in after if name.endswith(TRUE_OF_THE_SCAN)]


@pytest.mark.e2e
@pytest.mark.skipif(not shutil.which("exiftool"), reason="needs exiftool")
def test_exiftool_reads_both_packets_in_one(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", xmp=packet())
    command = ["exiftool", "-j", "-struct", "-XMP:all", "-warning", "-validate", str(tmp_path / "a.jpg")]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)[0]
    assert "Warning" not in found
    assert (found["City"], found["Rating"], found["Make"], found["Subject"]) == (
        "Köln",
        4,
        "Epson",
        ["house", "garden"],
    )
    assert found["Description"].split("\n") == ["A house & garden", "", "Colour added"]
    assert found["Description-de"] == "Ein Haus"
    assert found["Source"] == "Album 3; house.tif"
    assert found["CreatorTool"] == "ours 1"
    assert found["DigitalSourceType"] == SOURCE_TYPE
    assert found["DerivedFrom"] == {"DocumentID": "xmp.did:7"}
    assert [event.get("Action") for event in found["History"]] == ["saved", "created", "edited"]
    made = found["History"][1]
    assert (made["SoftwareAgent"], made["InstanceID"]) == ("SilverFast 8", "xmp.iid:1")
    assert made["Parameters"].endswith("/negativeFilm")


def test_merging_twice_says_the_description_once():
    again = properties(packet(packet()))
    assert json.loads(again["{http://purl.org/dc/elements/1.1/}description"])[1] == {
        "x-default": "A house & garden\n\nColour added"
    }


def test_the_form_of_rdf_makes_no_difference():
    head = b"<rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#' xmlns:a='http://a/'><rdf:Description "
    forms = [
        b"a:x='1'><a:y a:z='2'/></rdf:Description></rdf:RDF>",
        b"><a:y rdf:parseType='Resource'><a:z>2</a:z></a:y><a:x>1</a:x></rdf:Description></rdf:RDF>",
        b"><a:y><rdf:Description><a:z>2</a:z></rdf:Description></a:y></rdf:Description>"
        b"<rdf:Description><a:x>1</a:x></rdf:Description></rdf:RDF>",
    ]
    one, *others = [properties(head + form) for form in forms]
    assert set(one) == {"{http://a/}x", "{http://a/}y"}
    assert others == [one, one]
    assert properties(head + forms[0].replace(b"2", b"3")) != one


def test_software_of_a_scan_without_a_packet_is_in_the_history():
    made = json.loads(
        properties(xmp_packet("o", "d", "s", b"", "Scan\0ner\udcff"))["{http://ns.adobe.com/xap/1.0/mm/}History"]
    )
    assert "Scanner" in made[1].values()


BOMB = b"<!DOCTYPE x [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;'>]><x>&b;</x>"
OUTSIDE = b"<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/hostname'>]><x>&a;</x>"


@pytest.mark.parametrize(
    ("scan", "words"),
    [
        (BOMB, "document type"),
        (OUTSIDE, "document type"),
        (b"<!DOCTYPE x SYSTEM 'http://localhost/x.dtd'><x/>", "document type"),
        (b"<a>" * 100 + b"</a>" * 100, "levels"),
        (b"<a>" + b"<b/>" * 100_001 + b"</a>", "elements"),
        (b"<a>" + b" " * 2**24 + b"</a>", "above the limit"),
        (b"<x/>", "without rdf:RDF"),
        (SCAN[:500], "damaged"),
        (b"\0\0", "damaged"),
        (b"<?xml version='1.0' encoding='nonsense'?><x/>", "damaged"),
    ],
)
def test_a_hostile_or_broken_packet_is_refused_in_one_line(scan, words):
    began = time.process_time()
    with pytest.raises(ValueError, match=words) as caught:
        packet(scan)
    assert "\n" not in str(caught.value)
    assert time.process_time() - began < 30


@given(at=st.integers(0, len(SCAN)), to=st.binary(min_size=1, max_size=6), cut=st.booleans())
def test_a_mutated_packet_is_merged_or_refused(at, to, cut):
    scan = SCAN[:at] + to + (b"" if cut else SCAN[at + len(to) :])
    try:
        made = packet(scan)
    except ValueError:
        return
    assert SOURCE_TYPE in properties(made)["{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"]


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(data):
    with pytest.raises(ValueError, match="leave it out"):
        merged(data + b"<", packet(b""))


def test_an_event_names_what_was_done_to_which_bytes_by_what():
    agents = {"colorize-archive": "0.5.0", "model lite": "ab" * 32}
    event = premis_event("2025-01-01T12:00:00+00:00", "colour", agents, ("a.tif", "1" * 64), ("a.color.tif", "2" * 64))
    assert json.loads(json.dumps(event)) == event
    assert event["eventType"]["valueURI"] == "http://id.loc.gov/vocabulary/preservation/eventType/mod"
    assert event["eventOutcomeInformation"][0]["eventOutcome"]["value"] == "success"
    objects = {
        each["linkingObjectRole"][0]["value"]: each["fixity"]["messageDigest"]
        for each in event["linkingObjectIdentifier"]
    }
    assert objects == {"source": "1" * 64, "outcome": "2" * 64}
    assert [each["linkingAgentIdentifierValue"] for each in event["linkingAgentIdentifier"]] == [
        "colorize-archive 0.5.0",
        f"model lite {'ab' * 32}",
    ]
    warned = premis_event("2025", "d", {}, ("a", "1"), ("b", "2"), notes=("no place for gcps",))
    assert warned["eventOutcomeInformation"][0]["eventOutcome"]["valueURI"].endswith("eventOutcome/war")
    identifiers = [each["eventIdentifier"]["eventIdentifierValue"] for each in (event, warned)]
    assert len(set(identifiers)) == 2
