"""The plan keeps its promises on machines of every size."""

import pytest

from flows import resources
from pipeline.errors import UsageError
from pipeline.planning.limits import LEAST_BYTES, check_limit, default_limit_bytes
from pipeline.planning.plan import LibraryMemory, Workers, batch_for, make_plan
from pipeline.tiling.grid import TileGrid
from pipeline.types import ScanInfo

GIB = 2**30


def plan(shape_yx, tile_yx=(256, 256), workers=None, limit_bytes=2 * GIB, dtype="uint8", channels=1):
    grid = TileGrid.of(shape_yx, tile_yx, (tile_yx[0] // 2, tile_yx[1] // 2))
    workers = workers or resources.split_workers(None, tile_yx, limit_bytes)
    return make_plan(ScanInfo(shape_yx, channels, dtype), grid, batch_for(tile_yx), workers, limit_bytes)


@pytest.mark.parametrize("processors", [1, 2, 4, 8, 64])
@pytest.mark.parametrize("shape_yx", [(300, 400), (2048, 4096), (8192, 8192)])
def test_the_default_limit_holds_on_any_machine(monkeypatch, processors, shape_yx):
    monkeypatch.setattr(resources, "processors", lambda: processors)
    made = plan(shape_yx)
    assert made.memory_bytes <= 2 * GIB
    workers = resources.split_workers(None, (256, 256), 2 * GIB)
    assert processors / 2 < workers.processes * workers.threads * workers.engine_threads <= processors


def test_two_workers_get_a_block_each():
    made = plan((2048, 4096), workers=Workers(1, 2, 1))
    assert (made.block_px, made.blocks, made.tiles, made.predictions) == (2048, 2, 465, 480)


def test_a_small_scan_is_still_divided_among_the_workers():
    assert plan((900, 1200), workers=Workers(1, 2, 1)).blocks >= 2


def test_a_whole_frame_needs_memory_for_one_tile_only():
    one = plan((2048, 4096), (2048, 4096), Workers(1, 1, 2), 16 * GIB)
    two = plan((2048, 4096), (2048, 4096), Workers(1, 2, 1), 16 * GIB)
    assert one.memory_bytes == two.memory_bytes
    assert one.tiles == one.predictions == 1


def test_what_cannot_fit_names_what_would():
    with pytest.raises(UsageError, match="--limit-memory") as caught:
        plan((32768, 32768), workers=Workers(1, 2, 1), limit_bytes=GIB)
    named = float(str(caught.value).split("give --limit-memory ")[1].split("GiB")[0])
    plan((32768, 32768), workers=Workers(1, 2, 1), limit_bytes=int(named * GIB))


@pytest.mark.parametrize("processors", [1, 2, 4, 8, 64])
@pytest.mark.parametrize("gib", [1.5, 2, 3, 4, 8, 24, 512])
def test_the_default_follows_the_machine(gib, processors):
    memory_bytes = int(gib * GIB)
    limit_bytes = default_limit_bytes(memory_bytes, processors)
    assert min(2 * GIB, memory_bytes * 7 // 8) <= limit_bytes <= max(2 * GIB, memory_bytes // 2)
    assert limit_bytes <= memory_bytes * 7 // 8
    assert default_limit_bytes(2 * memory_bytes, processors) >= limit_bytes
    assert default_limit_bytes(memory_bytes, 2 * processors) >= limit_bytes


def test_on_a_machine_with_room_every_processor_has_a_block(monkeypatch):
    """In 2 GiB there was room for three of them."""
    monkeypatch.setattr(resources, "processors", lambda: 32)
    workers = resources.split_workers(None, (256, 256), default_limit_bytes(256 * GIB, 32))
    assert (workers.blocks_at_once, workers.engine_threads) == (32, 1)


def test_a_container_without_room_is_named_and_not_the_option():
    with pytest.raises(UsageError, match=r"0\.88 GiB that this machine, or its container, has: .* give it more$"):
        check_limit(2 * GIB, 900 * 2**20)
    with pytest.raises(UsageError, match=r"--limit-memory 1\.25GiB, or more"):
        check_limit(GIB, 24 * GIB)
    check_limit(LEAST_BYTES, LEAST_BYTES)
    grid = TileGrid.of((32768, 32768), (256, 256), (128, 128))
    info = ScanInfo((32768, 32768), 1, "uint8")
    with pytest.raises(UsageError, match=r"1\.20 GiB that this machine, or its container, has"):
        make_plan(info, grid, 8, Workers(1, 2, 1), 8 * GIB, memory_bytes=int(1.2 * GIB))


def test_of_many_scans_a_small_one_is_one_block_and_a_large_one_is_divided():
    workers = Workers(1, 2, 1)
    for shape_yx, blocks in (((700, 900), 1), ((2048, 4096), 2)):
        grid = TileGrid.of(shape_yx, (256, 256), (128, 128))
        made = make_plan(ScanInfo(shape_yx, 1, "uint8"), grid, 8, workers, 2 * GIB, scans=50)
        assert made.blocks == blocks


def test_blocks_that_leave_batches_half_empty_are_not_chosen():
    """At stride 256 a block of 512 pixels has four tiles: half a batch, for which the engine computes eight."""
    assert plan((2896, 2896), workers=Workers(1, 2, 1)).block_px > 512


def test_a_large_scan_of_16_bits_among_others_fits_the_default_with_fewer_threads_for_the_disk():
    grid, workers = TileGrid.of((7000, 7000), (256, 256), (128, 128)), Workers(1, 2, 1)
    info = ScanInfo((7000, 7000), 3, "uint16")
    held = LibraryMemory(engine_bytes=188 * 2**20)  # of bf16 on two processors
    made = make_plan(info, grid, 8, workers, 2 * GIB, scans=9, has_anchor=True, held=held)
    alone = make_plan(info, grid, 8, workers, 4 * GIB, scans=9, has_anchor=True, held=held)
    assert made.memory_bytes <= 2 * GIB
    assert 1 <= made.stream_threads < alone.stream_threads


def test_what_a_decoder_holds_is_in_the_plan():
    grid, info = TileGrid.of((7000, 7000), (256, 256), (128, 128)), ScanInfo((7000, 7000), 1, "uint8")
    with pytest.raises(UsageError, match="projected memory"):
        make_plan(info, grid, 8, Workers(1, 2, 1), 2 * GIB, scans=9, held=LibraryMemory(decoder_bytes=2**30))


def test_memory_does_not_grow_with_the_scan():
    for shape_yx in ((8192, 8192), (32_768, 32_768), (100_000, 100_000), (1024, 10_000_000)):
        assert plan(shape_yx, workers=Workers(1, 2, 1), limit_bytes=int(1.7 * GIB)).memory_bytes <= 1.7 * GIB


def test_an_interrupted_run_goes_on_with_its_block_size_if_it_fits():
    grid = TileGrid.of((8192, 8192), (256, 256), (128, 128))
    info, workers = ScanInfo((8192, 8192), 1, "uint8"), Workers(1, 2, 1)
    assert make_plan(info, grid, 8, workers, 8 * GIB, begun_px=512).block_px == 512
    assert make_plan(info, grid, 8, workers, int(1.7 * GIB), begun_px=4096).block_px < 4096


def test_a_palette_network_counts_while_palettes_are_made_and_is_gone_before_blocks():
    info, grid = ScanInfo((2048, 4096), 1, "uint8"), TileGrid.of((2048, 4096), (256, 256), (128, 128))
    none, small, large = (
        make_plan(info, grid, 8, Workers(2, 1, 1), 64 * GIB, held=LibraryMemory(palette_bytes=size)).memory_bytes
        for size in (0, 1, 16 * GIB)
    )
    assert small == none
    assert large > 32 * GIB
