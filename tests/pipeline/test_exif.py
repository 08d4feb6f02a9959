"""EXIF blocks: what Pillow, tifffile and exiftool see in them, and what damage does."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import time

import pytest
import tifffile
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from pipeline.metadata.exif import Exif, exif_block, parse_exif, readable_tags, swapped, value_bytes
from pipeline.metadata.model import TiffTag

TYPES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 129)
POINTERS = (34665, 34853, 40965)


def ascii_tag(code, text):
    value = text.encode() + b"\0"
    return TiffTag(code, 2, len(value), value)


REAL = Exif(
    ifd0=(ascii_tag(271, "Rollei"), ascii_tag(315, "M. Müller"), TiffTag(274, 3, 1, b"\6\0")),
    exif=(
        TiffTag(33434, 5, 1, struct.pack("<II", 1, 125)),
        ascii_tag(36867, "1936:05:01 12:00:00"),
        TiffTag(37380, 10, 1, struct.pack("<ii", -1, 3)),
        TiffTag(37500, 7, 6, b"maker!"),
    ),
    gps=(ascii_tag(1, "N"), TiffTag(2, 5, 3, struct.pack("<6I", 52, 1, 31, 1, 12, 10))),
    interop=(ascii_tag(1, "R98"),),
)


def block_of(tags: Exif) -> bytes:
    return exif_block(tags.ifd0, tags.exif, tags.gps, tags.interop)


@st.composite
def tags(draw):
    found = {}
    for code in draw(st.sets(st.integers(1, 65535).filter(lambda code: code not in POINTERS), max_size=8)):
        kind, count = draw(st.sampled_from(TYPES)), draw(st.integers(0, 9))
        size = value_bytes(kind) * count
        found[code] = TiffTag(code, kind, count, draw(st.binary(min_size=size, max_size=size)))
    return tuple(found[code] for code in sorted(found))


def big_endian(found: Exif) -> bytes:
    """The same tags as a big-endian block, laid out by hand: directories in a row, then all values."""
    parts = [found.ifd0, found.exif, found.gps, found.interop]
    pointers = {0: [(34665, 1), (34853, 2)], 1: [(40965, 3)]}
    rows = [[*part, *(TiffTag(code, 4, 1, struct.pack("<I", to)) for code, to in pointers.get(at, []))]
            for at, part in enumerate(parts)]  # fmt: skip
    starts = [8]
    for row in rows:
        starts.append(starts[-1] + 2 + 12 * len(row) + 4)
    head, values = b"MM\0*" + struct.pack(">I", 8), b""
    for row in rows:
        head += struct.pack(">H", len(row))
        for tag in reversed(row):  # in no particular order
            value = swapped(tag.type, tag.value)
            if tag.code in POINTERS:
                value = struct.pack(">I", starts[tag.value[0]])
            field = value.ljust(4, b"\0")
            if len(value) > 4:
                field = struct.pack(">I", starts[-1] + len(values))
                values += value
            head += struct.pack(">HHI", tag.code, tag.type, tag.count) + field
        head += b"\0\0\0\0"
    return head + values


@given(ifd0=tags(), exif=tags(), gps=tags(), interop=tags())
def test_every_value_comes_back_from_either_byte_order(ifd0, exif, gps, interop):
    found = Exif(ifd0, exif, gps, interop)
    if any((ifd0, exif, gps, interop)):
        assert parse_exif(block_of(found)) == found
    assert parse_exif(big_endian(found)) == found


def test_pillow_reads_what_was_written():
    exif = Image.Exif()
    exif.load(block_of(REAL))
    assert (exif[271], exif[274]) == ("Rollei", 6)
    exposure = exif.get_ifd(34665)
    assert (float(exposure[33434]), exposure[36867], exposure[37500]) == (1 / 125, "1936:05:01 12:00:00", b"maker!")
    assert float(exposure[37380]) == pytest.approx(-1 / 3)
    assert exif.get_ifd(34853) == {1: "N", 2: (52.0, 31.0, 1.2)}
    assert exif.get_ifd(40965)[1] == "R98"


@pytest.mark.parametrize("endian", ["<", ">"])
def test_what_pillow_writes_is_read(endian):
    made = Image.Exif()
    made.endian = endian
    made[271], made[274] = "Rollei", 6
    made.get_ifd(34665)[37121] = b"\1\2\3\0"
    made.get_ifd(34853)[2] = (52.0, 31.0, 1.5)
    found = parse_exif(made.tobytes())
    assert {tag.code: tag.value for tag in found.ifd0} == {271: b"Rollei\0", 274: b"\6\0"}
    assert found.exif[0].value == b"\1\2\3\0"
    assert found.gps[0].value == struct.pack("<6I", 52, 1, 31, 1, 3, 2)


def test_tifffile_reads_a_block_as_a_tiff():
    with tifffile.TiffFile(io.BytesIO(block_of(REAL))) as file:
        found = file.pages[0].tags
        assert found["Make"].value == "Rollei"
        assert found["ExifTag"].value["ExposureTime"] == (1, 125)
        assert found["GPSTag"].value["GPSLatitude"] == (52, 1, 31, 1, 12, 10)


@pytest.mark.e2e
@pytest.mark.skipif(not shutil.which("exiftool"), reason="needs exiftool")
def test_exiftool_finds_nothing_wrong(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + block_of(REAL))
    command = ["exiftool", "-validate", "-warning", "-a", "-Artist", "-InteropIndex", "-GPSLatitude", "-s", "-n"]
    shown = subprocess.run([*command, str(tmp_path / "a.jpg")], capture_output=True, text=True, check=True).stdout
    assert "M. Müller" in shown
    assert "R98" in shown
    assert "52.517" in shown
    # Tags that Exif requires and these few are not; nothing about offsets, order or sizes.
    warnings = [line for line in shown.splitlines() if line.startswith("Warning")]
    assert not [line for line in warnings if "Missing required" not in line and "maker" not in line.lower()]


def test_the_thumbnail_is_not_read():
    block = bytearray(block_of(Exif(ifd0=(ascii_tag(271, "Rollei"),))))
    count = block[8]
    struct.pack_into("<I", block, 10 + 12 * count, len(block))
    block += exif_block((TiffTag(513, 4, 1, b"\0\0\0\0"),))[8:]
    assert parse_exif(bytes(block)) == Exif(ifd0=(ascii_tag(271, "Rollei"),))


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (b"", "no TIFF header"),
        (b"II*\0", "no TIFF header"),
        (b"II*\0\xff\xff\xff\xff", "damaged"),
        (b"II*\0\x08\0\0\0\xff\xff", "damaged"),
        (b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 315, 2, 2**32 - 1, 8) + bytes(4), "damaged"),
        (b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 34665, 4, 1, 8) + bytes(4), "two directories"),
        (b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 34665, 2, 1, 8) + bytes(4), "no offset"),
        (b"II*\0" + bytes(17 * 2**20), "above the limit"),
    ],
)
def test_damage_is_said_in_one_line(block, words):
    with pytest.raises(ValueError, match=words) as caught:
        parse_exif(block)
    assert "\n" not in str(caught.value)


def test_tags_that_all_point_to_one_place_do_not_multiply_it():
    count = 5000
    entries = b"".join(struct.pack("<HHII", 1 + at, 7, 50_000, 10) for at in range(count))
    with pytest.raises(ValueError, match="more than"):
        parse_exif(b"II*\0\x08\0\0\0" + struct.pack("<H", count) + entries + bytes(50_000))


def read_or_refused(block: bytes) -> Exif:
    """What is in ``block``; nothing where it is refused, which takes one line."""
    refusal = ""
    try:
        return parse_exif(block)
    except ValueError as error:
        refusal = str(error)
    assert "\n" not in refusal
    return Exif()


@given(at=st.integers(0, 400), to=st.binary(min_size=1, max_size=9), cut=st.integers(0, 400))
@example(at=0, to=b"MM\0*", cut=400)
def test_a_damaged_block_is_read_or_refused_quickly(at, to, cut):
    block = bytearray(block_of(REAL))
    block[at : at + len(to)] = to
    began = time.process_time()
    read_or_refused(bytes(block[:cut]))
    assert time.process_time() - began < 30


@given(st.binary(max_size=300), st.sampled_from([b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b""]))
def test_arbitrary_bytes_are_read_or_refused(data, head):
    found = read_or_refused(head + data)
    if any((found.ifd0, found.exif, found.gps, found.interop)):
        assert parse_exif(block_of(found)) == found


def test_a_value_of_another_size_than_announced_is_refused():
    with pytest.raises(ValueError, match="tag 315"):
        exif_block((TiffTag(315, 2, 9, b"abc"),))


def test_what_stands_beside_a_damaged_tag_is_read_all_the_same():
    make, artist, orientation = REAL.ifd0
    block = bytearray(exif_block((make, artist, orientation)))
    first = 10  # behind the header and the count: the make, whose value lies elsewhere
    assert struct.unpack_from("<H", block, first) == (271,)
    struct.pack_into("<I", block, first + 8, 2**31)
    with pytest.raises(ValueError, match="damaged"):
        parse_exif(bytes(block))
    assert readable_tags(bytes(block)) == {274: orientation, 315: artist}
    assert readable_tags(b"no block") == {}
