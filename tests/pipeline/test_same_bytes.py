"""The comparison of two checkouts' results sees every byte that matters, and no clock."""

from __future__ import annotations

import json
from pathlib import Path

from tests.benchmarks.same_bytes import different


def _results(folder: Path, created: str, pixels: bytes, version: str) -> Path:
    (folder / "a.zarr" / version).mkdir(parents=True)
    (folder / "a.zarr" / version / "zarr.json").write_text(json.dumps({"created": created, "shape": [2, 3]}))
    (folder / "a.color.tif").write_bytes(pixels)
    (folder / "a.color.json").write_text(json.dumps({"version": version, "store": str(folder), "finished": created}))
    return folder


def test_times_folders_and_the_hash_of_a_version_do_not_count_and_every_pixel_does(tmp_path: Path) -> None:
    one = _results(tmp_path / "one", "2026-11-30T10:00:00", b"pixels", "256-128-hann-identity-25ff5001")
    two = _results(tmp_path / "two", "2026-11-30T11:00:00", b"pixels", "256-128-hann-identity-0123abcd")
    assert different(one, two) == ([], 3)
    (two / "a.color.tif").write_bytes(b"pixelS")
    (two / "b.color.tif").write_bytes(b"pixels")
    assert different(one, two) == (["a.color.tif", "b.color.tif (only there)"], 2)
