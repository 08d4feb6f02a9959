"""What a picture says of its making is in every format, however much its scan said."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct

import pytest
from PIL import Image

from pipeline.formats import FORMATS, write_picture
from pipeline.formats._xmp import split
from pipeline.metadata.model import EmbeddedMetadata
from pipeline.metadata.provenance import SOURCE_TYPE, xmp_packet
from pipeline.metadata.xmp import properties
from pipeline.readers import open_scan
from tests.pipeline.writer_conformance import exiftool, output_image, smooth

_DC, _PHOTOSHOP = "{http://purl.org/dc/elements/1.1/}", "{http://ns.adobe.com/photoshop/1.0/}"
_DISCLOSED = (
    "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType",
    "{http://ns.adobe.com/xap/1.0/}CreatorTool",
    f"{_DC}description",
)


def scan_packet(**lengths):
    """A packet with texts of so many letters in properties of Dublin Core, and a city."""
    texts = "".join(f"<dc:{name}>{name[0] * length}</dc:{name}>" for name, length in lengths.items())
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
        'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/">'
        f'<rdf:Description rdf:about="" photoshop:City="Kassel">{texts}</rdf:Description></rdf:RDF></x:xmpmeta>'
    ).encode()


def packet(**lengths):
    return xmp_packet("program 1, model m", "Colour added by an algorithm.", "scan.tif", scan_packet(**lengths))


def write(name, folder, xmp):
    path = folder / f"NAME{FORMATS[name].ENDING}"
    picture = output_image(smooth((40, 60)), software="program 1", embedded=EmbeddedMetadata(xmp=xmp))
    return path, write_picture(name, path, picture, 1).not_carried


def extended_of(path):
    """Digest and bytes of a JPEG's extended XMP, as XMP Specification Part 3, 1.1.3.1 has it."""
    head, parts, data, at = b"http://ns.adobe.com/xmp/extension/\0", {}, path.read_bytes(), 2
    while data[at + 1] != 0xDA:
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        segment = data[at + 4 : at + 2 + size]
        if segment.startswith(head):
            digest, whole, offset = struct.unpack_from(">32sII", segment, len(head))
            parts[offset] = segment[len(head) + 40 :]
        at += 2 + size
    joined = b"".join(part for _, part in sorted(parts.items()))
    assert len(joined) == whole
    return digest.decode(), joined


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "iiif"])
def test_a_large_packet_of_a_scan_leaves_the_disclosure_there(tmp_path, name):
    """2 MB: above what a segment of JPEG and an attribute of OME-Zarr hold."""
    wanted = packet(rights=2_000_000, title=300)
    path, lost = write(name, tmp_path, wanted)
    with open_scan(path) as reader:
        found = properties(reader.embedded.xmp)
    told = properties(wanted)
    assert SOURCE_TYPE in found[_DISCLOSED[0]]
    assert {each: found[each] for each in (*_DISCLOSED, f"{_PHOTOSHOP}City", f"{_DC}title")} == {
        each: told[each] for each in (*_DISCLOSED, f"{_PHOTOSHOP}City", f"{_DC}title")
    }
    assert (found.get(f"{_DC}rights") == told[f"{_DC}rights"]) == ("xmp" not in lost)
    assert "xmp" not in lost or "rights" in lost["xmp"]


@pytest.mark.parametrize("lengths", [{"rights": 70_000}, {"title": 50_000, "rights": 40_000}, {"description": 140_000}])
def test_a_jpeg_has_the_rest_as_extended_xmp(tmp_path, lengths):
    wanted = packet(**lengths)
    path, lost = write("jpeg", tmp_path, wanted)
    assert not lost
    with Image.open(path) as image:  # which reads the main packet alone
        main = image.info["xmp"]
        image.load()
    assert SOURCE_TYPE.encode() in main
    assert b"program 1, model m" in main
    digest, extended = extended_of(path)
    assert hashlib.md5(extended).hexdigest().upper() == digest
    assert json.loads(properties(main)["{http://ns.adobe.com/xmp/note/}HasExtendedXMP"]) == digest
    assert not properties(main).keys() & properties(extended).keys()
    with open_scan(path) as reader:
        assert properties(reader.embedded.xmp) == properties(wanted)


@pytest.mark.skipif(not shutil.which("exiftool"), reason="needs exiftool")
def test_exiftool_reads_the_extended_xmp(tmp_path):
    path, _ = write("jpeg", tmp_path, packet(rights=70_000, title=65_000))
    found = exiftool(path)
    assert f"[XMP-iptcExt] DigitalSourceType: {SOURCE_TYPE}" in found
    assert f"[XMP-dc] Rights: {'r' * 1000}" in found
    assert f"[XMP-dc] Title: {'t' * 1000}" in found
    assert "[XMP-photoshop] City: Kassel" in found
    assert "Warning" not in found


def test_a_packet_that_fits_stays_as_it_is(tmp_path):
    wanted = packet(rights=60_000)
    path, lost = write("jpeg", tmp_path, wanted)
    assert not lost
    with Image.open(path) as image:
        assert image.info["xmp"] == wanted


@pytest.mark.parametrize("name", ["jpeg", "omezarr"])
def test_a_large_packet_that_cannot_be_taken_apart_is_said_to_be_lost(tmp_path, name):
    path, lost = write(name, tmp_path, SOURCE_TYPE.encode() + b"<" * 2_000_000)
    assert "damaged" in lost["xmp"]
    with open_scan(path) as reader:
        assert SOURCE_TYPE.encode() in reader.embedded.xmp


def test_the_smaller_properties_stay_in_the_main_packet():
    made = split(packet(title=50_000, rights=40_000, creator=10_000), 65_000)
    assert len(made.main) <= 65_000
    assert made.moved == ("title",)


def test_namespaces_without_a_name_of_ours_fit_too():
    """In a packet of many their prefixes are longer than where each property stands alone."""
    names = "".join(f'<a:p{n} xmlns:a="urn:{n}">{"<a:q/>" * 20}</a:p{n}>' for n in range(2500))
    scan = scan_packet().replace(b"</rdf:Description>", names.encode() + b"</rdf:Description>")
    made = split(xmp_packet("program 1", "d", "s", scan), 65_000)
    assert len(made.main) <= 65_000
    assert len(made.moved) > 1000
