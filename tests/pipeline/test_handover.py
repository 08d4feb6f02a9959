"""The scan's own caption goes into the result's, whatever it is encoded in, and is looked for in the written file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.carried import Carried, TiffTag
from pipeline.carrying import description_of, found_in, software_of
from pipeline.handover import carried_by_result, missing_in, missing_of_scan
from pipeline.writers import ENDINGS, FORMATS, Picture, write_picture

READ_AGAIN = sorted(set(FORMATS) - {"iiif"})
CAPTION = "Köln, Rathausplatz – „Markt“"  # noqa: RUF001 - of cp1252
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def captioned(text: bytes, code: int = 270) -> Carried:
    return Carried(tags=(TiffTag(code, 2, len(text) + 1, text + b"\0"),))


def picture_of(scan: Carried) -> Picture:
    carried, text, _ = carried_by_result(scan, "software", "Colour added", "scan.tif")
    samples = np.full((40, 60, 3), 90, np.uint8)
    return Picture((40, 60), samples.dtype, lambda y, x: samples[y, x], software="s", description=text, carried=carried)


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


@pytest.mark.parametrize("name", READ_AGAIN)
def test_a_caption_of_another_encoding_is_in_every_format(name, tmp_path):
    scan = captioned(CAPTION.encode("cp1252"))
    path, picture = tmp_path / f"a{ENDINGS[name]}", picture_of(scan)
    written = write_picture(name, path, picture, 2)
    assert missing_in(name, path, picture, written.not_carried) == {}
    assert missing_of_scan(path, scan) == {}
    assert CAPTION in description_of(found_in(path))


@pytest.mark.parametrize("name", READ_AGAIN)
def test_a_caption_that_is_not_in_the_file_is_told(name, tmp_path):
    scan = captioned(CAPTION.encode())
    path, picture = tmp_path / f"a{ENDINGS[name]}", picture_of(scan)
    written = write_picture(name, path, replace(picture, description="K?ln"), 2)
    assert "Rathausplatz" in missing_in(name, path, picture, written.not_carried)["description"]
    assert "Rathausplatz" in missing_of_scan(path, scan)["description"]


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
