"""IIIF: every address that a viewer derives from info.json is a file, with the pixels it asks for."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import pyvips
from PIL import Image

from pipeline.formats.picture import SRGB_PROFILE
from pipeline.metadata.model import EmbeddedMetadata
from pipeline.metadata.provenance import SOURCE_TYPE, xmp_packet
from tests.pipeline.writer_conformance import (
    EXIF,
    IPTC,
    PHOTOSHOP,
    PLACE,
    TAGS,
    XMP,
    WriterConformance,
    output_image,
    smooth,
)


def tile_requests(info):
    """Region and size of each tile in canonical form, as the specification's note on tiles computes them (5.4)."""
    (tiles,) = info["tiles"]
    side, width, height = tiles["width"], info["width"], info["height"]
    for scale in tiles["scaleFactors"]:
        for y in range(0, height, side * scale):
            for x in range(0, width, side * scale):
                wide, tall = min(side * scale, width - x), min(side * scale, height - y)
                region = "full" if (wide, tall) == (width, height) else f"{x},{y},{wide},{tall}"
                yield region, (x, y, wide, tall), (-(-wide // scale), -(-tall // scale))


def read_rgb(path):
    return cv2.imread(str(path))[..., ::-1]


class TestIiif(WriterConformance):
    name = "iiif"
    folder = True
    lossless = False
    keeps_depth = False
    keeps_alpha = False
    keeps_nodata = False

    def readings(self, path):
        """Put together from the tiles of full size, as a viewer does."""
        info = json.loads((path / "info.json").read_text())
        whole = np.zeros((info["height"], info["width"], 3), np.uint8)
        for region, (x, y, wide, tall), size in tile_requests(info):
            if size == (wide, tall):
                found = read_rgb(path / region / f"{wide},{tall}" / "0" / "default.jpg")
                whole[y : y + tall, x : x + wide] = found
        yield whole

    @pytest.mark.parametrize("shape_yx", [(1, 1), (3, 700), (513, 512), (1300, 2100), (2500, 400), (300, 2049)])
    def test_every_address_is_a_file(self, path, shape_yx):
        image = smooth(shape_yx)
        written = self.write(path, output_image(image))
        info = json.loads((path / "info.json").read_text())
        assert info["@context"] == "http://iiif.io/api/image/3/context.json"
        assert (info["type"], info["protocol"]) == ("ImageService3", "http://iiif.io/api/image")
        assert (info["profile"], info["id"]) == ("level0", path.name)
        assert (info["height"], info["width"]) == shape_yx == written.levels_yx[0]
        expected = {"info.json"}
        for region, (x, y, wide, tall), size in tile_requests(info):
            name = f"{region}/{size[0]},{size[1]}/0/default.jpg"
            tile = read_rgb(path / name)
            assert tile.shape == (size[1], size[0], 3)
            part = cv2.resize(image[y : y + tall, x : x + wide], size, interpolation=cv2.INTER_AREA)
            assert np.abs(tile.astype(int) - part).mean() < 3
            expected.add(name)
        for size in info["sizes"]:
            expected.add(f"full/{size['width']},{size['height']}/0/default.jpg")
        expected.add("full/max/0/default.jpg")
        assert {str(each.relative_to(path)) for each in path.rglob("*") if each.is_file()} == expected

    @pytest.mark.parametrize("shape_yx", [(1300, 2100), (2500, 400), (400, 5000), (600, 700)])
    def test_whole_pictures_of_the_sizes_it_lists(self, path, shape_yx):
        image = smooth(shape_yx)
        self.write(path, output_image(image))
        info = json.loads((path / "info.json").read_text())
        limit = info.get("maxWidth", max(shape_yx))
        for size in info["sizes"]:
            width, height = size["width"], size["height"]
            assert max(width, height) <= limit
            found = read_rgb(path / "full" / f"{width},{height}" / "0" / "default.jpg")
            expected = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
            assert found.shape == expected.shape
            assert np.abs(found.astype(int) - expected).mean() < 3
        # "max": as large as maxWidth allows, of which maxHeight is the same where it is not said (5.2).
        scale = min(1, limit / max(shape_yx))
        largest = read_rgb(path / "full" / "max" / "0" / "default.jpg")
        assert largest.shape[:2] == pytest.approx([extent * scale for extent in shape_yx], abs=1)

    def test_what_it_has_no_place_for_is_said(self, path):
        embedded = EmbeddedMetadata(exif=EXIF, iptc=IPTC, xmp=XMP, photoshop=PHOTOSHOP, tags=TAGS, place=PLACE)
        written = self.write(
            path, output_image(smooth((40, 60)), orientation=6, resolution=(300.0, 300.0, "inch"), embedded=embedded)
        )
        assert set(written.not_carried) == {"place", "resolution"}

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_everything_is_upright(self, path, tmp_path, orientation):
        """As libvips turns the same samples in a file that says their orientation."""
        image = smooth((600, 1300))
        self.write(path, output_image(image, orientation=orientation))
        Image.fromarray(image).save(tmp_path / "scan.tif", tiffinfo={274: orientation})
        expected = pyvips.Image.new_from_file(str(tmp_path / "scan.tif")).autorot().numpy()
        (whole,) = self.readings(path)
        assert whole.shape == expected.shape
        assert np.abs(whole.astype(int) - expected).mean() < 1
        height, width = expected.shape[:2]
        small = cv2.imread(str(path / "full" / "max" / "0" / "default.jpg"), cv2.IMREAD_COLOR)[..., ::-1]
        assert small.shape == (height, width, 3)
        assert np.abs(small.astype(int) - expected).mean() < 1

    def test_every_tile_has_the_profile_and_every_whole_picture_says_what_it_is(self, path):
        xmp = xmp_packet("software 1, model m", "Colour added by an algorithm", "scan.tif")
        embedded = EmbeddedMetadata(icc=SRGB_PROFILE, xmp=xmp, exif=EXIF)
        text = "Colour added by an algorithm"
        self.write(path, output_image(smooth((1300, 700)), description=text, software="software 1", embedded=embedded))
        for each in path.rglob("default.jpg"):
            with Image.open(each) as image:
                assert image.info["icc_profile"] == SRGB_PROFILE
        for each in (path / "full").rglob("default.jpg"):
            with Image.open(each) as image:
                assert SOURCE_TYPE.encode() in image.info["xmp"]
                assert (image.getexif()[270], image.getexif()[271]) == (text, "Heidelberg")
                assert image.getexif().get(274, 1) == 1
        info = json.loads((path / "info.json").read_text())
        (link,) = info["seeAlso"]
        assert link["id"] == f"{path.name}/metadata.xmp"
        assert link["label"] == {"none": [text]}
        assert (path / "metadata.xmp").read_bytes() == xmp

    def test_a_name_with_signs_that_mean_something_elsewhere(self, tmp_path):
        path = tmp_path / "a%d [x=1], ä.color.iiif"
        self.write(path, output_image(smooth((40, 60))))
        assert json.loads((path / "info.json").read_text())["id"] == "a%25d%20%5Bx%3D1%5D%2C%20%C3%A4.color.iiif"
        assert list(tmp_path.iterdir()) == [path]
