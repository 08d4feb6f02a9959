"""The scan's own caption goes into the result's, whatever it is encoded in, and is looked for in the written file."""

from __future__ import annotations

import shutil
import struct
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pipeline.formats import ENDINGS, FORMATS, OutputImage, write_picture
from pipeline.metadata.exif import directory, exif_block, parse_exif
from pipeline.metadata.merge import description_of, software_of
from pipeline.metadata.model import EmbeddedMetadata, TiffTag
from pipeline.readers import open_scan
from pipeline.results.read_back import carried_by_result, missing_in, missing_of_scan

CAPTION = "Köln, Rathausplatz – „Markt“"  # noqa: RUF001 - of cp1252
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def captioned(text: bytes, code: int = 270) -> EmbeddedMetadata:
    return EmbeddedMetadata(tags=(TiffTag(code, 2, len(text) + 1, text + b"\0"),))


def output_image(scan: EmbeddedMetadata) -> OutputImage:
    embedded, text, _ = carried_by_result(scan, "software", "Colour added", "scan.tif")
    samples = np.full((40, 60, 3), 90, np.uint8)
    return OutputImage(
        (40, 60), samples.dtype, lambda y, x: samples[y, x], software="s", description=text, embedded=embedded
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (CAPTION.encode(), CAPTION),
        (CAPTION.encode("cp1252"), CAPTION),
        ("Köln, Straße".encode("latin-1"), "Köln, Straße"),
        (b"K\xf6ln \x81\x9d", "Köln \x81\x9d"),  # two bytes that cp1252 has nothing for
    ],
)
@pytest.mark.parametrize(("code", "read"), [(270, description_of), (305, software_of)])
def test_texts_that_are_not_utf8_are_read_as_what_they_are(text, told, code, read):
    assert read(captioned(text, code)) == told


@pytest.mark.parametrize("name", FORMATS)
def test_a_caption_of_another_encoding_is_in_every_format(name, tmp_path):
    scan = captioned(CAPTION.encode("cp1252"))
    path, picture = tmp_path / f"a{ENDINGS[name]}", output_image(scan)
    written = write_picture(name, path, picture, 2)
    assert missing_in(name, path, picture, written.not_carried) == {}
    assert missing_of_scan(name, path, scan) == {}
    assert CAPTION in description_of(FORMATS[name].embedded(path))


@pytest.mark.parametrize("name", FORMATS)
def test_a_caption_that_is_not_in_the_file_is_told(name, tmp_path):
    scan = captioned(CAPTION.encode())
    path, picture = tmp_path / f"a{ENDINGS[name]}", output_image(scan)
    written = write_picture(name, path, replace(picture, description="K?ln"), 2)
    assert "Rathausplatz" in missing_in(name, path, picture, written.not_carried)["description"]
    assert "Rathausplatz" in missing_of_scan(name, path, scan)["description"]


@pytest.mark.parametrize(
    "text",
    [
        "SI.1910.23 Portrait of a woman",
        '<?xml version="1.0"?><mods><titleInfo><title>A house</title></titleInfo></mods>',
        "<OMEN> of war",
        "Aperio Street, 1911",
        "shape=(round)",
        '{"shape": "oval", "title": "A brooch"}',
        "ImageJ= ?",
    ],
)
def test_a_caption_is_a_caption(text):
    _, told, lost = carried_by_result(captioned(text.encode()), "software", "Colour added", "scan.tif")
    assert (told, lost) == (f"{text}\nColour added", {})


@pytest.mark.parametrize(
    "text",
    [
        "SI.VERSION_MAJOR = 2020\nSI.hChannels.channelSave = 1",
        '<?xml version="1.0" encoding="UTF-8"?><!-- Warning: OME-XML -->\n<OME xmlns="http://www.openmicroscopy.org/">',
        "<ome:OME>",
        "ImageJ=1.53t\nimages=3",
        "Aperio Image Library v10.2.41\n46920x33014",
        "shape=(3, 40, 60)",
    ],
)
def test_what_is_about_other_samples_is_left_out_and_told(text):
    _, told, lost = carried_by_result(captioned(text.encode()), "software", "Colour added", "scan.tif")
    assert told == "Colour added"
    assert "stays in the store" in lost["description"]


def ascii_tag(code: int, text: str) -> TiffTag:
    value = text.encode() + b"\0"
    return TiffTag(code, 2, len(value), value)


def with_note(note: bytes) -> bytes:
    return exif_block((ascii_tag(271, "Canon"), ascii_tag(272, "Canon EOS")), (TiffTag(37500, 7, len(note), note),))


def canon_block() -> bytes:
    """With a note that counts its offsets from the start of the block."""
    tags = (ascii_tag(6, "Canon EOS 5D IMG:repro"), ascii_tag(9, "Owner Archive Koeln"))
    at = with_note(directory(tags, 0)).index(directory(tags, 0)[:2] + struct.pack("<HH", 6, 2))
    return with_note(directory(tags, at))


def apple_note() -> bytes:
    head = b"Apple iOS\0\0\1II"
    return head + directory((ascii_tag(8, "a text of some length"),), len(head))


def written(scan: EmbeddedMetadata, name: str, tmp_path):
    path = tmp_path / f"a{ENDINGS[name]}"
    picture = output_image(scan)
    write_picture(name, path, picture, 2)
    return path


@pytest.mark.parametrize("name", ["tiff", "jpeg", "png"])
def test_a_maker_note_that_holds_only_in_its_place_is_left_out_and_told(name, tmp_path):
    scan = EmbeddedMetadata(exif=canon_block())
    _, _, lost = carried_by_result(scan, "software", "Colour added", "scan.tif")
    assert "offsets" in lost["maker note"]
    path = written(scan, name, tmp_path)
    assert missing_of_scan(name, path, scan) == {}
    assert b"IMG:repro" not in path.read_bytes()


@pytest.mark.parametrize("name", ["tiff", "jpeg", "png"])
def test_a_maker_note_that_holds_anywhere_goes_on(name, tmp_path):
    scan = EmbeddedMetadata(exif=with_note(apple_note()))
    assert carried_by_result(scan, "software", "Colour added", "scan.tif")[2] == {}
    path = written(scan, name, tmp_path)
    assert missing_of_scan(name, path, scan) == {}
    (note,) = (tag.value for tag in parse_exif(FORMATS[name].embedded(path).exif).exif if tag.code == 37500)
    assert note == apple_note()


@pytest.mark.e2e
@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not there")
def test_exiftool_reads_the_cameras_text_or_none(tmp_path):
    Image.fromarray(np.full((40, 60), 90, np.uint8)).save(tmp_path / "scan.jpg", exif=b"Exif\0\0" + canon_block())

    def says(path):
        words = ["exiftool", "-s3", "-CanonImageType", "-OwnerName", "-Warning", str(path)]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split("\n")[:-1]

    assert says(tmp_path / "scan.jpg") == ["Canon EOS 5D IMG:repro", "Owner Archive Koeln"]
    with open_scan(tmp_path / "scan.jpg") as reader:
        scan = reader.embedded
    assert [says(written(scan, name, tmp_path)) for name in ("tiff", "jpeg")] == [[], []]
