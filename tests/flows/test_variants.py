"""Nine looks of a scan, and one of them taken: colorize-archive variants."""

import json
import re
import shlex

import cv2
import numpy as np
import pytest
import tifffile
from skimage.color import deltaE_ciede2000

from flows.run.variants import COUNT, taken, variants_of
from pipeline.colour.colourfulness import colourfulness
from pipeline.colour.lab import lab_from_rgb
from pipeline.errors import StoreError, UsageError
from tests.flows.test_palette_from import as_scan
from tests.pipeline.test_registration import photograph


@pytest.fixture(scope="module")
def coloured(command, tmp_path_factory):
    """A folder with the result of one photograph in a sub-folder."""
    folder = tmp_path_factory.mktemp("variants")
    (folder / "scans" / "album").mkdir(parents=True)
    cv2.imwrite(str(folder / "scans" / "album" / "a.png"), as_scan(photograph(1, side=300)))
    ran = command("run", folder / "scans", "-o", folder / "out", "--precision", "fp32")
    assert ran.code == 0, ran.err
    return folder / "out"


def error(one, other):
    pair = (np.moveaxis(lab_from_rgb(each.astype(np.float32) / 255), 0, -1) for each in (one, other))
    return float(deltaE_ciede2000(*pair).mean())


def test_each_of_nine_looks_is_what_its_command_makes(command, coloured):
    output, stem, looks = variants_of(coloured / "album" / "a")
    assert (output, stem, len(looks)) == (coloured, "album/a", COUNT)
    assert len({look.rgb.tobytes() for look in looks}) == COUNT
    assert looks[0].rgb.shape == tifffile.imread(coloured / "album" / "a.color.tif").shape, "small enough as it is"
    assert error(looks[0].rgb, tifffile.imread(coloured / "album" / "a.color.tif")) < 0.3
    goal = next(look for look in looks if "colourfulness" in look.options)
    assert colourfulness(goal.rgb.astype(np.float32) / 255) == pytest.approx(33, rel=0.02)

    options = [look.options for look in looks]
    assert {"answer", "vivid", "saturation", "warmth"} <= {name for each in options for name in each}

    for number in (6, options.index({"answer": 2}) + 1):
        ran = command("variants", coloured / "album" / "a.zarr", "--take", number)
        assert ran.code == 0, ran.err
        assert error(looks[number - 1].rgb, tifffile.imread(coloured / "album" / "a.color.tif")) < 1.0


def test_the_sheet_is_one_file_with_nine_pictures_and_their_commands(command, coloured):
    ran = command("variants", coloured / "album" / "a.color.json")
    assert ran.code == 0, ran.err
    page = (coloured / "album" / "a.variants.html").read_text()
    assert len(re.findall(r"data:image/jpeg;base64,[\w+/=]{1000,}", page)) == COUNT
    assert not re.search(r"(src|href)=.https?:", page)
    lines = [line for line in ran.out.splitlines() if re.match(r"\d  colorize-archive", line)]
    words = [shlex.split(line[3:]) for line in lines]
    assert all(each[1:4] == ["reprocess", str(coloured), "album/a"] for each in words)
    assert json.loads((coloured / "album" / "a.color.json").read_text())["settings"], "nothing was made"


def test_what_cannot_be_shown_or_taken_is_refused(coloured, tmp_path):
    _, _, looks = variants_of(coloured / "album" / "a")
    for number, words in ((0, "looks 1 to 9 only"), (10, "looks 1 to 9 only"), (1, "the current version already")):
        with pytest.raises(UsageError, match=words):
            taken(looks, number)
    with pytest.raises((UsageError, StoreError)):
        variants_of(tmp_path / "nothing")
