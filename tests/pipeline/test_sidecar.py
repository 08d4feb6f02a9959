"""The sidecar beside a result: read as every release wrote it, written as it was read, and wrong in one part only."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import SidecarError
from pipeline.results.expected_picture import ExpectedPicture
from pipeline.results.run_spec import RunSpec
from pipeline.results.sidecar import PictureRecord, Sidecar, pictures_of, version_of
from pipeline.results.verify import verify

SPEC = RunSpec((256, 256), (128, 128), "hann", "openvino", "2026.0", "fp32", 8, "default", "ab" * 32, 128.0)


def without(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def now() -> dict[str, Any]:
    """As this release writes it."""
    return {
        "what": "colour added by an algorithm; lightness is the scan's own",
        "software": "colorize-archive 0.7.0",
        "flow": "colorize-archive",
        "finished": "2026-11-30T10:00:00+00:00",
        "source": {
            "path": "/scans/a.tif",
            "page": 2,
            "name": "a.tif",
            "bytes": 1000,
            "sha256": "5" * 64,
            "height_px": 300,
            "width_px": 400,
            "channels": 1,
            "dtype": "uint8",
            "depth": "uint8",
            "tone": "srgb",
            "mask": "",
            "holes": [[0, 9, 0, 400]],
            "icc_profile": None,
            "metadata": {"format": "tiff", "resolution": [300, 300, "inch"], "dropped": ["2 extra channels"]},
        },
        "settings": SPEC.to_json(),
        "palette_copy": {
            "name": "a.jpg",
            "path": "/copies/a.jpg",
            "bytes": 900,
            "sha256": "9" * 64,
            "height_px": 150,
            "width_px": 200,
            "matrix": [[0.5, 0, 1.5], [0, 0.5, -1]],
            "score": 0.98,
            "agreeing": 1,
            "covered": 0.99,
            "made_by": {"software": "a colourizer"},
        },
        "result": {"version": SPEC.version, "store": "a.zarr"},
        "pictures": {
            "tiff": {
                "file": "a.color.tif",
                "bytes": 7,
                "sha256": "6" * 64,
                "levels": 2,
                "carries_metadata": True,
                "not_carried": {"iptc": "no place for it"},
                "premis": {"eventType": {"value": "creation"}},
            }
        },
        "store": {"sha256": {"zarr.json": "7" * 64}, "records_sha256": "8" * 64},
        "quality": {
            "seam": 1.01,
            "seam_edge": 1.01,
            "seam_patch": None,
            "disagreement_mean": 2.0,
            "disagreement_p95": 4.5,
            "strides_px": [[128, 128], [64, 64]],
            "tiles": 12,
            "wanted": 1.05,
            "doubt": {"expected": 9.1, "low": 5.0, "high": 14.2, "word": "unsure"},
        },
        "work": {
            "megapixels": 0.12,
            "tiles": 12,
            "predictions": 13,
            "blocks": 1,
            "blocks_there": 0,
            "block_px": 512,
            "seconds": {"ingest": 0.5, "colorize": 2, "export": 0.25},
        },
        "versions": {"python": "3.11.9", "zarr": "3.1.0"},
    }


def release_0_6() -> dict[str, Any]:
    """Before a palette network was a setting, a result knew its doubt, and a sidecar said which flow made it."""
    told = without(now(), "flow", "palette_copy")
    later = ("palette_sha256", "palette_engine", "palette_precision", "palette_copy_sha256")
    settings = without(told["settings"], "vivid", "cautious", *later)
    return told | {"settings": settings, "quality": without(told["quality"], "doubt")}


def release_0_5() -> dict[str, Any]:
    """Of one TIFF, which ``result`` described."""
    told = without(release_0_6(), "pictures")
    later = ("page", "depth", "tone", "mask", "holes", "icc_profile")
    result = told["result"] | {"bytes": 7, "sha256": "6" * 64, "levels": 2, "store_sha256": {"zarr.json": "7" * 64}}
    return told | {"source": without(told["source"], *later), "result": result, "quality": None}


def release_0_1() -> dict[str, Any]:
    """Before the store's hashes, the quality and the anchor."""
    told = without(release_0_5(), "store", "quality")
    return told | {"settings": without(told["settings"], "align", "anchor", "quality", "reused", "int8_sha256")}


RELEASES = (now, release_0_6, release_0_5, release_0_1)


@pytest.mark.parametrize("release", RELEASES)
def test_what_was_read_is_written_again(release: Any) -> None:
    told = release()
    sidecar = Sidecar.from_json(told)
    assert sidecar.faults == {}
    assert sidecar.to_json() == told
    assert Sidecar.from_json(sidecar.to_json()) == sidecar


def test_keys_are_written_in_the_order_of_the_layout() -> None:
    backwards = json.loads(json.dumps(now()), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    written = Sidecar.from_json(backwards).to_json()
    assert list(written) == list(now())
    assert list(written["source"]) == list(now()["source"])
    assert list(written["pictures"]["tiff"]) == list(now()["pictures"]["tiff"])
    assert list(written["work"]) == list(now()["work"])


def test_values_are_those_of_the_file() -> None:
    sidecar = Sidecar.from_json(now())
    assert sidecar.source is not None
    assert (sidecar.source.shape_yx, sidecar.source.page, len(sidecar.source.holes)) == ((300, 400), 2, 1)
    assert (sidecar.spec, sidecar.version) == (SPEC, SPEC.version)
    assert sidecar.figures is not None
    assert sidecar.figures.strides_px == ((128, 128), (64, 64))
    assert sidecar.pictures["tiff"].bytes == 7
    assert (sidecar.is_of("5" * 64), sidecar.is_of("6" * 64)) == (True, False)


@pytest.mark.parametrize("release", [release_0_5, release_0_1])
def test_an_early_release_names_its_scan_and_no_pictures(release: Any) -> None:
    sidecar = Sidecar.from_json(release())
    assert sidecar.source is not None
    assert (sidecar.source.page, sidecar.source.path) == (1, "/scans/a.tif")
    assert (sidecar.pictures, sidecar.figures, sidecar.says("pictures")) == ({}, None, False)
    assert sidecar.spec is not None


def test_what_a_later_release_writes_is_kept() -> None:
    told = now() | {"signature": "x"}
    told["source"]["colour"] = "none"
    told["settings"]["taste"] = 3
    sidecar = Sidecar.from_json(told)
    assert (sidecar.faults, sidecar.spec) == ({}, None)
    assert sidecar.to_json() == told
    assert sidecar.is_of("5" * 64)
    assert set(sidecar.pictures) == {"tiff"}


DAMAGE: list[tuple[str, Any]] = [
    *((name, [3]) for name in ("what", "finished", "source", "settings", "result", "pictures", "store", "work")),
    ("source", now()["source"] | {"sha256": 5}),
    ("source", now()["source"] | {"height_px": "300"}),
    ("source", now()["source"] | {"holes": [[0, "9"]]}),
    ("work", {"seconds": {"colorize": None}}),
    ("store", {"sha256": {"zarr.json": 3}, "records_sha256": ""}),
]


@pytest.mark.parametrize(("name", "value"), DAMAGE)
def test_a_damaged_part_leaves_the_others_whole(name: str, value: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.color.json"
    path.write_text(json.dumps(now() | {name: value}))
    sidecar, whole = Sidecar.read(path), Sidecar.from_json(now())
    assert set(sidecar.faults) == {name}
    assert not sidecar.says(name)
    assert not getattr(sidecar, name)
    for other in set(now()) - {name}:
        assert getattr(sidecar, other) == getattr(whole, other)
    with pytest.raises(SidecarError, match="so what the result should be is not known; restore the file") as caught:
        sidecar.needed(name, None)
    assert str(caught.value).startswith(f"{path}: {name}: ")
    assert "\n" not in str(caught.value)


def test_a_picture_of_which_nothing_can_be_read_is_still_this_projects(tmp_path: Path) -> None:
    told = now()
    told["pictures"] = {"tiff": {"bytes": "7"}, "png": 3}
    (tmp_path / "a.color.json").write_text(json.dumps(told))
    assert list(pictures_of(tmp_path / "a.color.json")) == ["tiff"]
    assert pictures_of(tmp_path / "a.color.json")["tiff"].bytes is None
    with pytest.raises(SidecarError, match="tiff: 'bytes' is '7'"):
        ExpectedPicture.of(Sidecar.from_json(told), tmp_path / "a.color.tif", "tiff")


@pytest.mark.parametrize("text", ["", "[1]", "3", '{"what": ', "\xff", None])
def test_what_is_no_sidecar_is_none(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "a.color.json"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    assert (Sidecar.find(path), version_of(path), pictures_of(path)) == (None, None, {})
    with pytest.raises(SidecarError) as caught:
        Sidecar.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


EXPECTED: list[tuple[str, str]] = [
    *(("source", name) for name in ("page", "depth", "holes", "metadata")),
    *(("tiff", name) for name in ("bytes", "sha256", "levels", "carries_metadata", "not_carried")),
]


@pytest.mark.parametrize(("part", "key"), EXPECTED)
def test_a_picture_is_certified_against_all_that_should_be_known_of_it(part: str, key: str, tmp_path: Path) -> None:
    told = now()
    del (told["source"] if part == "source" else told["pictures"][part])[key]
    (tmp_path / "a.color.json").write_text(json.dumps(told))
    with pytest.raises(SidecarError, match=f"a.color.json: {part}: no '{key}', so what the result should be"):
        verify(tmp_path / "a.color.json")


@pytest.mark.parametrize("key", ["path", "bytes", "sha256", "height_px", "width_px"])
def test_a_source_that_lacks_what_every_release_wrote_says_the_rest(key: str, tmp_path: Path) -> None:
    told = now()
    del told["source"][key]
    sidecar = Sidecar.from_json(told)
    assert sidecar.source is not None
    assert sidecar.is_of("5" * 64) is (key != "sha256")
    assert sidecar.whole_source is None
    assert sidecar.to_json() == told
    (tmp_path / "a.color.json").write_text(json.dumps(told))
    with pytest.raises(SidecarError, match="source: it is missing"):
        verify(tmp_path / "a.color.json")


def test_a_record_that_is_made_has_every_key() -> None:
    record = PictureRecord(file="a.color.tif", bytes=7, sha256="6" * 64, levels=1, carries_metadata=False)
    assert record.to_json() == {
        "file": "a.color.tif",
        "bytes": 7,
        "sha256": "6" * 64,
        "levels": 1,
        "carries_metadata": False,
        "not_carried": {},
        "premis": {},
        "signed": {},
    }
