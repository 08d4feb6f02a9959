"""What is taken of the colours that a palette network thinks possible: --vivid, --cautious, inspect --at."""

import json
import shutil

import cv2
import numpy as np
import pytest
import tifffile

from engines.spec import CARD_FILE, MODELS
from flows.options import parse_options
from flows.request import ReprocessRequest
from flows.run.jobs import RunContext
from flows.run.reprocess_plan import _changed, parse_reprocess
from pipeline.colour.lab import lab_from_rgb
from pipeline.errors import UsageError
from pipeline.store import ScanStore
from tests.request import asked


@pytest.fixture(scope="module")
def done(command, scans, tmp_path_factory):
    """A photograph's part, coloured as it comes, then vividly, then cautiously: (output, pictures)."""
    folder = tmp_path_factory.mktemp("taste")
    image = cv2.imread(str(scans / "peasant-girls-1909.png"), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(folder / "girls.png"), image[150:650, 200:700])
    output = folder / "out"
    pictures = {}
    ran = command("run", folder / "girls.png", "-o", output)
    assert ran.code == 0, ran.err
    pictures["mean"] = tifffile.imread(output / "girls.color.tif")
    for name, words in {"vivid": ("--vivid", "0.6"), "cautious": ("--vivid", "0", "--cautious")}.items():
        ran = command("reprocess", output, *words, "--keep", "4")
        assert ran.code == 0, ran.err
        pictures[name] = tifffile.imread(output / "girls.color.tif")
    return output, pictures


def _chroma(picture):
    return float(np.hypot(*lab_from_rgb(picture.astype(np.float32) / 255)[1:]).mean())


def test_vivid_is_stronger_and_cautious_weaker(done):
    output, pictures = done
    assert _chroma(pictures["vivid"]) > 1.15 * _chroma(pictures["mean"])
    assert _chroma(pictures["cautious"]) < 0.9 * _chroma(pictures["mean"])
    store = ScanStore.open(output / "girls.zarr")
    told = [store.version(name).settings for name in store.version_names()]
    assert [(each["vivid"], each["cautious"]) for each in told] == [(0, False), (0.6, False), (0, True)]
    # Colours further from the mean of what is possible are further from the truth, too.
    mean, vivid, cautious = (float(store.version(name).doubt_cells().mean()) for name in store.version_names())
    assert mean < vivid
    assert mean < cautious


def test_a_taste_stays_until_another_is_asked_for(command, done):
    output, _ = done
    ran = command("reprocess", output, "--stride", "192", "--keep", "4")
    assert ran.code == 0, ran.err
    assert json.loads((output / "girls.color.json").read_text())["settings"]["cautious"] is True
    request = ReprocessRequest(output=str(output), cautious=False)
    options = parse_reprocess(request)
    assert (options.cautious, request.cautious, request.vivid) == (False, False, None)


def test_inspect_says_what_is_possible_at_a_place(command, done):
    output, _ = done
    ran = command("inspect", output / "girls.zarr", "--at", "250,300")
    shares = [int(word.removesuffix("%")) for word in ran.out.split() if word.endswith("%")]
    assert 1 <= len(shares) <= 3
    assert shares == sorted(shares, reverse=True)
    assert 20 < sum(shares) <= 101
    for place in ("500,0", "1", "a,b", "-1,3"):
        ran = command("inspect", output / "girls.color.tif", "--at", place)
        assert ran.code == 2
        assert "give X,Y from 0,0 to 499,499" in ran.err


@pytest.mark.parametrize("wrong", ["1.5", "-0.1", "much", "nan"])
def test_vivid_beyond_its_range_is_refused(wrong, tmp_path):
    with pytest.raises(UsageError, match=r"vivid .* give a number from 0"):
        parse_options(asked(tmp_path, vivid=wrong))


@pytest.mark.parametrize("words", [{"vivid": 0.5}, {"cautious": True}])
def test_a_model_that_knows_one_colour_only_has_no_taste(words, tmp_path):
    context = RunContext.of(parse_options(asked(tmp_path, model="efficientnet-unet", precision="fp32", **words)))
    with pytest.raises(UsageError, match="no palette network"):
        context.spec_for((500, 500))


@pytest.fixture
def uncalibrated(tmp_path):
    """The default as one whose doubt was never measured: its folder."""
    shutil.copytree(MODELS / "default", tmp_path / "uncalibrated")
    path = tmp_path / "uncalibrated" / CARD_FILE
    card = json.loads(path.read_text())
    card["palette"] |= {"scan_doubt": [], "cell_doubt": []}
    path.write_text(json.dumps({**card, "name": "uncalibrated"}))
    return str(path.parent)


def test_caution_without_calibrated_doubt_is_refused(uncalibrated, tmp_path):
    context = RunContext.of(parse_options(asked(tmp_path, model=uncalibrated, precision="fp32", cautious=True)))
    with pytest.raises(UsageError, match=r"^--cautious: model uncalibrated .* nothing would fade; leave it out, or"):
        context.spec_for((500, 500))


def test_a_model_without_calibrated_doubt_takes_over_the_taste_but_no_caution(uncalibrated, tmp_path):
    request = ReprocessRequest(output=str(tmp_path), model=uncalibrated, precision="fp32")
    options = parse_reprocess(request)
    before = parse_options(asked(tmp_path, precision="fp32", vivid=0.5, cautious=True))
    taken = _changed(RunContext.of(before).spec_for((500, 500)), request, options, (500, 500))
    assert (taken.vivid, taken.cautious) == (0.5, False)
    assert RunContext.of(taken).spec_for((500, 500)).vivid == 0.5
