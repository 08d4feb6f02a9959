"""Extended XMP of a JPEG: bounded, without document types, and without traces in what is written afterwards."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from pipeline.metadata.provenance import xmp_packet
from pipeline.readers import open_scan
from tests.pipeline.test_readers_image import jpeg_with, soft

pytestmark = pytest.mark.filterwarnings("error")

RDF = b"http://www.w3.org/1999/02/22-rdf-syntax-ns#"
DC = b"http://purl.org/dc/elements/1.1/"


def packet(body: bytes, attributes: bytes = b"") -> bytes:
    return (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="%s"><rdf:Description rdf:about="" %s>%s'
        b"</rdf:Description></rdf:RDF></x:xmpmeta>" % (RDF, attributes, body)
    )


PLAIN = packet(b"<dc:rights>me</dc:rights>", b'xmlns:dc="%s"' % DC)


def segments(extended: bytes, part_bytes: int = 60_000) -> list[tuple[int, bytes]]:
    head = b"http://ns.adobe.com/xmp/extension/\0" + b"A" * 32
    return [
        (0xE1, head + struct.pack(">II", len(extended), at) + extended[at : at + part_bytes])
        for at in range(0, len(extended), part_bytes)
    ]


def opened(path: Path, *more: tuple[int, bytes], main: bytes = PLAIN) -> tuple[bytes, str, int]:
    """The XMP of a JPEG with these segments, what is said to be dropped, and the most memory that opening it took."""
    path.write_bytes(jpeg_with(Image.fromarray(soft()), (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + main), *more))
    tracemalloc.start()
    try:
        with open_scan(path) as reader:
            return reader.embedded.xmp, str(reader.info.metadata.get("dropped", "")), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_names_in_one_scan_do_not_change_what_others_become(tmp_path: Path) -> None:
    before = xmp_packet("software", "description", "source", PLAIN)
    declared = b'xmlns:dc="http://other/" xmlns:xmp="http://another/" xmlns:stEvt="http://third/"'
    odd = packet(b"<dc:rights>me</dc:rights><xmp:a>b</xmp:a><stEvt:c>d</stEvt:c>", declared)
    xmp, dropped, _ = opened(tmp_path / "a.jpg", *segments(odd), main=odd)
    assert not dropped
    names = {element.tag for element in ElementTree.fromstring(xmp).iter()}
    assert {"{http://other/}rights", "{http://another/}a", "{http://third/}c"} <= names
    assert xmp_packet("software", "description", "source", PLAIN) == before
    xmp, dropped, _ = opened(tmp_path / "b.jpg", *segments(packet(b"<ns1:a/>", b'xmlns:ns1="http://first/"')))
    assert "{http://first/}a" in {element.tag for element in ElementTree.fromstring(xmp).iter()}
    assert not dropped


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "inside", [b"<a/>" * 2_000_000, b"<a>" * 2_000 + b"</a>" * 2_000], ids=["many elements", "deep elements"]
)
def test_extended_xmp_without_measure_is_left_out(tmp_path: Path, inside: bytes) -> None:
    xmp, dropped, peak_bytes = opened(tmp_path / "a.jpg", *segments(packet(inside)))
    assert xmp == PLAIN
    assert "extended XMP" in dropped
    assert peak_bytes < 80e6


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-be"])
def test_a_document_type_is_refused_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    entities = '\ufeff<!DOCTYPE x [<!ENTITY e "much">]>'
    text = entities + packet(b"<dc:rights>&e;</dc:rights>", b'xmlns:dc="%s"' % DC).decode()
    xmp, dropped, _ = opened(tmp_path / "a.jpg", *segments(text.encode(encoding)))
    assert xmp == PLAIN
    assert "extended XMP" in dropped


@pytest.mark.parametrize("part_bytes", [60_000, 16])
def test_more_extended_xmp_than_is_allowed_takes_no_memory(tmp_path: Path, part_bytes: int) -> None:
    each = segments(b" " * part_bytes * 2, part_bytes)[0][1]
    count = min(24 * 2**20 // len(each), 80_000)
    at = len(each) - part_bytes - 4
    many = [(0xE1, each[:at] + struct.pack(">I", n * part_bytes) + each[at + 4 :]) for n in range(count)]
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg_with(Image.fromarray(soft()), *many))
    del many
    tracemalloc.start()
    try:
        with open_scan(path) as reader:
            assert "extended XMP" in str(reader.info.metadata["dropped"])
            assert tracemalloc.get_traced_memory()[1] < 60e6 + 20e6
    finally:
        tracemalloc.stop()


@pytest.mark.timeout(120)
def test_many_empty_photoshop_segments_take_no_time(tmp_path: Path) -> None:
    data = jpeg_with(Image.fromarray(soft()))
    one = b"\xff\xed" + struct.pack(">H", 16) + b"Photoshop 3.0\0"
    path = tmp_path / "a.jpg"
    path.write_bytes(data[:2] + one * 200_000 + data[2:])
    with open_scan(path) as reader:
        assert reader.info.shape_yx == soft().shape[:2]
