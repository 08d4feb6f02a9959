"""Parity against plain NumPy and scikit-image, and mutant engines that must be found."""

import csv
import dataclasses
import json

import cv2
import numpy as np
import pytest
from skimage.color import deltaE_ciede2000

import engines.measure.parity
from engines.errors import ModelError
from engines.measure.parity import BOUNDS, REFERENCE, Parity, compare, measure_parity
from engines.measure.reference_tiles import COUNT, FILE, lightness_from_gray, reference_tiles
from engines.registry import open_engine
from engines.spec import PRECISIONS, EngineSpec, find_model, shipped_models
from pipeline.colour.lab import lightness_from_samples
from tests.backends import NETWORKS
from tests.models import make_model

TILE = (32, 64)


@pytest.fixture
def spec(tmp_path):
    return EngineSpec("openvino", str(make_model(tmp_path / "tiny")), TILE, 4)


def predictions(count=5, seed=0):
    random = np.random.default_rng(seed)
    lightness = random.uniform(0, 100, (count, 1, *TILE)).astype(np.float32)
    return lightness, random.normal(0, 20, (count, 2, *TILE)).astype(np.float32)


class Mutant:
    """A real engine whose prediction is changed on the way out."""

    def __init__(self, engine, change):
        self.engine, self.change = engine, change

    def predict(self, lightness):
        return self.change(self.engine.predict(lightness), lightness)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.engine.close()


def mutate(monkeypatch, change):
    """Every engine but the reference becomes a mutant."""

    def opened(spec):
        engine = open_engine(spec)
        return engine if spec.backend == REFERENCE else Mutant(engine, change)

    monkeypatch.setattr(engines.measure.parity, "open_engine", opened)


# Tiles


def test_lightness_is_the_pipelines_to_the_bit():
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert lightness_from_gray(gray).tobytes() == lightness_from_samples(gray).tobytes()


def test_the_tiles_are_the_file_and_each_is_licensed():
    mosaic = cv2.imread(str(FILE), cv2.IMREAD_UNCHANGED)
    assert mosaic.dtype == np.uint8
    assert mosaic.shape == (COUNT * 256, 256)
    assert FILE.stat().st_size < 2.5e6
    tiles = reference_tiles()
    assert tiles.shape == (COUNT, 1, 256, 256)
    assert tiles.dtype == np.float32
    np.testing.assert_array_equal(tiles.reshape(-1, 256), lightness_from_samples(mosaic))
    rows = list(csv.DictReader((FILE.parent / "LICENCES.tsv").open(encoding="utf-8"), delimiter="\t"))
    assert [int(row["tile"]) for row in rows] == list(range(COUNT))
    assert all(row["licence"].startswith(("CC0", "public domain")) and row["source"] and row["group"] for row in rows)


def test_the_tiles_are_varied():
    tiles = reference_tiles()
    means = tiles.mean(axis=(1, 2, 3))
    assert means.min() < 20
    assert means.max() > 75
    assert len(np.unique(tiles.reshape(COUNT, -1), axis=0)) == COUNT


@pytest.mark.parametrize("tile", [(256, 256), (32, 64), (512, 256), (96, 800)])
def test_other_sizes_are_cut_from_the_middle_or_reflected(tile):
    full, some = reference_tiles(), reference_tiles(tile, 3)
    assert some.shape == (3, 1, *tile)
    indices = [(np.arange(size) + (256 - size) // 2) % 510 for size in tile]
    y, x = (np.where(i < 256, i, 510 - i) for i in indices)  # reflection without the edge has period 2 * 255
    np.testing.assert_array_equal(some[2, 0], full[-1, 0][np.ix_(y, x)])


@pytest.mark.parametrize(("tile", "count"), [((256, 256), 49), ((256, 256), 0), ((0, 256), 1)])
def test_tiles_that_are_not_there_are_refused(tile, count):
    with pytest.raises(ValueError, match="ask for 1 to 48"):
        reference_tiles(tile, count)


# The measure


def test_figures_are_those_of_plain_numpy():
    lightness, reference = predictions()
    other = reference + np.random.default_rng(1).normal(0, 3, reference.shape).astype(np.float32)
    labs = [np.concatenate([lightness, c], axis=1).transpose(0, 2, 3, 1).astype(np.float64) for c in (reference, other)]
    plain = deltaE_ciede2000(*labs)
    parity = compare(reference, other, lightness, 20.0)
    assert parity.median == pytest.approx(np.median(plain), rel=1e-4)
    assert parity.p999 == pytest.approx(np.percentile(plain, 99.9), rel=1e-4)
    means = plain.mean(axis=(1, 2))
    assert parity.worst_tile_index == means.argmax()
    assert parity.worst_tile_mean == pytest.approx(means.max(), rel=1e-4)
    assert (parity.tiles, parity.bound, parity.passes) == (5, 20.0, True)


def test_equal_predictions_differ_by_nothing():
    lightness, chroma = predictions()
    parity = compare(chroma, chroma.copy(), lightness)
    assert (parity.median, parity.p999, parity.worst_tile_mean) == (0, 0, 0)
    assert parity.passes


@pytest.mark.parametrize(("share", "passes"), [(0.0005, True), (0.002, False)])
def test_one_pixel_in_a_thousand_decides(share, passes):
    """From gray, CIEDE2000 of a shift in b* is shift / (1 + 0.0225 shift): no hue term, S_C of the mean chroma."""
    lightness, chroma = predictions()
    chroma[:] = 0
    other = chroma.copy()
    other[3, 1].reshape(-1)[: round(share * lightness.size)] = 2
    parity = compare(chroma, other, lightness, BOUNDS["int8"])
    assert parity.p999 == pytest.approx(0 if passes else 2 / 1.045, abs=1e-5)
    assert parity.worst_tile_index == 3
    assert parity.passes is passes


def test_a_value_that_is_no_number_is_refused():
    lightness, chroma = predictions()
    other = chroma.copy()
    other[1, 0, 0, :3] = np.nan
    with pytest.raises(ModelError, match=r"^3 of 20480 values that the engine predicts are not finite"):
        compare(chroma, other, lightness)


def test_shapes_that_do_not_belong_together_are_refused():
    lightness, chroma = predictions()
    for wrong in (chroma[:4], chroma[:, :1]):
        with pytest.raises(ValueError, match="compared with other pixels"):
            compare(chroma, wrong, lightness)
    with pytest.raises(ValueError, match="at least one tile"):
        compare(chroma[:0], chroma[:0], lightness[:0])


def test_the_record_is_written_and_read():
    parity = Parity(0.01, 0.2, 0.03, 7, False, 1e-4, 48, 0.5)
    assert not parity.passes
    assert json.loads(parity.to_json())["passes"] is False
    assert Parity.from_json(parity.to_json()) == parity
    assert "FAILS" in str(parity)
    assert "0.2000 (bound 0.5), worst tile 7 mean 0.0300; 48 tiles" in str(parity)
    assert "\n" not in str(parity)
    for text in ("", "[]", "{}", parity.to_json().replace("p999", "p99")):
        with pytest.raises(ModelError, match="measure it again"):
            Parity.from_json(text)


def test_every_precision_has_a_bound():
    assert set(BOUNDS) == set(PRECISIONS)


# Engines


@pytest.mark.parametrize("backend", NETWORKS)
def test_every_backend_predicts_what_the_reference_does(spec, backend):
    parity = measure_parity(dataclasses.replace(spec, backend=backend), tiles=6)
    assert parity.passes, str(parity)
    assert parity.tiles == 6


def test_the_reference_is_its_own_equal(spec):
    parity = measure_parity(dataclasses.replace(spec, backend=REFERENCE, batch=1), tiles=3)
    assert (parity.p999, parity.batch_difference, parity.rows_equal) == (0, 0, True)


@pytest.mark.parametrize("name", shipped_models())
def test_the_shipped_models_agree(name):
    parity = measure_parity(EngineSpec("openvino", str(find_model(name).folder), (128, 128), 2), tiles=6, alone=3)
    assert parity.passes, str(parity)


def test_noise_is_found_and_measured(spec, monkeypatch):
    def noisy(chroma, lightness):
        random = np.random.default_rng(int(lightness.sum()))  # the same for the same tiles
        return chroma + random.normal(0, 0.5, chroma.shape).astype(np.float32)

    mutate(monkeypatch, noisy)
    parity = measure_parity(dataclasses.replace(spec, batch=1), tiles=6)
    assert parity.rows_equal
    assert not parity.passes
    assert 0.1 < parity.median < 0.6
    assert 0.5 < parity.p999 < 2.5


def test_one_bad_tile_is_named(spec, monkeypatch):
    bad = reference_tiles(TILE, 6)[4:5]

    def shifted_where_bad(chroma, lightness):
        return chroma + np.float32(3) * (lightness == bad).all(axis=(1, 2, 3), keepdims=True)

    mutate(monkeypatch, shifted_where_bad)
    parity = measure_parity(spec, tiles=6)
    assert parity.worst_tile_index == 4
    assert not parity.passes


def test_rows_that_depend_on_their_neighbours_are_found(spec, monkeypatch):
    """Far below what the colour bound sees: an instance norm's statistics over the batch, in the last bits."""
    mutate(monkeypatch, lambda chroma, lightness: chroma + np.float32(1e-5) * lightness.mean())
    parity = measure_parity(spec, tiles=6)
    assert parity.p999 < parity.bound
    assert not parity.rows_equal
    assert not parity.passes
    assert 0 < parity.batch_difference < 0.01
    assert "differ" in str(parity)


def test_the_last_batch_is_full(spec, monkeypatch):
    """Six tiles in batches of four: the engine never sees two rows, only four together or one alone."""
    seen = []
    mutate(monkeypatch, lambda chroma, lightness: seen.append(len(lightness)) or chroma)
    assert measure_parity(spec, tiles=6, alone=2).passes
    assert seen == [4, 4, 1, 1]
