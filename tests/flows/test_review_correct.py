"""The review desk's corrections: hints in upright pixels, colours that are tried, what is refused, orders."""

from __future__ import annotations

import json
import threading

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.catalogue.database import rebuild
from flows.cluster.spreading import spread_hints
from flows.review import work as orders
from flows.review.desk import Desk
from flows.review.guard import Guard
from flows.review.pictures import Pictures
from flows.review.previews import HintChange, Window, changed, chosen_ab
from flows.review.server import application
from flows.review.upright import Turn
from flows.review.work import Work
from flows.sheet.thumbnails import upright
from pipeline.colour.lab import lab_from_rgb, lightness_from_samples, samples_from_lab
from pipeline.export import output_image
from pipeline.formats import write_picture
from pipeline.hints.recolouring import Known
from pipeline.results.sidecar import version_of
from pipeline.shapes import Shape
from pipeline.store import BlockTiming, ScanStore, Source
from pipeline.support.files import tree_sha256
from pipeline.tiling.infer import BlockResult
from pipeline.tiling.overlap_stats import OverlapStats, squares
from pipeline.tiling.palette import Palette
from pipeline.types import Roi, ScanInfo
from tests.flows.test_review_desk import PORT, Client, result
from tests.patience import PATIENCE_SECONDS
from tests.review_model import sha256, spec
from tests.strategies import examples

SHAPE_YX = (240, 330)
WHOLE = Roi(0, SHAPE_YX[0], 0, SHAPE_YX[1])
CELLS = (6, 8)


def coloured(output, stem, orientation=1, seed=5):
    """A result with its store, as a run leaves them, made without a network."""
    rng = np.random.default_rng(seed)
    output.joinpath(stem).parent.mkdir(parents=True, exist_ok=True)
    path = output / f"{stem}.color.json"
    store = ScanStore.create(
        output / f"{stem}.zarr",
        ScanInfo(SHAPE_YX, 1, "uint8", {"orientation": orientation}),
        Source(sha256(stem, 0), 1, f"/scans/{stem}.tif"),
    )
    rough = cv2.GaussianBlur(rng.standard_normal(SHAPE_YX), (0, 0), 12)
    store.write_scan(WHOLE, np.clip(128 + 60 * rough / rough.std(), 0, 255).astype(np.uint8))
    version = store.create_version(spec(0).version, spec(0).to_json(), 512, 1.0, "2026-01-01")
    slow = cv2.GaussianBlur(rng.standard_normal((*SHAPE_YX, 2)).astype(np.float32), (0, 0), 30)
    chroma = np.moveaxis(slow * (8 / slow.std()), -1, 0)
    agreement = OverlapStats(*(np.ones((*planes, *map(squares, SHAPE_YX)), np.float32) for planes in ((2,), (), ())))
    version.write((0, 0), BlockResult(chroma, agreement), version.attempt, BlockTiming(1, 0.1))
    answers = rng.normal(0, 20, (3, 3, *CELLS)).astype(np.float32)
    answers[:, 2] = np.array([0.6, 0.3, 0.1])[:, None, None]
    version.write_answers(answers, version.attempt)
    palette = Palette(chosen_ab(answers, 0), (SHAPE_YX[0] / CELLS[0], SHAPE_YX[1] / CELLS[1]))
    version.write_anchor(palette, version.attempt)
    version.finish()
    target = path.with_name(path.name.removesuffix(".json") + ".tif")
    written = write_picture("tiff", target, output_image(store, version, "", ""), 1)
    told = {
        "finished": "2026-05-04T12:00:00+00:00",
        "source": {
            "path": f"/scans/{stem}.tif", "name": f"{stem}.tif", "bytes": 1, "sha256": sha256(stem, 0),
            "height_px": SHAPE_YX[0], "width_px": SHAPE_YX[1], "channels": 1, "dtype": "uint8",
            "metadata": {"keywords": [], "numbers": [], "orientation": orientation},
        },
        "settings": spec(0).to_json(),
        "result": {"version": spec(0).version, "store": store.path.name},
        "pictures": {"tiff": {"file": target.name, "bytes": written.bytes, "sha256": tree_sha256(target), "levels": 1}},
        "work": {"seconds": {"export": 1.0}},
    }  # fmt: skip
    path.write_text(json.dumps(told))
    return store, version


@pytest.fixture
def folder(tmp_path):
    """Two scans, one of which is stored turned."""
    output = tmp_path / "colour"
    coloured(output, "album/a")
    coloured(output, "album/turned", orientation=6, seed=6)
    rebuild(output).close()
    return output


_opened = list[Pictures]()


@pytest.fixture(autouse=True)
def _closed():
    yield
    while _opened:
        _opened.pop().close()


def client_of(folder, read_only=False):
    _opened.append(Pictures(folder))
    app = application(Desk(folder, read_only), _opened[-1])
    return Client(Guard(app, "127.0.0.1", PORT), f"http://127.0.0.1:{PORT}")


def post(client, path, **values):
    return client.post(path, json=values, headers={"origin": f"http://127.0.0.1:{PORT}"})


def change(client, scan="album/a", **values):
    seen = client.get("/api/hints", params={"scan": scan}).json().get("stamp", "")
    return post(client, "/api/hint", **{"scan": scan, "version": spec(0).version, "seen": seen, **values})


BLUE = {"at": [100, 60], "colour": "#2e4a8f", "author": "Ada", "source": "museum no. 17"}


def hints_in(path):
    return json.loads(path.read_text())["hints"]


@pytest.mark.parametrize(("scan", "orientation"), [("album/a", 1), ("album/turned", 6)])
def test_a_hint_is_written_in_the_scans_pixels_and_shown_as_it_is_then_made(folder, scan, orientation):
    client = client_of(folder)
    place = [100, 60] if orientation == 1 else [60, 100]
    told = change(client, scan, add={**BLUE, "at": place}).json()
    assert (told["count"], told["made"]) == (1, False)
    assert told["hints"][0]["places"] == [[place[0] + 0.5, place[1] + 0.5]]
    (written,) = hints_in(folder / f"{scan}.hints.json")
    at = tuple(int(v) for v in Turn(SHAPE_YX, orientation).to_stored(place[0] + 0.5, place[1] + 0.5))
    assert (written["at"], written["author"], written["source"]) == ([*at], "Ada", "museum no. 17")

    store = ScanStore.open(folder / f"{scan}.zarr")
    version = store.version(spec(0).version)
    blue = lab_from_rgb(np.array([[[0x2E, 0x4A, 0x8F]]], np.float32) / 255)[1:, 0, 0]
    made = spread_hints(store, version, (Known(Shape("points", (at,)), tuple(blue.tolist())),))
    lightness = store.read_lightness(WHOLE)
    chroma = made.apply(version.read(WHOLE).astype(np.float32), WHOLE, lightness)
    wanted = upright(samples_from_lab(lightness, chroma, np.dtype(np.uint8)), orientation)
    answer = client.get("/tile/colour/0/0/0", params={"scan": scan, "hints": told["stamp"]})
    assert answer.status_code == 200, answer.text
    shown = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert shown.shape == wanted.shape
    assert np.abs(shown.astype(int) - wanted).mean() < 2
    plain = cv2.imdecode(
        np.frombuffer(client.get("/tile/colour/0/0/0", params={"scan": scan}).content, np.uint8), cv2.IMREAD_COLOR
    )[..., ::-1]
    other = np.abs(plain.astype(int) - wanted).max(2) > 12
    assert other.mean() > 0.02
    assert np.abs(shown.astype(int) - wanted)[other].mean() < 3


def test_a_smaller_copy_shows_the_hints_of_the_whole_scan(folder):
    store = ScanStore.open(folder / "album/a.zarr")
    version = store.version(spec(0).version)
    made = spread_hints(store, version, (Known(Shape("points", ((100, 60),)), (20.0, -40.0)),))
    lightness, before = store.read_lightness(WHOLE), version.read(WHOLE).astype(np.float32)

    def shrunk(chroma):
        picture = samples_from_lab(lightness, chroma, np.dtype(np.uint8))
        return cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)

    small = shrunk(before)
    size_yx = small.shape[:2]
    window = Window(Roi(0, size_yx[0], 0, size_yx[1]), Turn(SHAPE_YX).resized(size_yx))
    shown = changed(small, [HintChange(made, SHAPE_YX)], window)
    wanted = shrunk(made.apply(before, WHOLE, lightness))
    assert np.abs(shown.astype(int) - wanted).mean() < 1
    assert np.abs(small.astype(int) - wanted).mean() > 3 * np.abs(shown.astype(int) - wanted).mean()


def test_hints_are_taken_away_put_back_and_not_changed_over_somebody_elses(folder):
    client, path = client_of(folder), folder / "album/a.hints.json"
    first = change(client, add=BLUE).json()
    second = change(client, add={"box": [10, 20, 30, 40], "colour": "gray", "author": "Grace"}).json()
    assert [each["hint"]["author"] for each in second["hints"]] == ["Ada", "Grace"]
    late = change(client, seen=first["stamp"], remove=0)
    assert late.status_code == 400
    assert "somebody else" in late.json()["problem"]
    kept = hints_in(path)
    gone = change(client, remove=0).json()
    assert [each["hint"]["author"] for each in gone["hints"]] == ["Grace"]
    assert change(client, insert=0, hint=first["hints"][0]["hint"]).json()["stamp"] == second["stamp"]
    assert hints_in(path) == kept


def test_a_colour_is_taken_from_another_scan_at_an_upright_place(folder):
    client = client_of(folder)
    add = {**BLUE, "colour": {"as_in": "album/turned", "at": [30, 200]}}
    assert change(client, add=add).status_code == 200
    (written,) = hints_in(folder / "album/a.hints.json")
    assert written["colour"] == {"as_in": "album/turned", "at": [200, 239 - 30]}


def test_a_place_tells_its_colour_and_what_else_is_likely(folder):
    client = client_of(folder)
    found = client.get("/api/place", params={"scan": "album/a", "x": 100, "y": 60}).json()
    assert [each["share"] for each in found["likely"]] == pytest.approx([0.6, 0.3, 0.1], abs=0.01)
    rgb = np.array([list(bytes.fromhex(found["colour"][1:]))], np.uint8)[None]
    store = ScanStore.open(folder / "album/a.zarr")
    assert float(lightness_from_samples(rgb)[0, 0]) == pytest.approx(found["lightness"], abs=1)
    around = store.version(spec(0).version).read(Roi(58, 63, 98, 103)).astype(np.float32).mean((1, 2))
    assert lab_from_rgb(rgb.astype(np.float32) / 255)[1:, 0, 0] == pytest.approx(around, abs=2)
    for place in ({"x": 330, "y": 0}, {"x": -1, "y": 0}, {"x": "1e3", "y": 0}):
        assert client.get("/api/place", params={"scan": "album/a", **place}).status_code in (400, 404)


WRONG = [
    {}, {"add": None}, {"add": []}, {"add": BLUE, "remove": 0}, {"remove": 0}, {"remove": True}, {"remove": -1},
    {"insert": 0}, {"insert": 9, "hint": BLUE}, {"insert": 0, "hint": {"at": [1, 2]}},
    {"add": {**BLUE, "at": [330, 0]}}, {"add": {**BLUE, "at": [-1, 0]}}, {"add": {**BLUE, "at": [1e99, 0]}},
    {"add": {**BLUE, "at": ["1", 0]}}, {"add": {**BLUE, "box": [0, 0, 1, 1]}}, {"add": {**BLUE, "author": ""}},
    {"add": {**BLUE, "author": "a\u0000b"}}, {"add": {**BLUE, "source": "x" * 3000}},
    {"add": {**BLUE, "colour": "url(http://evil.example)"}}, {"add": {**BLUE, "colour": "lab(50, 900, 0)"}},
    {"add": {**BLUE, "colour": {"as_in": "../secret", "at": [0, 0]}}}, {"add": {**BLUE, "colour": {"lab": [1, 2, 3]}}},
    {"add": {**BLUE, "colour": {"as_in": "album/a", "at": [0, 0]}}}, {"add": {**BLUE, "reach": 99}},
    {"add": {**BLUE, "reach": "far"}}, {"add": {**BLUE, "path": "/etc/passwd"}}, {"add": BLUE, "scan": "../a"},
    {"add": BLUE, "version": "other"}, {"add": BLUE, "seen": 7},
]  # fmt: skip


@pytest.mark.parametrize("values", WRONG)
def test_what_is_no_hint_is_refused_and_nothing_is_written(folder, values):
    before = sorted(folder.parent.rglob("*"))
    answer = change(client_of(folder), **values)
    assert answer.status_code in (400, 404), answer.text
    assert str(folder.parent) not in answer.text
    assert sorted(folder.parent.rglob("*")) == before


def test_two_colours_for_one_pixel_and_files_of_other_programs_stay_as_they_are(folder):
    client, path = client_of(folder), folder / "album/a.hints.json"
    assert change(client, add=BLUE).status_code == 200
    kept = path.read_bytes()
    answer = change(client, add={**BLUE, "colour": "red"})
    assert "two colours" in answer.json()["problem"]
    assert path.read_bytes() == kept
    annotation = {
        "@context": "http://www.w3.org/ns/anno.jsonld", "type": "Annotation",
        "body": {"type": "TextualBody", "value": "#556b2f"}, "target": "http://x.example/a#xywh=1,2,3,4",
    }  # fmt: skip
    path.write_text(json.dumps(annotation))
    answer = change(client, add=BLUE)
    assert (answer.status_code, "another program" in answer.json().get("problem", "")) == (400, True)
    assert json.loads(path.read_text()) == annotation


def test_a_desk_for_looking_only_changes_nothing(folder):
    client, version = client_of(folder, read_only=True), spec(0).version
    before = sorted(folder.rglob("*"))
    assert "read-only" in change(client, add=BLUE).json()["problem"]
    for path, values in (
        ("/api/order", {"what": "hints"}), ("/api/restore", {"restore": version}), ("/api/hint", {"add": BLUE})
    ):  # fmt: skip
        assert post(client, path, scan="album/a", version=version, **values).status_code == 400
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    "values",
    [
        {"what": "rm"}, {"what": "grade"}, {"what": "grade", "saturation": "1; rm"}, {"what": "grade", "vivid": 7},
        {"what": "grade", "saturation": -1}, {"what": "grade", "warmth": True}, {"what": "hints", "version": "x"},
        {"what": "hints", "scan": "nobody"}, {"what": []},
    ],
)  # fmt: skip
def test_orders_that_make_no_sense_start_nothing(folder, values):
    client = client_of(folder)
    answer = post(client, "/api/order", **{"scan": "album/a", "version": spec(0).version, **values})
    assert answer.status_code in (400, 404), answer.text
    assert client.get("/api/orders").json() == {"orders": []}


def test_a_version_that_was_not_kept_is_not_put_back(folder):
    answer = post(client_of(folder), "/api/restore", scan="album/a", version=spec(0).version, restore="../x")
    assert answer.status_code == 404


def test_more_vivid_colours_are_shown_at_once_and_end_where_they_began(folder):
    client = client_of(folder)

    def tile(**tried):
        answer = client.get("/tile/colour/0/0/0", params={"scan": "album/a", **tried})
        assert answer.status_code == 200, answer.text
        picture = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        return np.hypot(*lab_from_rgb(picture.astype(np.float32) / 255)[1:])

    plain = tile()
    assert np.abs(tile(vivid=0) - plain).mean() < 1.5
    # The likeliest answers have no more in common with the smooth colours of this scan than their mean has.
    assert tile(vivid=1).mean() > plain.mean() * 1.2
    for wrong in ("2", "nan", "x"):
        assert client.get("/tile/colour/0/0/0", params={"scan": "album/a", "vivid": wrong}).status_code == 400
    assert client.get("/tile/colour/0/0/0", params={"scan": "album/a", "hints": "0" * 64}).status_code == 404


@given(answers=st.integers(1, 3), vivid=st.floats(0, 1), seed=st.integers(0, 99))
@examples(30)
def test_answers_are_chosen_between_their_mean_and_the_likeliest(answers, vivid, seed):
    rng = np.random.default_rng(seed)
    told = np.concatenate([rng.normal(0, 30, (answers, 2, 2, 3)), rng.uniform(0.01, 1, (answers, 1, 2, 3))], 1)
    chosen = chosen_ab(told.astype(np.float32), vivid) / (1 + 0.5 * vivid)
    mean = (told[:, :2] * told[:, 2:]).sum(0) / told[:, 2:].sum(0)
    if vivid == 0 or answers == 1:
        assert chosen == pytest.approx(mean, abs=1e-3)
    low, high = told[:, :2].min(0), told[:, :2].max(0)
    assert ((chosen >= low - 1e-3) & (chosen <= high + 1e-3)).all()


@given(orientation=st.integers(1, 8), height=st.integers(1, 9), width=st.integers(1, 9), data=st.data())
@examples(60)
def test_places_turn_as_pictures_do(orientation, height, width, data):
    picture = np.arange(height * width).reshape(height, width)
    turn, turned = Turn((height, width), orientation), upright(picture, orientation)
    assert turned.shape == turn.upright_yx
    y, x = (data.draw(st.integers(0, extent - 1)) for extent in turned.shape)
    at_x, at_y = turn.to_stored(x + 0.5, y + 0.5)
    assert picture[int(at_y), int(at_x)] == turned[y, x]
    assert turn.to_upright(at_x, at_y) == (x + 0.5, y + 0.5)
    roi = turn.stored_roi(Roi(y, turned.shape[0], 0, x + 1))
    np.testing.assert_array_equal(turn.upright(picture[roi.rows, roi.columns]), turned[y:, : x + 1])
    np.testing.assert_array_equal(turn.stored(turned), picture)


def test_orders_are_done_one_after_the_other_by_the_command_that_a_person_would_type(tmp_path, monkeypatch):
    program = tmp_path / "program"
    program.write_text(
        '#!/bin/sh\necho "$@" >> "$(dirname "$0")/said"\necho a line\ncase "$*" in *bad*) exit 1;; esac\n'
    )
    program.chmod(0o755)
    monkeypatch.setattr(orders.sys, "executable", str(program))
    done = threading.Semaphore(0)
    work = Work(tmp_path, done.release)
    first = work.order("album/[1]*", "its hints", [{}])
    second = work.order("bad", "vivid 0.5", [{"vivid": 0.5}, {"saturation": 1.2}])
    for _ in range(2):
        assert done.acquire(timeout=PATIENCE_SECONDS)
    work.close()
    assert [(each.state, each.said) for each in (first, second)] == [("done", "a line"), ("failed", "a line")]
    assert (tmp_path / "said").read_text().splitlines() == [
        f"-m flows.cli reprocess -- {tmp_path} album/[[]1][*]",
        f"-m flows.cli reprocess --vivid=0.5 -- {tmp_path} bad",
    ]


def test_the_lightness_of_a_result_is_measured_against_its_scan(folder):
    client = client_of(folder)
    for scan in ("album/a", "album/turned"):
        told = client.get("/api/lightness", params={"scan": scan}).json()
        assert (sum(told["counts"]), told["pixels"]) == (SHAPE_YX[0] * SHAPE_YX[1],) * 2
        # Eight bits of one channel are some 0.3 L*, and the middle step is -0.05 to 0.05.
        assert told["worst"] < 0.5
    store = ScanStore.open(folder / "album/turned.zarr", writable=True)
    store.write_scan(WHOLE, np.zeros(SHAPE_YX, np.uint8))
    told = client_of(folder).get("/api/lightness", params={"scan": "album/turned"}).json()
    assert told["counts"][-1] > told["pixels"] / 2
    assert told["worst"] > 20


def test_blocks_and_tiles_meet_where_the_picture_is_turned_to(folder):
    client = client_of(folder)
    plain, turned = (client.get("/api/seams", params={"scan": f"album/{name}"}).json() for name in ("a", "turned"))
    assert (plain["tiles"]["x"], plain["tiles"]["y"], plain["tiles"]["step"]) == ([128, 256], [128], 128)
    assert (turned["tiles"]["x"], turned["tiles"]["y"]) == ([240 - 128], [128, 256])
    assert plain["blocks"]["x"] == plain["blocks"]["y"] == []


def test_scans_are_found_by_their_series(folder):
    path = folder / "album/turned.color.json"
    series = {"name": "holiday", "sha256": "0" * 64, "members": ["album/turned"], "missing": [], "shared": {}}
    path.write_text(json.dumps({**json.loads(path.read_text()), "series": series}))
    client = client_of(folder)
    assert client.get("/api/series").json() == {"series": ["holiday"]}
    told = client.get("/api/scans", params={"series": "holiday"}).json()
    assert ([each["scan"] for each in told["scans"]], told["counts"]["all"]) == (["album/turned"], 1)
    assert client.get("/api/scans", params={"series": "nobody"}).json()["count"] == 0


def test_a_kept_version_is_put_back_and_taken_back_again(tmp_path):
    output = tmp_path / "colour"
    result(output, "b")
    result(output, "b", version=1, is_kept=True)
    (output / "runs").mkdir()
    rebuild(output).close()
    client, (now, before) = client_of(output), (spec(0).version, spec(1).version)
    for seen, wanted in ((now, before), (before, now)):
        stale = post(client, "/api/restore", scan="b", version=wanted, restore=wanted)
        assert "changed meanwhile" in stale.json()["problem"]
        told = post(client, "/api/restore", scan="b", version=seen, restore=wanted).json()
        assert (told["version"], told["before"]) == (wanted, seen)
        assert version_of(output / "b.color.json") == wanted
        assert client.get("/api/scan", params={"scan": "b"}).json()["kept"] == [seen]
