"""OME-Zarr: what its own library, the published model and plain Zarr find in it."""

from __future__ import annotations

import base64
import itertools
import json
from fractions import Fraction

import numpy as np
import pytest
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from ome_zarr_models.v05 import Image

from pipeline.formats import _ome_zarr, omezarr
from pipeline.formats.picture import SRGB_PROFILE
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
    output_image,
    samples,
)


def exact_half(image, counts):
    """Means of 2 x 2 of those that count, as fractions, pixel by pixel; None where nothing does."""
    height, width = image.shape[:2]
    half = np.full(((height + 1) // 2, (width + 1) // 2, image.shape[2]), None, object)
    for y, x in np.ndindex(half.shape[:2]):
        part = image[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].reshape(-1, image.shape[2])
        weights = counts[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].ravel().tolist()
        if sum(weights):
            sums = [sum(w * v for w, v in zip(weights, part[:, c].tolist(), strict=True)) for c in range(part.shape[1])]
            half[y, x] = [Fraction(value, sum(weights)) for value in sums]
    return half


class TestOmeZarr(WriterConformance):
    name = "omezarr"
    folder = True
    keeps_nodata = False

    def readings(self, path):
        yield np.moveaxis(zarr.open_group(str(path), mode="r")["0"][:], 0, -1)
        (node,) = Reader(parse_url(str(path)))()
        yield np.moveaxis(np.asarray(node.data[0]), 0, -1)

    @pytest.mark.parametrize("channels", [3, 4])
    @pytest.mark.parametrize("resolution", [None, (300.0, 150.0, "inch"), (100.0, 200.0, "cm"), (1.0, 1.0, "none")])
    def test_it_follows_the_published_model(self, path, resolution, channels):
        self.write(path, output_image(samples((600, 700), "uint16", channels), resolution=resolution))
        image = Image.from_zarr(zarr.open_group(str(path), mode="r"))
        assert image.ome_attributes.version == "0.5"
        scale = image.ome_attributes.multiscales[0]
        assert [axis.name for axis in scale.axes] == ["c", "y", "x"]
        size_yx = {"inch": (169.333333, 84.666667), "cm": (50.0, 100.0)}.get((resolution or " ")[-1])
        assert [axis.unit for axis in scale.axes] == [None, *["micrometer" if size_yx else None] * 2]
        scales = [dataset.coordinateTransformations[0].scale for dataset in scale.datasets]
        assert scales[0] == pytest.approx([1, *(size_yx or (1.0, 1.0))])
        assert scales[2] == pytest.approx([1, *(4 * size for size in size_yx or (1.0, 1.0))])
        shown = dict(image.ome_attributes.omero)["channels"]
        assert [channel["color"] for channel in shown] == ["FF0000", "00FF00", "0000FF", "FFFFFF"][:channels]
        assert {channel["window"]["end"] for channel in shown} == {65535}

    def test_ome_zarr_shows_it_in_colour(self, path):
        written = self.write(path, output_image(samples((600, 700), "uint8")))
        (node,) = Reader(parse_url(str(path)))()
        assert tuple(level.shape[1:] for level in node.data) == written.levels_yx
        assert node.metadata["channel_names"] == ["R", "G", "B"]

    @pytest.mark.parametrize("dtype", ["uint8", "uint16"])
    def test_levels_are_means_of_two_by_two(self, path, dtype):
        self.write(path, output_image(samples((301, 300), dtype)))
        levels = self.levels(path)
        assert [level.shape[:2] for level in levels] == [(301, 300), (151, 150)]
        for larger, smaller in itertools.pairwise(levels):
            expected = exact_half(larger, np.ones(larger.shape[:2], int))
            assert np.abs(smaller - expected.astype(float)).max() <= 0.5

    @pytest.mark.parametrize("nodata", [0, 90, 65535])
    def test_nodata_does_not_bleed_into_smaller_copies(self, path, nodata):
        image = samples((301, 280), "uint16")
        image[image == nodata] = 91
        image[:90, 33:] = nodata
        self.write(path, output_image(image, nodata=nodata))
        larger, smaller, *_ = self.levels(path)
        expected = exact_half(larger, (larger != nodata).all(axis=-1).astype(int))
        empty = np.equal(expected, None).any(axis=-1)
        assert empty.any()
        assert (smaller[empty] == nodata).all()
        assert np.abs(smaller[~empty] - expected[~empty].astype(float)).max() <= 1
        assert (smaller[~empty] != nodata).all()

    @pytest.mark.parametrize("dtype", ["uint8", "uint16"])
    def test_colours_count_as_much_as_they_are_opaque(self, path, dtype):
        self.write(path, output_image(samples((301, 280), dtype, 4)))
        larger, smaller, *_ = self.levels(path)
        expected = exact_half(larger[..., :3], larger[..., 3])
        seen = ~np.equal(expected, None).any(axis=-1)
        assert not seen.all()
        assert np.abs(smaller[..., :3][seen] - expected[seen].astype(float)).max() <= 0.5001
        alpha = exact_half(larger[..., 3:], np.ones(larger.shape[:2], int))
        assert np.abs(smaller[..., 3:] - alpha.astype(float)).max() <= 0.5

    def levels(self, path):
        group = zarr.open_group(str(path), mode="r")
        return [np.moveaxis(group[name][:], 0, -1) for name in sorted(group.array_keys())]

    @pytest.mark.parametrize("threads", [1, 3])
    def test_pictures_of_several_shards(self, path, threads, monkeypatch):
        for module in (_ome_zarr, omezarr):
            monkeypatch.setattr(module, "SHARD_PX", 512)
        image = samples((1100, 1300), "uint8")
        self.write(path, output_image(image), threads)
        whole, half, *_ = self.levels(path)
        np.testing.assert_array_equal(whole, image)
        even = image.astype(float)
        expected = (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4
        assert np.abs(half - expected).max() <= 0.5
        assert len([each for each in (path / "0" / "c").rglob("*") if each.is_file()]) == 9

    def test_a_file_is_a_shard(self, path):
        self.write(path, output_image(samples((600, 700), "uint8")))
        (level,) = json.loads((path / "0" / "zarr.json").read_text())["codecs"]
        assert level["name"] == "sharding_indexed"
        assert [str(each.relative_to(path / "0")) for each in (path / "0" / "c").rglob("*") if each.is_file()] == [
            "c/0/0/0"
        ]

    def test_what_a_scan_says_is_in_our_attribute(self, path):
        embedded = EmbeddedMetadata(
            icc=SRGB_PROFILE, exif=EXIF, iptc=IPTC, xmp=XMP, photoshop=PHOTOSHOP, tags=TAGS, place=PLACE
        )
        picture = output_image(
            samples((40, 60), "uint8"),
            software="program 1",
            description="d",
            orientation=6,
            nodata=0,
            embedded=embedded,
        )
        written = self.write(path, picture)
        assert set(written.not_carried) == {"orientation", "nodata"}
        ours = zarr.open_group(str(path), mode="r").attrs["colorize-archive"]
        assert (ours["software"], ours["description"], ours["orientation"]) == ("program 1", "d", 6)
        assert ours["xmp"].encode() == XMP
        assert base64.b64decode(ours["carried"]["iptc"]) == IPTC
        assert EmbeddedMetadata.from_json({**ours["carried"], "xmp": base64.b64encode(XMP).decode()}) == embedded

    def test_a_resolution_without_a_unit_is_read_again(self, path):
        """What tifffile writes where nothing is said; ``verify`` looks for it."""
        written = self.write(path, output_image(samples((40, 60), "uint8"), resolution=(1.0, 1.0, "none")))
        assert not written.not_carried
        with open_scan(path) as reader:
            assert reader.info.metadata["resolution"] == [1.0, 1.0, "none"]

    @pytest.mark.parametrize("told", ["300", [1, 2], [1, 1, "inch", 4], [1, "x", "none"], [-1, 1, "none"], {"x": 1}, 5])
    def test_a_damaged_resolution_is_none(self, path, told):
        self.write(path, output_image(samples((40, 60), "uint8")))
        described = json.loads((path / "zarr.json").read_text())
        described["attributes"]["colorize-archive"] = {"resolution": told}
        (path / "zarr.json").write_text(json.dumps(described))
        with open_scan(path) as reader:
            assert "resolution" not in reader.info.metadata

    def test_a_block_too_large_for_an_attribute_is_said_to_be_lost(self, path):
        picture = output_image(
            samples((40, 60), "uint8"), embedded=EmbeddedMetadata(photoshop=bytes(2**20 + 1), iptc=IPTC)
        )
        written = self.write(path, picture)
        assert set(written.not_carried) == {"photoshop"}
        assert "photoshop" not in zarr.open_group(str(path), mode="r").attrs["colorize-archive"]["carried"]
