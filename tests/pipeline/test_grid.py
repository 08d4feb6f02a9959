import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.grid import TileAxis, TileGrid
from tests.strategies import axes, grids


@given(axes())
def test_tiles_cover_every_pixel_and_end_flush(axis):
    covered = np.zeros(axis.reach, int)
    for start in axis.starts:
        covered[start : start + axis.size] += 1
    assert (covered > 0).all()
    assert axis.starts[0] == 0
    assert axis.starts[-1] + axis.size == axis.reach


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
        assert list(block.tiles_yx) == needed
        assert block.read_roi.y0 == min(y for y, _ in needed)
        assert block.read_roi.x1 == max(x for _, x in needed) + grid.x.size
    assert (written == 1).all()


def test_the_published_grid_of_system_5():
    grid = TileGrid.of((2048, 4096), (256, 256), (128, 128))
    assert (len(grid.y.starts), len(grid.x.starts), len(grid)) == (15, 31, 465)


def test_the_design_documents_gigapixel_count():
    assert len(TileGrid.of((32768, 32768), (256, 256), (64, 64))) == 259_081


@pytest.mark.parametrize(("extent", "size", "stride"), [(0, 8, 8), (8, 0, 1), (8, 8, 0), (100, 8, 9)])
def test_gaps_and_nonsense_are_refused(extent, size, stride):
    with pytest.raises(UsageError, match=str(stride)):
        TileAxis(extent, size, stride)
