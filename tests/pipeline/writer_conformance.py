"""What every output format keeps to; the tests of each subclass :class:`WriterConformance` and say how it is read."""

from __future__ import annotations

import contextlib
import resource
import struct
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from rasterio.crs import CRS

from pipeline.errors import OutputError, ScanUnreadableError
from pipeline.formats import FORMATS, OutputImage, write_picture
from pipeline.formats.picture import SRGB_PROFILE
from pipeline.metadata.exif import exif_block
from pipeline.metadata.model import EmbeddedMetadata, Georeference, TiffTag
from pipeline.readers import open_scan
from pipeline.support.files import remove

SIZES_YX = [(1, 1), (3, 700), (257, 513)]
XMP = (
    b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    b'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:source>plate 17 \xc3\xa4</dc:source></rdf:Description></rdf:RDF>'
    b'</x:xmpmeta><?xpacket end="r"?>'
)
IPTC = b"\x1c\x02\x00\x00\x02\x00\x04\x1c\x02\x69\x00\x08Headline\x1c\x02\x5a\x00\x06Kassel"
# A resource of our own choice (a URL), one with a name, an odd size, and a thumbnail.
PHOTOSHOP = (
    b"8BIM\x04\x0b\x00\x00" + struct.pack(">I", 11) + b"https://x.y\0"
    b"8BIM\x07\xd0\x04clip\x00" + struct.pack(">I", 2) + b"ab"
    b"8BIM\x04\x0c\x00\x00" + struct.pack(">I", 4) + b"thum"
)  # fmt: skip


def text_tag(code, text):
    value = text.encode() + b"\0"
    return TiffTag(code, 2, len(value), value)


EXIF = exif_block(
    (text_tag(271, "Heidelberg"), TiffTag(274, 3, 1, b"\1\0")),
    (text_tag(36867, "1936:05:01 12:00:00"),),
    (text_tag(1, "N"), TiffTag(2, 5, 3, struct.pack("<6I", 52, 1, 31, 1, 12, 10))),
)
TAGS = (text_tag(269, "plate 17"), text_tag(315, "M. Müller"), text_tag(33432, "CC0"))
PLACE = Georeference(crs=CRS.from_epsg(32633).to_wkt(), transform=(0.5, 0.0, 440_720.25, 0.0, -0.5, 3_751_320.75))


def samples(shape_yx, dtype, channels=3, seed=0):
    """Any values but those at the ends of the range, which a test may want for nodata; alpha of every kind."""
    rng = np.random.default_rng(seed)
    maximum = np.iinfo(dtype).max
    image = rng.integers(1, maximum, (*shape_yx, channels), dtype)
    if channels == 4:
        image[..., 3] = rng.choice([0, maximum // 3, maximum], shape_yx).astype(dtype)
    return image


def smooth(shape_yx, dtype="uint8", channels=3):
    """What a lossy format keeps nearly as it is."""
    y, x = np.mgrid[: shape_yx[0], : shape_yx[1]]
    planes = [np.sin(x / 90) + 1, np.cos(y / 70) + 1, (np.sin((x + y) / 110) + 1), np.full(shape_yx, 2.0)]
    scale = np.iinfo(dtype).max * 0.45
    return np.stack([plane * scale for plane in planes[:channels]], axis=-1).astype(dtype)


def output_image(image, **fields):
    height, width, channels = image.shape
    return OutputImage((height, width), image.dtype, lambda rows, columns: image[rows, columns], channels, **fields)


def whole(path):
    """The bytes of a file, or of every file of a folder by its name."""
    if path.is_dir():
        return {str(each.relative_to(path)): each.read_bytes() for each in path.rglob("*") if each.is_file()}
    return path.read_bytes()


@contextlib.contextmanager
def no_file_larger(limit_bytes):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def exiftool(path, *options):
    """What exiftool says, with numbers as they are."""
    command = ["exiftool", "-S", "-n", "-a", "-G1", *options, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def forget_peak():
    """Start to count the most memory that the process has in use anew (proc(5))."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_kib():
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1])


class WriterConformance:
    """Subclasses set ``name`` and what their format keeps, and say how outside programs read it."""

    name = ""
    folder = False
    lossless = True
    keeps_depth = True
    keeps_alpha = True
    keeps_nodata = True
    rows_of_two_sizes = (2048, 12_288)

    def readings(self, path):
        """The picture's (h, w, channels) samples by each of several outside readers."""
        raise NotImplementedError

    def nodata_of(self, path):
        """The nodata value by an outside reader, where the format keeps it."""
        raise NotImplementedError

    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / f"NAME{FORMATS[self.name].ENDING}"

    def write(self, path, picture, threads=2):
        return write_picture(self.name, path, picture, threads)

    @pytest.mark.parametrize("channels", [3, 4])
    @pytest.mark.parametrize("dtype", ["uint8", "uint16"])
    @pytest.mark.parametrize("shape_yx", SIZES_YX)
    def test_pixels_come_back(self, path, shape_yx, dtype, channels, capfd):
        image = (samples if self.lossless else smooth)(shape_yx, dtype, channels)
        written = self.write(path, output_image(image))
        assert written.levels_yx[0] == shape_yx
        assert list(path.parent.iterdir()) == [path]
        stored = image if self.keeps_alpha else image[..., :3]
        expected_type = dtype if self.keeps_depth else "uint8"
        for found in self.readings(path):
            assert found.dtype == expected_type
            if self.lossless:
                np.testing.assert_array_equal(found, stored)
                continue
            full_scale = np.iinfo(found.dtype).max
            difference = np.abs(found / full_scale - stored / np.iinfo(dtype).max)
            assert found.shape == stored.shape
            assert difference.mean() < 0.01
            assert difference.max() < 0.04
        assert ("depth" in written.not_carried) == (dtype == "uint16" and not self.keeps_depth)
        assert ("alpha" in written.not_carried) == (channels == 4 and not self.keeps_alpha)
        assert capfd.readouterr() == ("", "")

    def test_size_is_that_of_all_files(self, path):
        written = self.write(path, output_image(samples((257, 513), "uint8")))
        found = whole(path)
        assert path.is_dir() == self.folder
        assert written.bytes == (sum(map(len, found.values())) if self.folder else len(found))

    @pytest.mark.parametrize("nodata", [0, 255])
    def test_nodata(self, path, nodata):
        image = samples((60, 40), "uint8")
        image[:20] = nodata
        written = self.write(path, output_image(image, nodata=nodata))
        assert ("nodata" in written.not_carried) != self.keeps_nodata
        if self.keeps_nodata:
            assert self.nodata_of(path) == nodata

    def test_nothing_is_said_to_be_lost_of_what_was_not_there(self, path):
        written = self.write(path, output_image(smooth((40, 60)), orientation=1))
        assert not written.not_carried

    @pytest.mark.parametrize(
        "resolution",
        [
            (300.0, 240.0, "inch"),
            (118.11, 118.11, "cm"),
            (72.49, 72.49, "inch"),
            (0.4, 0.4, "cm"),
            (1.0, 1.0, "none"),
            (3.0, 2.0, "none"),
        ],
    )
    def test_the_resolution_is_read_as_it_was_or_said_to_be_lost(self, path, resolution):
        """As close as ``verify`` certifies it: PNG and JPEG 2000 have whole pixels a metre."""
        written = self.write(path, output_image(smooth((40, 60)), resolution=resolution))
        if "resolution" in written.not_carried:
            return
        with open_scan(path) as reader:
            found = reader.info.metadata["resolution"]
        per_cm = [[value / (2.54 if unit == "inch" else 1) for value in (x, y)] for x, y, unit in (found, resolution)]
        assert (found[2] == "none") == (resolution[2] == "none")
        assert per_cm[0] == pytest.approx(per_cm[1], rel=1e-4, abs=0.0051)

    @pytest.mark.parametrize("threads", [1, 3])
    @pytest.mark.parametrize("failure", [ScanUnreadableError("damaged"), FileNotFoundError("gone"), MemoryError()])
    def test_what_reading_raises_passes_and_leaves_the_older_one(self, path, failure, threads):
        self.write(path, output_image(smooth((30, 50))))
        older = whole(path)

        def read_window(rows, columns):
            if rows.start:
                raise failure
            return np.zeros((rows.stop - rows.start, columns.stop - columns.start, 3), np.uint8)

        with pytest.raises(type(failure)) as caught:
            self.write(path, OutputImage((1100, 300), np.dtype("uint8"), read_window), threads)
        assert caught.value is failure
        assert list(path.parent.iterdir()) == [path]
        assert whole(path) == older

    def test_an_interrupt_leaves_nothing(self, path):
        def read_window(rows, columns):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self.write(path, OutputImage((1100, 300), np.dtype("uint8"), read_window), 1)
        assert not list(path.parent.iterdir())

    @pytest.mark.parametrize("window", [np.zeros((9, 10, 3), np.uint8), np.zeros((10, 10, 3), np.uint16)])
    def test_a_window_of_the_wrong_kind_is_refused(self, path, window):
        with pytest.raises(ValueError, match="sheared"):
            self.write(path, OutputImage((10, 10), np.dtype("uint8"), lambda rows, columns: window))
        assert not list(path.parent.iterdir())

    def test_it_appears_only_whole_in_place_of_an_older_one(self, path):
        self.write(path, output_image(smooth((30, 50))))
        older, image, asked = whole(path), smooth((600, 300)), []

        def read_window(rows, columns):
            asked.append(whole(path) == older)
            return image[rows, columns]

        self.write(path, OutputImage((600, 300), image.dtype, read_window), 1)
        assert asked
        assert all(asked)
        assert next(iter(self.readings(path))).shape[:2] == (600, 300)
        assert list(path.parent.iterdir()) == [path]

    @pytest.mark.parametrize("missing_bytes", [1, 700, 5000, 60_000, 300_000, 1_500_000])
    def test_a_full_disk_leaves_the_older_one(self, path, missing_bytes, capfd):
        """So many bytes before the largest file would have been whole: at its end, in its middle, at its start."""
        picture = output_image(np.random.default_rng(0).integers(0, 256, (512, 1024, 3), np.uint8))
        self.write(path, picture)
        expected = whole(path)
        remove(path)
        self.write(path, output_image(smooth((30, 50))))
        older, message = whole(path), ""
        largest = max(map(len, expected.values())) if self.folder else len(expected)
        try:
            with no_file_larger(max(1000, largest - missing_bytes)):
                self.write(path, picture)
        except OutputError as error:
            message = str(error)
        assert list(path.parent.iterdir()) == [path]
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
        assert whole(path) == older
        assert capfd.readouterr() == ("", "")

    def test_a_place_that_cannot_be_written(self, path):
        path.parent.joinpath("file").write_bytes(b"")
        with pytest.raises(OutputError, match=r"cannot be written .*; check"):
            self.write(path.parent / "file" / path.name, output_image(smooth((30, 50))))

    def test_what_a_killed_run_left_is_no_hindrance(self, path):
        left = path.with_name(f"{path.name}.part")
        left.mkdir()
        (left / "plain.part").write_bytes(b"half a file")
        self.write(path, output_image(smooth((30, 50))))
        assert list(path.parent.iterdir()) == [path]

    def test_the_bytes_depend_neither_on_threads_nor_on_the_clock(self, path):
        image = samples((1030, 1100), "uint8", 4)
        embedded = EmbeddedMetadata(icc=SRGB_PROFILE, xmp=XMP, exif=EXIF, tags=TAGS, place=PLACE)
        picture = output_image(image, software="program 1", description="d", embedded=embedded)
        self.write(path, picture, 1)
        first, began = whole(path), time.time()
        remove(path)
        time.sleep(max(0.0, int(began) + 1.05 - time.time()))  # formats count whole seconds
        self.write(path, picture, 3)
        assert whole(path) == first

    @pytest.mark.e2e
    @pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's count of the memory in use")
    def test_memory_does_not_grow_with_the_picture(self, path):
        band = smooth((512, 600), "uint16")

        def peak_of(rows):
            def read_window(asked, columns):
                return band[: asked.stop - asked.start, columns]

            forget_peak()
            self.write(path, OutputImage((rows, 600), band.dtype, read_window), 1)
            return peak_kib() * 1024

        smaller, larger = self.rows_of_two_sizes
        before, after = peak_of(smaller), peak_of(larger)
        assert after - before < 0.6 * (larger - smaller) * 600 * 3 * band.itemsize
