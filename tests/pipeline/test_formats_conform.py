"""What every format promises through the :class:`Format` protocol alone; a new one is tested here at once.

How other programs read the files is in the tests of each format (:mod:`tests.pipeline.writer_conformance`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import pairwise

import cv2
import numpy as np
import pytest

from pipeline.colour.lab import lightness_from_samples
from pipeline.endings import FOLDER_FORMATS
from pipeline.errors import ScanError, ScanUnreadableError, StoreError, UsageError
from pipeline.formats import ENDINGS, FORMATS, Format, OutputImage, check_formats, level_problems, write_picture
from pipeline.metadata.model import EmbeddedMetadata
from pipeline.results.compare_metadata import differences
from pipeline.results.expected_picture import BOUNDS
from tests.pipeline.writer_conformance import EXIF, IPTC, PLACE, TAGS, XMP, output_image, samples, smooth, whole

SHAPE_YX = (1037, 1301)
TOO_LARGE = ((65_501, 2), (2**14, 2**14 + 1), (2**19, 2**19), (1, 100_000_001))
UINT8 = np.dtype("uint8")
AT_ANY_SIZE = ("jp2", "jpeg", "png", "iiif")
KILLED = """
import os, signal, sys, pathlib
import numpy as np
from pipeline.formats import OutputImage, write_picture

def read_window(rows, columns):
    if rows.start:
        os.kill(os.getpid(), signal.SIGKILL)
    return np.zeros((rows.stop - rows.start, columns.stop - columns.start, 3), np.uint8)

write_picture(sys.argv[1], pathlib.Path(sys.argv[2]), OutputImage((1100, 300), np.dtype("uint8"), read_window), 1)
"""
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def test_no_two_formats_share_an_ending_or_a_rank():
    assert len(set(ENDINGS.values())) == len(FORMATS)
    assert len({each.OVERVIEW_COST for each in FORMATS.values()}) == len(FORMATS)


@pytest.fixture(params=FORMATS)
def name(request):
    return request.param


@pytest.fixture
def path(name, tmp_path):
    return tmp_path / f"NAME{FORMATS[name].ENDING}"


def lightness(image):
    return lightness_from_samples(image, "srgb")


def refusal(call, *arguments):
    """What the UsageError of a call says; empty without one."""
    try:
        call(*arguments)
    except UsageError as error:
        return str(error)
    return ""


class TestFormat:
    def test_it_is_one_of_the_protocol_with_an_ending_of_ours(self, name):
        assert Format in type(FORMATS[name]).__mro__
        assert FORMATS[name].ENDING.startswith(".color.")

    def test_it_is_a_file_or_a_folder_as_it_says(self, name, path):
        write_picture(name, path, output_image(smooth((40, 60))), 1)
        assert path.is_dir() == (name in FOLDER_FORMATS)
        assert path.is_file() != (name in FOLDER_FORMATS)

    def test_it_is_written_beside_its_place_and_then_renamed(self, name, path):
        image, beside = smooth((600, 300)), []

        def read_window(rows, columns):
            beside.append([each.name for each in path.parent.iterdir()])
            return image[rows, columns]

        write_picture(name, path, OutputImage((600, 300), image.dtype, read_window), 1)
        assert beside
        assert all(each == [f"{path.name}.part"] for each in beside)
        assert list(path.parent.iterdir()) == [path]

    def test_a_failure_leaves_nothing(self, name, path):
        def read_window(rows, columns):
            raise ScanUnreadableError("damaged")

        with pytest.raises(ScanUnreadableError):
            write_picture(name, path, OutputImage((600, 300), np.dtype("uint8"), read_window), 2)
        assert not list(path.parent.iterdir())

    @pytest.mark.e2e
    def test_a_kill_leaves_the_older_one_and_nothing_that_looks_finished(self, name, path):
        write_picture(name, path, output_image(smooth((30, 50))), 1)
        older = whole(path)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        ended = subprocess.run([sys.executable, "-c", KILLED, name, str(path)], env=environment, check=False)
        assert ended.returncode == -signal.SIGKILL
        assert whole(path) == older
        assert {each.name for each in path.parent.iterdir()} == {path.name, f"{path.name}.part"}

    @pytest.mark.parametrize("dtype", ["uint8", "uint16"])
    @pytest.mark.parametrize("orientation", [1, 6])
    def test_opened_back_it_is_within_its_tolerance(self, name, path, dtype, orientation):
        tolerance = FORMATS[name].TOLERANCE
        image = samples(SHAPE_YX, dtype) if tolerance is None else smooth(SHAPE_YX, dtype)
        written = write_picture(name, path, output_image(image, orientation=orientation), 2)
        turned = 1 if "orientation" in written.not_carried else orientation
        rows, columns = slice(100, 1037), slice(33, 1300)
        with FORMATS[name].open_back(path, turned) as reader:
            found = reader.read(rows, columns)
            assert reader.info.shape_yx == SHAPE_YX
            assert reader.info.dtype == ("uint8" if "depth" in written.not_carried else dtype)
            # OME-Zarr has no place for it that others read: our own attribute, which this reader knows, does not count.
            assert reader.info.metadata.get("orientation", 1) in (turned, orientation if name == "omezarr" else turned)
        if tolerance is None:
            np.testing.assert_array_equal(found, image[rows, columns])
            return
        step = np.abs(lightness(found) - lightness(image[rows, columns]))
        assert step.max() <= tolerance.largest
        assert step.mean() <= tolerance.mean
        assert BOUNDS["uint8"] < tolerance.largest

    @pytest.mark.parametrize("shape_yx", [(1, 1), (3, 700), SHAPE_YX])
    def test_its_levels_are_those_written_each_half_of_the_one_above(self, name, path, shape_yx):
        written = write_picture(name, path, output_image(smooth(shape_yx)), 2)
        levels = FORMATS[name].levels(path, shape_yx)
        assert tuple(levels) == written.levels_yx
        assert levels[0] == shape_yx
        for above, below in pairwise(levels):
            assert all(small in (large // 2, -(-large // 2)) for small, large in zip(below, above, strict=True))
        assert list(level_problems(name, path, shape_yx, len(levels))) == []
        assert list(level_problems(name, path, shape_yx, 99)) == [f"its pyramid has {len(levels)} levels, not 99"]

    def test_levels_that_cannot_be_read_are_one_line(self, name, path):
        if type(FORMATS[name]).levels is Format.levels:
            pytest.skip("it has none")
        path.write_bytes(b"no picture\n")
        (problem,) = level_problems(name, path, SHAPE_YX, 3)
        assert problem.startswith("its pyramid cannot be read")
        assert "\n" not in problem

    @pytest.mark.parametrize("shape_yx", [(5, 9), SHAPE_YX, (40, 2600)])
    def test_its_overview_shows_the_picture_with_at_least_as_many_pixels_as_asked_for(self, name, path, shape_yx):
        image, side_px = smooth(shape_yx), 200
        write_picture(name, path, output_image(image), 2)
        found = FORMATS[name].overview(path, shape_yx, side_px)
        assert min(side_px, max(shape_yx)) <= max(found.shape[:2]) <= max(shape_yx)
        height, width = found.shape[:2]
        expected = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        assert np.abs(found[..., :3].astype(int) - expected).mean() < 4  # a wavelet's small copy is sharper than a mean

    def test_a_picture_without_a_small_copy_is_not_decoded_as_a_whole_for_an_overview(self, name, path, monkeypatch):
        if name in AT_ANY_SIZE:
            pytest.skip("it is decoded at the size that is asked for")
        write_picture(name, path, output_image(smooth(SHAPE_YX)), 2)
        height, width = FORMATS[name].overview(path, SHAPE_YX, 200).shape[:2]
        for module in ("_format", "omezarr"):
            monkeypatch.setattr(f"pipeline.formats.{module}.OVERVIEW_LIMIT_PX", height * width - 1)
        with pytest.raises((StoreError, ScanError), match="pixels") as caught:
            FORMATS[name].overview(path, SHAPE_YX, 200)
        assert "\n" not in str(caught.value)

    def test_something_else_in_its_place_is_no_overview(self, name, path):
        path.write_bytes(b"no picture\n" * 100)
        with pytest.raises(Exception, match=r"."):  # of any kind, as the protocol says
            FORMATS[name].overview(path, SHAPE_YX, 200)

    def test_what_it_carries_is_found_in_it_or_said_to_be_lost(self, name, path):
        embedded = EmbeddedMetadata(xmp=XMP, exif=EXIF, iptc=IPTC, tags=TAGS, place=PLACE)
        picture = output_image(smooth((300, 500)), embedded=embedded, description="d", software="s")
        written = write_picture(name, path, picture, 2)
        assert set(differences(embedded, FORMATS[name].embedded(path))) <= set(written.not_carried)
        assert not FORMATS[name].is_silent(written.not_carried)

    def test_what_it_cannot_hold_is_refused_with_one_line_before_anything_is_read(self, name, path):
        refused = [shape_yx for shape_yx in TOO_LARGE if refusal(check_formats, [name], shape_yx, UINT8)]
        for shape_yx in refused:
            picture = OutputImage(shape_yx, UINT8, lambda rows, columns: pytest.fail("it was read"))
            message = refusal(write_picture, name, path, picture, 1)
            assert message == refusal(check_formats, [name], shape_yx, UINT8)
            assert message.startswith(f"{shape_yx[1]} x {shape_yx[0]} pixels, ")
            assert "; write " in message
            assert "\n" not in message
        assert bool(refused) == (type(FORMATS[name]).check is not Format.check)
        assert not list(path.parent.iterdir())
