"""PNG and JPEG: what Pillow, OpenCV, GDAL and exiftool find in them."""

from __future__ import annotations

import io
import shutil

import cv2
import numpy as np
import pytest
import pyvips
import rasterio
from PIL import Image, IptcImagePlugin

from pipeline.errors import UsageError
from pipeline.formats import jpeg
from pipeline.formats.picture import SRGB_PROFILE, OutputImage
from pipeline.metadata.model import EmbeddedMetadata
from pipeline.readers import open_scan
from tests.pipeline.writer_conformance import (
    EXIF,
    IPTC,
    PHOTOSHOP,
    PLACE,
    TAGS,
    XMP,
    WriterConformance,
    exiftool,
    output_image,
    smooth,
    text_tag,
)

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
CARRIED = EmbeddedMetadata(icc=SRGB_PROFILE, exif=EXIF, iptc=IPTC, xmp=XMP, photoshop=PHOTOSHOP, tags=TAGS, place=PLACE)
PICTURE = output_image(
    smooth((40, 60)),
    software="program 1 ä",
    description="colours",
    orientation=6,
    resolution=(300.0, 240.0, "inch"),
    embedded=CARRIED,
)


def readings(path):
    with rasterio.open(path) as dataset:
        yield np.moveaxis(dataset.read(), 0, -1)
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    yield stored[..., [2, 1, 0, 3][: stored.shape[2]]]
    if stored.dtype == np.uint8:
        with Image.open(path) as image:
            yield np.asarray(image)


class Small(WriterConformance):
    def readings(self, path):
        return readings(path)

    def test_pillow_finds_what_it_carries(self, path):
        self.write(path, PICTURE)
        with Image.open(path) as image:
            exif = image.getexif()
            assert image.size == (60, 40)  # it is not turned
            assert image.info["icc_profile"] == SRGB_PROFILE
            assert image.info["dpi"] == pytest.approx((300, 240), abs=0.02)
            assert image.info["xmp"] == XMP
        assert (exif[271], exif[274], exif[269], exif[270]) == ("Heidelberg", 6, "plate 17", "colours")
        # Pillow takes ASCII for Latin-1.
        assert [exif[code].encode("latin-1").decode() for code in (305, 315)] == ["program 1 ä", "M. Müller"]
        assert (exif[282], exif[283], exif[296]) == (300, 240, 2)
        assert exif.get_ifd(0x8769) == {36867: "1936:05:01 12:00:00"}
        assert exif.get_ifd(0x8825) == {1: "N", 2: (52.0, 31.0, 1.2)}

    @pytest.mark.skipif(not shutil.which("exiftool"), reason="needs exiftool")
    def test_exiftool_finds_what_it_carries(self, path):
        self.write(path, PICTURE)
        found = exiftool(path)
        assert "[IFD0] Copyright: CC0" in found
        assert "[IFD0] Orientation: 6" in found
        assert "[XMP-dc] Source: plate 17 ä" in found
        assert "[ICC_Profile] ProfileDescription: sRGB built-in" in found
        assert "Warning" not in found

    def test_a_picture_of_which_nothing_is_known_says_nothing(self, path):
        self.write(path, output_image(smooth((40, 60)), embedded=EmbeddedMetadata()))
        with Image.open(path) as image:
            assert not dict(image.getexif())
            assert not {"icc_profile", "xmp", "dpi", "exif", "photoshop"} & set(image.info)

    def test_libvips_has_one_worker_an_image(self, path):
        """With several it may wait for itself for ever, once in thousands of pictures."""
        self.write(path, output_image(smooth((40, 60)), embedded=EmbeddedMetadata()))
        assert pyvips.concurrency_get() == 1

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_the_orientation_is_said_once_and_the_pixels_stay(self, path, orientation):
        self.write(path, output_image(smooth((40, 60)), orientation=orientation, embedded=EmbeddedMetadata(exif=EXIF)))
        with Image.open(path) as image:
            assert (image.size, image.getexif()[274]) == ((60, 40), orientation)

    @pytest.mark.parametrize(("unit", "dpi"), [("inch", 300), ("cm", 762)])
    def test_units_of_resolution(self, path, unit, dpi):
        self.write(path, output_image(smooth((40, 60)), resolution=(300.0, 300.0, unit)))
        with Image.open(path) as image:
            assert image.info["dpi"] == pytest.approx((dpi, dpi), abs=0.02)

    def test_damaged_exif_is_left_out_and_said(self, path):
        embedded = EmbeddedMetadata(exif=b"II*\0\xff\xff\xff\xff", tags=(text_tag(315, "A"),))
        written = self.write(path, output_image(smooth((40, 60)), embedded=embedded))
        assert "damaged" in written.not_carried["exif"]
        with Image.open(path) as image:
            assert dict(image.getexif()) == {315: "A"}


class TestPng(Small):
    name = "png"

    def nodata_of(self, path):
        with Image.open(path) as image:
            assert len(set(image.info["transparency"])) == 1
            return image.info["transparency"][0]

    def test_what_png_has_no_place_for_is_said(self, path):
        assert set(self.write(path, PICTURE).not_carried) == {"iptc", "photoshop", "place"}

    def test_gdal_takes_the_nodata_colour_for_no_picture(self, path):
        image = smooth((40, 60), "uint16")
        image[:10] = 65535
        self.write(path, output_image(image, nodata=65535))
        with rasterio.open(path) as dataset:
            assert (dataset.dataset_mask()[:10] == 0).all()
            assert (dataset.dataset_mask()[10:] == 255).all()

    def test_every_chunk_is_whole(self, path):
        self.write(path, PICTURE)
        with Image.open(path) as image:
            image.verify()  # its chunks' checksums

    def test_too_large_a_picture_is_refused(self, path):
        picture = OutputImage((2**14, 2**14 + 1), np.dtype("uint8"), lambda rows, columns: np.zeros(0))
        with pytest.raises(UsageError, match=r"^16385 x 16384 pixels.*write tiff or cog"):
            self.write(path, picture)
        assert not list(path.parent.iterdir())

    def test_a_side_that_libpng_does_not_read_is_refused(self, path):
        picture = OutputImage((1, 1_000_001), np.dtype("uint8"), lambda rows, columns: np.zeros(0))
        with pytest.raises(UsageError, match=r"^1000001 x 1 pixels.*write tiff or cog"):
            self.write(path, picture)


class TestJpeg(Small):
    name = "jpeg"
    lossless = False
    keeps_depth = False
    keeps_alpha = False
    keeps_nodata = False

    def test_what_jpeg_has_no_place_for_is_said(self, path):
        assert set(self.write(path, PICTURE).not_carried) == {"place"}

    def test_pillow_finds_iptc_and_photoshop_resources(self, path):
        self.write(path, PICTURE)
        with Image.open(path) as image:
            resources = image.info["photoshop"]
            assert IptcImagePlugin.getiptcinfo(image)[(2, 105)] == b"Headline"
        assert resources[0x0404] == IPTC
        assert resources[0x040B] == b"https://x.y"
        assert resources[0x07D0] == b"ab"
        assert 0x040C not in resources  # a thumbnail without colours

    def test_iptc_takes_the_place_of_that_among_the_resources(self, path):
        older = b"8BIM\x04\x04\0\0\0\0\0\x08\x1c\x02\x69\0\x03old"
        self.write(
            path, output_image(smooth((40, 60)), embedded=EmbeddedMetadata(iptc=IPTC, photoshop=older + PHOTOSHOP))
        )
        with Image.open(path) as image:
            assert IptcImagePlugin.getiptcinfo(image)[(2, 105)] == b"Headline"

    @pytest.mark.parametrize("damaged", [PHOTOSHOP[:-3], b"not resources", b"8BIM\x04\x04\0\0\xff\xff\xff\xff"])
    def test_damaged_resources_are_left_out_and_said(self, path, damaged):
        embedded = EmbeddedMetadata(iptc=IPTC, photoshop=damaged)
        written = self.write(path, output_image(smooth((40, 60)), embedded=embedded))
        assert "damaged" in written.not_carried["photoshop"]
        with Image.open(path) as image:
            assert IptcImagePlugin.getiptcinfo(image)[(2, 105)] == b"Headline"

    def test_blocks_of_several_segments(self, path):
        iptc = b"".join(b"\x1c\x02\x19" + (2000).to_bytes(2, "big") + bytes([65 + n]) * 2000 for n in range(50))
        profile = SRGB_PROFILE + bytes(150_000)
        self.write(path, output_image(smooth((40, 60)), embedded=EmbeddedMetadata(icc=profile, iptc=iptc)))
        with Image.open(path) as image:
            assert image.info["icc_profile"] == profile
            image.load()

    @pytest.mark.skipif(not shutil.which("exiftool"), reason="needs exiftool")
    def test_exiftool_joins_resources_of_several_segments(self, path):
        iptc = b"".join(b"\x1c\x02\x19" + (2000).to_bytes(2, "big") + bytes([65 + n]) * 2000 for n in range(50))
        self.write(path, output_image(smooth((40, 60)), embedded=EmbeddedMetadata(iptc=iptc)))
        assert exiftool(path, "-sep", "|", "-IPTC:Keywords").count("|") == 49
        assert "Warning" not in exiftool(path)

    def test_blocks_too_large_for_a_segment_are_said_to_be_lost(self, path):
        embedded = EmbeddedMetadata(exif=EXIF, xmp=XMP + b" " * 70_000, tags=(text_tag(315, "A" * 70_000),))
        picture = output_image(smooth((40, 60)), orientation=6, description="d" * 70_000, embedded=embedded)
        written = self.write(path, picture)
        assert set(written.not_carried) == {"exif", "tags", "description"}
        with Image.open(path) as image:
            assert dict(image.getexif()) == {274: 6}

    def test_a_long_description_stays_where_the_tags_have_to_go(self, path):
        embedded = EmbeddedMetadata(tags=(text_tag(315, "A" * 50_000),))
        written = self.write(path, output_image(smooth((40, 60)), description="d" * 30_000, embedded=embedded))
        assert set(written.not_carried) == {"tags"}
        with Image.open(path) as image:
            assert dict(image.getexif()) == {270: "d" * 30_000}

    def test_colours_are_at_full_resolution(self, path):
        self.write(path, output_image(smooth((40, 60))))
        with Image.open(path) as image:
            assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3
        assert io.BytesIO(path.read_bytes()).read(4) == b"\xff\xd8\xff\xe0"

    @pytest.mark.parametrize(
        ("resolution", "jfif", "dpi"),
        [
            ((300.0, 240.0, "inch"), (1, 300, 240), (300, 240)),
            ((118.11, 118.11, "cm"), (1, 300, 300), (299.9994, 299.9994)),
            ((60.0, 60.0, "cm"), (2, 60, 60), (152.4, 152.4)),
            ((72.49, 72.49, "inch"), (0, 1, 1), (72.49, 72.49)),
            ((0.4, 0.4, "cm"), (0, 1, 1), (1.016, 1.016)),
            ((1e6, 1e6, "inch"), (0, 1, 1), (1e6, 1e6)),
            ((40.25, 20.125, "cm"), (0, 2, 1), (102.235, 51.1175)),
        ],
    )
    def test_jfif_says_the_resolution_where_it_has_numbers_for_it_and_exif_always(self, path, resolution, jfif, dpi):
        self.write(path, output_image(smooth((40, 60)), resolution=resolution))
        with Image.open(path) as image:
            assert (image.info["jfif_unit"], *image.info["jfif_density"]) == jfif
            exif = image.getexif()
            inches = {2: 1, 3: 2.54}[exif[296]]
            assert [float(exif[code]) * inches for code in (282, 283)] == pytest.approx(dpi, rel=1e-6)

    @pytest.mark.parametrize(
        ("jfif", "exif", "wanted"),
        [
            ((300, 300), (118.11, 3), [118.11, 118.11, "cm"]),
            ((118, 118), (117.6, 2), [117.6, 117.6, "inch"]),
            ((72, 72), (118.11, 3), [72.0, 72.0, "inch"]),
            ((72, 72), (72.2, 1), [72.0, 72.0, "inch"]),
        ],
    )
    def test_what_jfif_rounds_is_read_from_exif(self, path, jfif, exif, wanted):
        tags = Image.Exif()
        tags[282], tags[283], tags[296] = exif[0], exif[0], exif[1]
        Image.fromarray(smooth((40, 60))).save(path, dpi=jfif, exif=tags)
        with open_scan(path) as reader:
            x, y, unit = reader.info.metadata["resolution"]
        assert [round(x, 6), round(y, 6), unit] == wanted

    def test_sixteen_bit_is_rounded_to_eight(self, path):
        image = np.full((64, 64, 3), 128, np.uint16)
        image[:, 32:] = 129
        self.write(path, output_image(image))
        found = next(iter(readings(path)))
        assert (found[:, :32] == 0).all()
        assert (found[:, 32:] == 1).all()

    def test_too_long_a_side_is_refused(self, path):
        picture = OutputImage((1, jpeg.LIMIT_SIDE_PX + 1), np.dtype("uint8"), lambda rows, columns: np.zeros(0))
        with pytest.raises(UsageError, match=r"^65501 x 1 pixels.*write tiff or cog"):
            self.write(path, picture)
