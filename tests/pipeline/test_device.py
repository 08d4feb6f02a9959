"""The block loop on every array namespace that is here, against NumPy: array-api-strict, torch, CuPy with a GPU.

array-api-strict refuses what the standard does not promise, so what passes there needs no library's own ways. Sums are
elementwise and in one order everywhere, so blends are the same to the bit; where the host has OpenCV's means and lines,
tolerances are stated.
"""

import array_api_compat
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.colour.lab import lightness_from_samples, lightness_on
from pipeline.colour.resize import StraightLines, area_means
from pipeline.errors import PredictionError
from pipeline.support.array_backend import HOST, Device
from pipeline.tiling.anchor import Anchor, DeviceAnchor, apply_anchor
from pipeline.tiling.grid import TileGrid
from pipeline.tiling.infer import BlockInput, ReusedTiles, colorize_blocks, lightness_roi
from tests.pipeline.plain import echo, opinionated, picture, position_dependent, tiles_of
from tests.strategies import examples, grids, windows

HALF_STEP = 2**-10  # from a float16 to its neighbour, of its value


def strict_device():
    xp = pytest.importorskip("array_api_strict")
    return Device(xp, xp.asarray, np.from_dlpack)


def torch_device():
    torch = pytest.importorskip("torch")
    from array_api_compat import torch as xp

    # A copy each way, as there would be one to another memory.
    return Device(xp, lambda array: torch.from_numpy(np.array(array)), lambda tensor: tensor.cpu().numpy().copy())


def cupy_device():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError:
        count = 0
    if not count:
        pytest.skip("CuPy is installed, and there is no NVIDIA GPU")
    from array_api_compat import cupy as xp

    return Device(xp, xp.asarray, cupy.asnumpy)


@pytest.fixture(params=[strict_device, torch_device, cupy_device], scope="module")
def device(request):
    return request.param()


def there(predict, device):
    """A prediction whose numbers are the same wherever it is asked for."""
    return lambda tiles: device.up(predict(device.down(tiles)))


def made_on(device, works, predict, batch=3):
    return list(colorize_blocks(works, works[0].grid.tile_yx, there(predict, device), batch, device=device))


def works_of(grid, window, image, block_px, **more):
    blocks = list(grid.blocks(block_px))
    rois = [lightness_roi(grid, block) for block in blocks]
    return [
        BlockInput(grid, block, window, image[roi.rows, roi.columns], **more)
        for block, roi in zip(blocks, rois, strict=True)
    ]


def noise(shape, seed=0, deviation=20):
    return np.random.default_rng(seed).normal(0, deviation, shape).astype(np.float32)


def assert_same_chroma(made, expected):
    """To the bit, in the type in which it came down: a device rounds to float16 as the store does."""
    assert made.chroma.dtype in (np.float16, np.float32)
    assert made.chroma.tobytes() == expected.chroma.astype(made.chroma.dtype).tobytes()


def assert_close_chroma(made, expected, rtol=1e-4):
    wanted = expected.chroma.astype(np.float64)
    step = HALF_STEP if made.chroma.dtype == np.float16 else 0
    np.testing.assert_allclose(made.chroma, wanted, rtol=rtol + step, atol=1e-4 * max(1, np.abs(wanted).max()))


def assert_close_agreement(made, expected):
    one, other = made.agreement, expected.agreement
    np.testing.assert_array_equal(one.weight, other.weight)
    np.testing.assert_allclose(one.mean, other.mean, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(one.spread**2, other.spread**2, rtol=1e-3, atol=1e-3)


@st.composite
def square_grids(draw):
    """Tiles that hold a square of 32 px or more, or less, and lie anywhere between squares."""
    align = draw(st.sampled_from([1, 5, 16, 32]))
    size = draw(st.integers(20, 110))
    stride = max(size // draw(st.integers(1, 3)) // align * align, min(size, align))
    shape_yx = draw(st.tuples(st.integers(1, 160), st.integers(1, 160)))
    return TileGrid.of(shape_yx, (size, size), (stride, stride), align)


@examples(40)
@given(grid=grids(), window=windows, block_px=st.integers(3, 64), batch=st.integers(1, 7))
def test_blends_are_numpys_to_the_bit(device, grid, window, block_px, batch):
    works = works_of(grid, window, picture(grid.shape_yx), block_px)
    on_device = made_on(device, works, position_dependent, batch)
    for one, other in zip(on_device, made_on(HOST, works, position_dependent, batch), strict=True):
        assert_same_chroma(one, other)
        np.testing.assert_array_equal(one.agreement.weight, other.agreement.weight)


@examples(30)
@given(grid=square_grids(), window=windows, block_px=st.sampled_from([32, 64, 160]), batch=st.integers(1, 7))
def test_agreements_are_numpys(device, grid, window, block_px, batch):
    works = works_of(grid, window, picture(grid.shape_yx), block_px)
    on_device = made_on(device, works, opinionated, batch)
    for one, other in zip(on_device, made_on(HOST, works, opinionated, batch), strict=True):
        assert_same_chroma(one, other)
        assert_close_agreement(one, other)


@examples(30)
@given(
    grid=square_grids(),
    window=windows,
    block_px=st.sampled_from([32, 64, 160]),
    cell=st.sampled_from([16, 32, 64]),
    seed=st.integers(0, 2**32 - 1),
)
def test_anchored_blocks_are_numpys(device, grid, window, block_px, cell, seed):
    palette = Anchor(noise((2, 11, 11), seed), cell)
    works = works_of(grid, window, picture(grid.shape_yx), block_px, anchor=palette)
    on_device = made_on(device, works, opinionated)
    for one, other in zip(on_device, made_on(HOST, works, opinionated), strict=True):
        assert_close_chroma(one, other)
        assert_close_agreement(one, other)


@examples(30)
@given(
    height=st.integers(1, 150),
    width=st.integers(1, 150),
    window=windows,
    anchor=st.booleans(),
    half=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_refinements_are_numpys(device, height, width, window, anchor, half, seed):
    """A block whose coarse tiles are known, some finer ones known and some chosen."""
    grid = TileGrid.of((height, width), (64, 64), (64, 64), 16)
    image, random = picture((height, width)), np.random.default_rng(seed)
    palette = Anchor(noise((2, 11, 11), seed), 16) if anchor else None
    coarse = works_of(grid, window, image, 256, anchor=palette)
    (first,) = made_on(HOST, coarse, opinionated)
    finer = [tile for tile in tiles_of(grid.refined()) if tile not in set(tiles_of(grid))]
    extra = tuple(tile for tile in finer if random.random() < 0.4)
    chosen = tuple(tile for tile in finer if tile not in extra and random.random() < 0.6)
    kept = first.chroma.astype(np.float16)
    is_half = half and hasattr(device.xp, "float16")
    known = ReusedTiles(grid, kept if is_half else kept.astype(np.float32), first.agreement, extra)
    works = works_of(grid.refined(), window, image, 256, reused=known, anchor=palette, chosen=chosen)
    (one,), (other,) = (made_on(where, works, opinionated) for where in (device, HOST))
    (assert_close_chroma if anchor else assert_same_chroma)(one, other)
    assert_close_agreement(one, other)


@examples(20)
@given(
    grid=square_grids(),
    block_px=st.sampled_from([32, 64, 96]),
    other_px=st.sampled_from([32, 160]),
    batch=st.integers(1, 7),
    more=st.integers(1, 7),
)
def test_bytes_on_a_device_depend_on_no_block_division_and_no_batch(device, grid, block_px, other_px, batch, more):
    palette = Anchor(noise((2, 11, 11)), 16)
    wholes = []
    for side, together in ((block_px, batch), (other_px, more)):
        works = works_of(grid, "hann", picture(grid.shape_yx), side, anchor=palette)
        chroma, spread = np.zeros((2, *grid.shape_yx), np.float32), np.zeros((10, 10), np.float32)
        for work, made in zip(works, made_on(device, works, opinionated, together), strict=True):
            roi, opinions = work.block.write_roi, made.agreement.spread
            chroma[:, roi.rows, roi.columns] = made.chroma
            y, x = roi.y0 // 32, roi.x0 // 32
            spread[y : y + opinions.shape[0], x : x + opinions.shape[1]] = opinions
        wholes.append(chroma.tobytes() + spread.tobytes())
    assert wholes[0] == wholes[1]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_lightness_of_gray_samples_is_the_same_to_the_bit(device, dtype):
    samples = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (37, 53), dtype, endpoint=True)
    np.testing.assert_array_equal(device.down(lightness_on(device, samples)), lightness_from_samples(samples))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_lightness_of_rgb_samples_is_the_same_but_for_rounding(device, dtype):
    samples = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (37, 53, 3), dtype, endpoint=True)
    samples[:9] //= 64  # the straight part of the curve
    made = device.down(lightness_on(device, samples))
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, lightness_from_samples(samples), atol=5e-5)


@pytest.mark.parametrize("shape", [(90, 150), (90, 150, 3), (20, 30)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_block_goes_up_once_as_samples_and_comes_down_once(device, shape, dtype):
    samples = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype)
    grid = TileGrid.of(shape[:2], (32, 32), (16, 16), 16)
    up, down = [], []

    def went_up(array):
        up.append(array)
        return device.up(array)

    def came_down(array):
        down.append(device.down(array))
        return down[-1]

    watched = Device(device.xp, went_up, came_down)
    (work,) = works_of(grid, "hann", samples, 256, anchor=Anchor(noise((2, 11, 11)), 16))
    # The prediction stays where it is.
    (made,) = colorize_blocks(
        [work], (32, 32), lambda tiles: device.xp.concat([tiles, tiles], axis=1), 8, device=watched
    )
    assert sum(array.dtype == dtype for array in up) == 1
    # Beside them tables, weights and lines: nothing that grows with the block's area.
    tables = (256, 2**16)
    assert all(array.size < 4096 for array in up if array.dtype != dtype and array.size not in tables)
    assert len(down) == 2
    assert down[0].shape == (2, *shape[:2])
    if hasattr(device.xp, "float16"):
        assert made.chroma.dtype == np.float16
    assert down[1].size <= 2 * len(grid)
    lightness = lightness_from_samples(samples)
    (expected,) = made_on(HOST, works_of(grid, "hann", lightness, 256, anchor=work.anchor), echo)
    assert_close_chroma(made, expected)


def test_predictions_that_are_not_numbers_are_refused(device):
    grid = TileGrid.of((32, 32), (16, 16), (8, 8))
    with pytest.raises(PredictionError, match="not numbers"):
        made_on(device, works_of(grid, "hann", picture((32, 32)), 32), lambda tiles: echo(tiles) * np.nan)


def test_a_large_number_becomes_the_float16_that_the_store_would_make_of_it(device):
    """Ties to even, subnormals and signs: one rounding, and the same one, in either place."""
    values = np.concatenate(
        [noise(4000), noise(4000) * 2**-20, np.float32([0, -0.0, 1 + 2**-11, 1 + 3 * 2**-11, 65503])]
    )
    down = device.down_rounded(device.up(values))
    np.testing.assert_array_equal(down, values.astype(down.dtype))


@examples(60)
@given(height=st.integers(1, 120), width=st.integers(1, 120), data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_area_means_are_opencvs(device, height, width, data, seed):
    counts = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    planes = noise((3, 2, height, width), seed)
    made = device.down(area_means(device.up(planes), counts, device))
    assert made.dtype == np.float32
    expected = [[cv2.resize(p, counts[::-1], interpolation=cv2.INTER_AREA) for p in pair] for pair in planes]
    np.testing.assert_allclose(made, np.reshape(expected, made.shape), atol=1e-4)
    # Nor does it matter who else is in the array.
    alone = device.down(area_means(device.up(planes[1:2]), counts, device))
    np.testing.assert_array_equal(alone[0], made[1])


@examples(60)
@given(height=st.integers(1, 120), width=st.integers(1, 120), data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_straight_lines_are_opencvs(device, height, width, data, seed):
    counts = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    values = noise((3, 2, *counts), seed)
    made = device.down(StraightLines(counts, (height, width), device)(device.up(values)))
    assert made.dtype == np.float32
    expected = [[cv2.resize(p, (width, height), interpolation=cv2.INTER_LINEAR) for p in pair] for pair in values]
    # OpenCV works out where a pixel lies in float32, which at the 100th part is 4e-6 of the step from part to part.
    np.testing.assert_allclose(made, np.reshape(expected, made.shape), atol=1e-3)


@examples(40)
@given(
    shape=st.tuples(st.integers(16, 100), st.integers(16, 100)),
    starts=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), min_size=1, max_size=5),
    cell=st.sampled_from([16, 32, 64]),
    seed=st.integers(0, 2**32 - 1),
)
def test_tiles_anchored_together_are_each_as_alone_with_opencv(device, shape, starts, cell, seed):
    tiles, palette = noise((len(starts), 2, *shape), seed), Anchor(noise((2, 5, 7), seed), cell)
    made = device.down(DeviceAnchor(palette, shape, device)(device.up(tiles), starts))
    assert made.dtype == np.float32
    expected = [apply_anchor(tile, start, palette) for tile, start in zip(tiles, starts, strict=True)]
    np.testing.assert_allclose(made, expected, atol=1e-3)


def test_numpy_is_the_host_under_either_name():
    assert HOST.is_host
    assert Device(np, np.asarray, np.asarray).is_host
    assert HOST.xp is array_api_compat.array_namespace(np.zeros(1))
    assert HOST.down_rounded(noise(3)).dtype == np.float32
