import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.tiling.grid import TileAxis, TileGrid
from tests.strategies import axes, grids


@given(axes())
def test_tiles_cover_every_pixel_and_end_flush(axis):
    covered = np.zeros(axis.covered_extent, int)
    for start in axis.starts:
        covered[start : start + axis.size] += 1
    assert (covered > 0).all()
    assert axis.starts[0] == 0
    assert axis.starts[-1] + axis.size == axis.covered_extent


@given(axes())
def test_tiles_are_one_stride_apart_but_for_the_last(axis):
    gaps = np.diff(axis.starts)
    assert (gaps[:-1] == axis.stride).all()
    assert (gaps > 0).all()
    assert (gaps <= axis.stride).all()


@given(grids(), st.integers(8, 64))
def test_blocks_partition_the_scan_and_name_exactly_the_tiles_they_need(grid, block_px):
    written = np.zeros(grid.shape_yx, int)
    for block in grid.blocks(block_px):
        roi = block.write_roi
        written[roi.rows, roi.columns] += 1
        needed = [
            (y, x)
            for y in grid.y.starts
            for x in grid.x.starts
            if y < roi.y1 and y + grid.y.size > roi.y0 and x < roi.x1 and x + grid.x.size > roi.x0
        ]
        assert list(block.tile_origins) == needed
        assert block.read_roi.y0 == min(y for y, _ in needed)
        assert block.read_roi.x1 == max(x for _, x in needed) + grid.x.size
    assert (written == 1).all()


@st.composite
def aligned(draw, halvings=0):
    """Stride, and then align, of an axis whose tiles can start at multiples of align, ``halvings`` times halved too."""
    align = draw(st.integers(1, 12))
    stride = align * 2**halvings * draw(st.integers(1, 4))
    size = max(2 * align, stride) + draw(st.integers(0, 60))
    return TileAxis(draw(st.integers(1, 200)), size, stride, align)


@given(aligned())
def test_aligned_tiles_all_start_at_multiples_and_are_as_many_as_before(axis):
    plain = TileAxis(axis.extent, axis.size, axis.stride)
    assert not any(start % axis.align for start in axis.starts)
    assert axis.starts[:-1] == plain.starts[:-1]
    assert len(axis.starts) == len(plain.starts)
    past = axis.starts[-1] - plain.starts[-1]
    assert 0 <= past < axis.align


@given(axes(), st.integers(2, 50))
def test_the_last_tile_is_aligned_for_any_stride_and_flush_where_it_is_too_small(axis, align):
    wanted = TileAxis(axis.extent, axis.size, axis.stride, align)
    last = max(0, axis.extent - axis.size)
    assert wanted.starts[-1] == (last if axis.size < 2 * align else -(-last // align) * align)
    assert wanted.covered_extent >= axis.extent
    assert all(b - a <= axis.stride for a, b in zip(wanted.starts, wanted.starts[1:], strict=False))


@given(aligned(halvings=2), aligned(halvings=2))
def test_a_refined_grid_has_all_tiles_of_the_coarse_one(y, x):
    coarse = TileGrid(y, x)
    for _ in range(2):
        fine = coarse.refined()
        assert (fine.y.stride, fine.x.stride) == (coarse.y.stride // 2, coarse.x.stride // 2)
        assert (fine.shape_yx, fine.tile_yx) == (coarse.shape_yx, coarse.tile_yx)
        assert set(coarse.y.starts) <= set(fine.y.starts)
        assert set(coarse.x.starts) <= set(fine.x.starts)
        coarse = fine


def test_a_refined_grid_has_all_tiles_where_half_the_stride_is_no_multiple():
    """What --tile 128 --quality comes to: strides 64, 32 and 16, and a network that wants multiples of 32."""
    coarse = TileGrid.of((300, 300), (128, 128), (32, 32), align=32)
    assert set(coarse.y.starts) <= set(coarse.refined().y.starts)


def test_an_aligned_grid_survives_being_sent_to_a_worker():
    axis = TileAxis(300, 256, 64, 32)
    assert axis.starts == (0, 64)
    sent = pickle.loads(pickle.dumps(axis))
    assert (sent, sent.starts) == (axis, axis.starts)


def test_the_published_grid_of_system_5():
    grid = TileGrid.of((2048, 4096), (256, 256), (128, 128))
    assert (len(grid.y.starts), len(grid.x.starts), len(grid)) == (15, 31, 465)


def test_the_design_documents_gigapixel_count():
    assert len(TileGrid.of((32768, 32768), (256, 256), (64, 64))) == 259_081


@pytest.mark.parametrize(("extent", "size", "stride"), [(0, 8, 8), (8, 0, 1), (8, 8, 0), (100, 8, 9)])
def test_gaps_and_nonsense_are_refused(extent, size, stride):
    with pytest.raises(UsageError, match=str(stride)):
        TileAxis(extent, size, stride)
