"""The cost model counts what there is and never rewards waste."""

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.planning.cost import (
    TASK_TILES,
    Cost,
    Fleet,
    Rates,
    Workload,
    cost_of,
    count,
    tasks_of,
    tiles_per_block,
    to_table,
)
from pipeline.planning.plan import Workers, batch_for, make_plan
from pipeline.store.arrays import CHUNK_PX
from pipeline.tiling.grid import TileGrid
from pipeline.tiling.infer import lightness_roi
from pipeline.types import ScanInfo
from tests.strategies import grids

RATES = Rates(
    seconds_per_tile=0.04,
    ingest_megapixels_per_second=60,
    block_megapixels_per_second=15,
    blend_megapixels_per_second=400,
    export_megapixels_per_second=20,
    scan_left=0.6,
    chroma_left=0.5,
    picture_left=0.5,
    start_seconds=4,
    seconds_per_scan=0.05,
    scheduler_seconds_per_task=0.003,
    storage_bytes_per_second=1e9,
)
shapes = st.tuples(st.integers(1, 5000), st.integers(1, 5000))
fleets = st.builds(Fleet, *[st.integers(1, 40)] * 3, st.booleans())


@st.composite
def workloads(draw):
    tile = draw(st.sampled_from([64, 256, 512]))
    stride = draw(st.sampled_from([tile, tile // 2, tile // 4, tile - 1]))
    return Workload(
        scans=draw(st.integers(1, 5000)),
        shape_yx=draw(shapes),
        tile_yx=(tile, tile),
        stride_yx=(stride, stride),
        block_px=draw(st.sampled_from([512, 1024, 4096])),
        channels=draw(st.sampled_from([1, 3])),
        dtype=draw(st.sampled_from(["uint8", "uint16"])),
    )


@given(grids(), st.integers(1, 64), st.integers(1, 3))
def test_counts_are_those_of_an_enumeration(grid, block_px, scans):
    blocks = list(grid.blocks(block_px))
    counts = count(Workload.of(ScanInfo(grid.shape_yx, 1, "uint8"), grid, block_px, scans))
    assert counts.tiles == scans * len(grid)
    assert counts.predictions == scans * sum(len(block.tile_origins) for block in blocks)
    assert counts.blocks == scans * len(blocks)
    assert counts.samples_read == scans * sum(_chunk_pixels(lightness_roi(grid, block), grid) for block in blocks)


def _chunk_pixels(roi, grid):
    """Pixels of the chunks that ``roi`` touches."""
    height, width = grid.shape_yx
    return sum(
        min(CHUNK_PX, height - y * CHUNK_PX) * min(CHUNK_PX, width - x * CHUNK_PX)
        for y in range(roi.y0 // CHUNK_PX, -(-roi.y1 // CHUNK_PX))
        for x in range(roi.x0 // CHUNK_PX, -(-roi.x1 // CHUNK_PX))
    )


def test_whole_chunks_are_read_where_a_margin_touches_them():
    grid = TileGrid.of((2048, 2048), (256, 256), (128, 128))
    counts = count(Workload.of(ScanInfo((2048, 2048), 1, "uint8"), grid, 1024))
    assert counts.samples_read == 4 * 1536**2


def test_tasks_are_those_of_the_queue():
    scheduling = pytest.importorskip("flows.cluster.queue")
    blocks = pytest.importorskip("flows.cluster.worker")
    spec = pytest.importorskip("engines.spec").EngineSpec("identity", "model", (256, 256), 8, 1, 1)
    grid = TileGrid.of((3000, 2600), (256, 256), (128, 128))
    for block_px in (512, 1024, 2048):
        rows, columns = grid.block_counts_yx(block_px)
        tasks = [
            blocks.BlockTask("s", None, "v", grid, block_px, index, "hann", spec, "a", "t")
            for index in product(range(rows), range(columns))
        ]
        workload = Workload.of(ScanInfo(grid.shape_yx, 1, "uint8"), grid, block_px)
        assert count(workload).tasks == len(list(scheduling.grouped(tasks, TASK_TILES)))


@given(st.lists(st.integers(1, 200), max_size=30), st.integers(1, 100))
def test_tasks_hold_no_more_than_they_may(tiles, most):
    tasks = tasks_of(tiles, most)
    assert sum(tiles) / max(most, *tiles, 1) <= tasks <= len(tiles)


def test_counts_agree_with_the_plan():
    info = ScanInfo((5000, 7000), 1, "uint8")
    grid = TileGrid.of(info.shape_yx, (256, 256), (64, 64))
    plan = make_plan(info, grid, batch_for((256, 256)), Workers(1, 2, 1), 2**31)
    counts = count(Workload.of(info, grid, plan.block_px))
    assert (counts.tiles, counts.predictions, counts.blocks) == (plan.tiles, plan.predictions, plan.blocks)


@pytest.mark.parametrize("stride", [256, 128, 64])
def test_half_the_stride_is_about_four_times_the_tiles(stride):
    coarse = Workload(1, (100_000, 100_000), stride_yx=(stride, stride))
    fine = replace(coarse, stride_yx=(stride // 2, stride // 2))
    assert count(fine).tiles / count(coarse).tiles == pytest.approx(4, rel=0.02)
    wall = [cost_of(each, RATES, Fleet.of_processors(2)).wall_seconds for each in (coarse, fine)]
    assert 2 < wall[1] / wall[0] < 4.2


def test_ten_gigapixels_at_stride_32_are_counted_exactly():
    counts = count(Workload(1, (100_000, 100_000), stride_yx=(32, 32)))
    assert counts.tiles == 3118**2
    grid = TileGrid.of((100_000, 100_000), (256, 256), (32, 32))
    rows = tiles_per_block(grid.y, 2048)
    assert counts.predictions == sum(rows) ** 2
    assert sum(rows) == 3118 + 48 * 7  # each of the 48 edges between blocks lies inside of 7 tiles


@given(workloads(), fleets, st.integers(0, 40), st.integers(0, 3), st.integers(0, 40))
def test_more_workers_never_cost_more_time(workload, fleet, engines, threads, processors):
    larger = replace(
        fleet,
        engines=fleet.engines + engines,
        threads=fleet.threads + threads,
        processors=fleet.processors + processors,
    )
    slow, fast = (cost_of(workload, RATES, each).wall_seconds for each in (fleet, larger))
    assert fast <= slow * (1 + 1e-12)


@given(workloads(), fleets)
def test_no_resource_works_longer_than_the_run(workload, fleet):
    cost = cost_of(workload, RATES, fleet)
    load = cost.load
    assert max(vars(load).values()) <= cost.wall_seconds
    assert getattr(load, cost.limit) == max(vars(load).values())


@given(workloads(), fleets)
def test_sums_agree(workload, fleet):
    cost = cost_of(workload, RATES, fleet)
    disk, traffic = cost.disk, cost.traffic
    assert disk.total_bytes == sum(vars(disk).values())
    assert traffic.total_bytes == sum(vars(traffic).values())
    assert traffic.scan_to_blocks_bytes >= traffic.scan_to_export_bytes == traffic.scan_written_bytes == disk.scan_bytes
    assert traffic.chroma_to_export_bytes == traffic.chroma_written_bytes == disk.chroma_bytes
    assert cost.held_hours * 3600 == pytest.approx(fleet.engines * cost.wall_seconds)
    assert cost.engine_hours * 3600 == pytest.approx(cost.counts.predictions * RATES.seconds_per_tile)


@given(workloads())
def test_work_does_not_depend_on_who_does_it(workload):
    one, many = (cost_of(workload, RATES, Fleet.of_processors(n)) for n in (1, 16))
    assert one.counts == many.counts
    assert one.processor_hours == pytest.approx(many.processor_hours)
    assert one.traffic.total_bytes == many.traffic.total_bytes


@given(workloads(), st.integers(2, 9))
def test_more_scans_cost_more_and_no_less_each(workload, times):
    fleet = Fleet.of_processors(4)
    few, many = (cost_of(replace(workload, scans=n * workload.scans), RATES, fleet) for n in (1, times))
    assert few.wall_seconds < many.wall_seconds <= times * few.wall_seconds
    assert many.counts.predictions == times * few.counts.predictions


@pytest.mark.parametrize(
    ("faster", "fleet", "limit"),
    [
        ({}, Fleet.of_processors(2), "engines"),
        ({"seconds_per_tile": 0.00025}, Fleet.of_gpus(1, 64), "blocks"),
        ({"seconds_per_tile": 0.00025}, Fleet.of_gpus(4, 1, 64), "streams"),
        ({"scheduler_seconds_per_task": 9.0}, Fleet.of_gpus(8, 64), "scheduler"),
        ({"storage_bytes_per_second": 1e6}, Fleet.of_gpus(8, 64), "storage"),
    ],
)
def test_the_limit_is_named(faster, fleet, limit):
    workload = Workload(100, (8192, 8192))
    assert cost_of(workload, replace(RATES, **faster), fleet).limit == limit


def test_scans_overlap_only_on_different_machines():
    together = Fleet(4, 1, 4, is_shared=True)
    apart = replace(together, is_shared=False)
    for scans, same in ((1, True), (50, False)):
        walls = [cost_of(Workload(scans, (2048, 4096)), RATES, each).wall_seconds for each in (together, apart)]
        assert (walls[0] == pytest.approx(walls[1])) is same


def test_the_table_has_a_line_for_each_cost():
    costs: dict[str, Cost] = {
        name: cost_of(Workload(scans, (2048, 4096)), RATES, Fleet.of_processors(2))
        for name, scans in (("one", 1), ("many", 10_000))
    }
    head, rule, *lines = to_table(costs).splitlines()
    assert {line.count("|") for line in (head, rule, *lines)} == {14}
    assert [line.split(" | ")[0] for line in lines] == ["| one", "| many"]
    assert "4,650,000" in lines[1]


@pytest.mark.parametrize(
    "make",
    [
        lambda: replace(RATES, seconds_per_tile=-1),
        lambda: replace(RATES, export_megapixels_per_second=0),
        lambda: Workload(0, (10, 10)),
        lambda: Fleet.of_processors(0),
    ],
)
def test_nonsense_is_refused(make):
    with pytest.raises(UsageError):
        make()
