"""Names of files that are not UTF-8, as older systems left them in archives."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import OutputError, ScanUnreadableError
from pipeline.formats import FORMATS, OutputImage, write_picture
from pipeline.formats.picture import SRGB_PROFILE
from pipeline.metadata.model import EmbeddedMetadata
from pipeline.readers import open_scan
from tests.pipeline.writer_conformance import PLACE, XMP, no_file_larger, output_image, smooth, whole

CARRIED = EmbeddedMetadata(icc=SRGB_PROFILE, xmp=XMP, place=PLACE)
LATIN = os.fsdecode(b"caf\xe9")


def in_folder(folder, name, stem):
    folder.mkdir()
    return folder / f"{stem}{FORMATS[name].ENDING}"


def files_open():
    return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0


@pytest.fixture
def odd_folder(tmp_path):
    folder = tmp_path / os.fsdecode(b"\xfcber")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    return folder


@pytest.mark.parametrize("name", FORMATS)
def test_a_name_that_is_not_utf_8_changes_nothing_in_the_file(tmp_path, odd_folder, name):
    picture = output_image(smooth((600, 300)), description=f"of {LATIN}.tif", embedded=CARRIED)
    plain, odd = in_folder(tmp_path / "plain", name, "cafe"), in_folder(odd_folder / "in", name, LATIN)
    told = write_picture(name, plain, picture, 2)
    open_before = files_open()
    assert write_picture(name, odd, picture, 2).not_carried == told.not_carried
    assert list(odd.parent.iterdir()) == [odd]
    assert files_open() == open_before
    wanted, found = whole(plain), whole(odd)
    if plain.is_dir():
        described = {"iiif": "info.json", "omezarr": "zarr.json"}[name]  # the name is in it
        json.dumps(json.loads(found.pop(described)), ensure_ascii=False).encode()  # no half of a surrogate pair
        wanted.pop(described)
    assert found == wanted
    if name != "iiif":
        odd.rename(tmp_path / plain.name)
        with open_scan(tmp_path / plain.name) as reader:
            assert reader.info.shape_yx == (600, 300)


def test_the_address_of_tiles_has_the_bytes_of_the_name(odd_folder):
    path = odd_folder / f"{LATIN} 1.color.iiif"
    write_picture("iiif", path, output_image(smooth((60, 40))), 1)
    assert json.loads((path / "info.json").read_text())["id"] == "caf%E9%201.color.iiif"


@pytest.mark.parametrize("name", FORMATS)
def test_what_goes_wrong_under_such_a_name_leaves_the_older_one(odd_folder, name):
    path = in_folder(odd_folder / "in", name, LATIN)
    write_picture(name, path, output_image(smooth((30, 50))), 1)
    older = whole(path)

    def read_window(rows, columns):
        raise ScanUnreadableError("damaged")

    with pytest.raises(ScanUnreadableError, match=r"^damaged$"):
        write_picture(name, path, OutputImage((60, 40), np.dtype("uint8"), read_window), 1)
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    with pytest.raises(OutputError, match="disk full"), no_file_larger(20_000):
        write_picture(name, path, output_image(noise), 1)
    assert whole(path) == older
    assert list(path.parent.iterdir()) == [path]
