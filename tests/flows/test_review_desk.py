"""The review desk's server: list, tiles, decisions, and who may ask for them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from urllib.parse import quote

import cv2
import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.catalogue.database import rebuild
from flows.review.desk import Desk
from flows.review.guard import Guard
from flows.review.pictures import TILE_PX, Pictures
from flows.review.server import application
from pipeline.formats import OutputImage, write_picture
from pipeline.results.decisions import decide, read_decisions
from pipeline.support.files import tree_sha256
from tests.review_model import sha256, spec
from tests.strategies import examples

SHAPE_YX = (1300, 700)
HOSTILE = '<img src=x onerror="alert(1)">'
PORT = 8420


class Client:
    """Asks an application as a browser would, with the headers given."""

    def __init__(self, app, address, follow_redirects=True):
        self.app, self.address, self.follow_redirects = app, address, follow_redirects

    def request(self, method, path, **values):
        async def ask():
            transport = httpx.ASGITransport(self.app)
            client = httpx.AsyncClient(
                transport=transport, base_url=self.address, follow_redirects=self.follow_redirects
            )
            async with client:
                return await client.request(method, path, **values)

        return asyncio.run(ask())

    def get(self, path, **values):
        return self.request("GET", path, **values)

    def post(self, path, **values):
        return self.request("POST", path, **values)


def picture():
    y, x = np.mgrid[0 : SHAPE_YX[0], 0 : SHAPE_YX[1]]
    return np.stack([y * 50, x * 90, (x + y) * 30], axis=2).astype(np.uint16)


def result(output, stem, version=0, doubt=None, is_kept=False, name="tiff"):
    """A result as a run leaves it, with a picture of 16 bits."""
    path = output / f"{stem}{f'.{spec(version).version}' if is_kept else ''}.color.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    image = picture()
    target = path.with_name(path.name.removesuffix(".json") + (".tif" if name == "tiff" else f".{name}"))
    written = write_picture(name, target, OutputImage(SHAPE_YX, image.dtype, lambda *window: image[window]), 1)
    quality = {
        "seam": 1.0, "seam_edge": 1.0, "seam_patch": 1.0, "disagreement_mean": 0.0, "disagreement_p95": 0.0,
        "strides_px": [[128, 128]], "tiles": 1, "wanted": 0.0,
        "doubt": doubt and {"expected": doubt, "low": 1, "high": 20},
    }  # fmt: skip
    told = {
        "finished": "2026-05-04T12:00:00+00:00",
        "source": {
            "path": f"/scans/{stem}.tif", "name": f"{stem}.tif", "bytes": 1, "sha256": sha256(stem, 0),
            "height_px": SHAPE_YX[0], "width_px": SHAPE_YX[1], "channels": 1, "dtype": "uint16",
            "metadata": {"keywords": [HOSTILE], "numbers": []},
        },
        "settings": spec(version).to_json(),
        "result": {"version": spec(version).version, "store": f"{Path(stem).name}.zarr"},
        "pictures": {name: {"file": target.name, "bytes": written.bytes, "sha256": tree_sha256(target), "levels": 3}},
        "quality": quality,
        "work": {"seconds": {"export": 1.0}},
    }  # fmt: skip
    path.write_text(json.dumps(told))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    output = tmp_path_factory.mktemp("colour")
    result(output, "album/a", doubt=12.0)
    result(output, "album/b", doubt=6.0)
    result(output, "album/b", version=1, is_kept=True)
    result(output, f"{HOSTILE.replace('/', '')} ü")
    (output.parent / "secret.txt").write_text("secret")
    (output / "secret.txt").write_text("secret")
    rebuild(output).close()
    return output


@pytest.fixture
def client(folder):
    for path in folder.rglob("*.decision.json"):
        path.unlink()
    pictures = Pictures(folder)
    yield Client(Guard(application(Desk(folder), pictures), "127.0.0.1", PORT), f"http://127.0.0.1:{PORT}")
    pictures.close()


def post(client, **values):
    return client.post("/api/decide", json=values, headers={"origin": f"http://127.0.0.1:{PORT}"})


def test_the_list_is_filtered_sorted_and_given_in_parts(client):
    def names(**query):
        return [each["scan"] for each in client.get("/api/scans", params=query).json()["scans"]]

    assert names(sort="doubt")[:2] == ["album/a", "album/b"]
    assert names(folder="album") == ["album/a", "album/b"]
    assert names(q="ALBUM/B") == ["album/b"]
    assert names(offset=1, limit=1) == ["album/a"]
    assert names(show="approved") == []
    told = client.get("/api/scans", params={"show": "to review"}).json()
    assert (told["count"], told["counts"]["to review"]) == (3, 3)
    assert client.get("/api/folder").json()["folders"] == ["album"]


def test_a_decision_is_written_counted_and_on_the_version_that_was_seen(client, folder):
    version = spec(0).version
    answer = post(client, scan="album/a", version=version, decision="approve", person="Ada", note="fine")
    assert answer.json()["state"] == "approved"
    assert [each.note for each in read_decisions(folder)["album/a"]] == ["fine"]
    assert client.get("/api/scans", params={"show": "approved"}).json()["count"] == 1
    refused = post(client, scan="album/a", version=spec(2).version, decision="reject", person="Ada")
    assert refused.status_code == 400
    assert "look at them first" in refused.json()["problem"]
    assert post(client, scan="album/a", version=version, decision="reject", person=" ").status_code == 400
    assert post(client, scan="album/a", version=version, decision="undo", person="ada").json()["state"] == "unreviewed"
    told = client.get("/api/scan", params={"scan": "album/a"}).json()
    assert [each["decision"] for each in told["decisions"]] == ["approve", "undo"]


def test_decisions_of_others_are_seen(client, folder):
    decide(folder / "album/a.color.json", "reject", "Grace", reason="blue")
    desk = Desk(folder)
    assert desk.item("album/a").state == "rejected"
    decide(folder / "album/a.color.json", "undo", "Grace")
    desk.refresh()
    assert desk.item("album/a").state == "unreviewed"


def test_a_desk_for_looking_only_takes_no_decision(folder):
    client = Client(
        Guard(application(Desk(folder, read_only=True), Pictures(folder)), "127.0.0.1", PORT),
        f"http://127.0.0.1:{PORT}",
    )
    before = read_decisions(folder)
    assert post(client, scan="album/a", version=spec(0).version, decision="approve", person="Ada").status_code == 400
    assert read_decisions(folder) == before


def decoded(response):
    assert response.status_code == 200, response.text
    return cv2.imdecode(np.frombuffer(response.content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(np.int32)


def test_tiles_are_the_picture_in_eight_bits_and_the_scan_is_gray(client):
    levels = client.get("/api/scan", params={"scan": "album/a"}).json()["levels"]
    assert levels[0] == [SHAPE_YX[1], SHAPE_YX[0]]
    tile = decoded(client.get("/tile/colour/0/1/2", params={"scan": "album/a"}))
    wanted = ((picture()[2 * TILE_PX : 3 * TILE_PX, TILE_PX : 2 * TILE_PX].astype(np.uint32) + 128) // 257).astype(
        np.int32
    )
    assert tile.shape == wanted.shape
    assert np.abs(tile - wanted).mean() < 2
    gray = decoded(client.get("/tile/scan/0/1/2", params={"scan": "album/a"}))
    assert np.ptp(gray, axis=2).max() <= 2
    whole = decoded(client.get(f"/tile/colour/{len(levels) - 1}/0/0", params={"scan": "album/a"}))
    assert whole.shape[1::-1] == tuple(levels[-1])
    other = client.get("/tile/colour/0/0/0", params={"scan": "album/b", "version": spec(1).version})
    assert decoded(other).shape == (TILE_PX, TILE_PX, 3)
    assert max(decoded(client.get("/small/colour", params={"scan": "album/a"})).shape) == 320


def test_other_colours_are_tried_without_a_new_version(client, folder):
    before = sorted(path.name for path in folder.rglob("*"))

    def tile(**grade):
        return decoded(client.get("/tile/colour/0/0/0", params={"scan": "album/a", **grade}))

    plain, gray, strong = tile(), tile(saturation=0), tile(saturation=1.5)
    assert np.ptp(gray, axis=2).max() <= 2
    assert np.ptp(strong, axis=2).mean() > np.ptp(plain, axis=2).mean() * 1.1
    assert np.abs(tile(warmth=20)[..., 0] - plain[..., 0]).mean() > 2
    assert client.get("/tile/colour/0/0/0?scan=album/a&saturation=99").status_code == 400
    assert client.get("/tile/colour/0/0/0?scan=album/a&warmth=nan").status_code == 400
    assert sorted(path.name for path in folder.rglob("*")) == before


@pytest.mark.parametrize(
    "path",
    [
        "/tile/colour/9/0/0?scan=album/a", "/tile/colour/0/99/0?scan=album/a", "/tile/colour/0/-1/0?scan=album/a",
        "/tile/colour/0/0/0?scan=../secret.txt", "/tile/colour/0/0/0?scan=album/a&version=../a",
        "/tile/colour/0/0/0?scan=album/a&version=", "/tile/other/0/0/0?scan=album/a",
        "/tile/colour/%D9%A1/0/0?scan=album/a",
        "/page/..%2fserver.py", "/page/server.py", "/page/%2e%2e/server.py", "/secret.txt", "/page/../../../secret.txt",
        "/doubt?scan=album/a", "/small/colour?scan=nobody", "/api/scans?limit=-1", "/api/scans?sort=x", "/api/scan",
    ],
)  # fmt: skip
def test_what_is_not_there_is_refused_without_a_path_of_this_machine(client, path, folder):
    answer = client.get(path)
    if path.endswith("version="):
        assert answer.status_code == 200
        return
    assert answer.status_code in (400, 404, 409)
    assert str(folder) not in answer.text
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {}, 200),
        ("GET", "/", {"host": f"localhost:{PORT}"}, 200),
        ("GET", "/", {"host": f"[::1]:{PORT}"}, 200),
        ("GET", "/", {"host": f"evil.example:{PORT}"}, 421),
        ("GET", "/", {"host": "127.0.0.1:1"}, 421),
        ("GET", "/", {"host": f"127.0.0.1.evil.example:{PORT}"}, 421),
        ("GET", "/", {"host": f"192.0.2.1:{PORT}"}, 421),
        ("GET", "/", {"host": ""}, 421),
        ("GET", "/api/scans", {"origin": "http://evil.example"}, 403),
        ("GET", "/api/scans", {"origin": "null"}, 403),
        ("GET", "/api/scans", {"sec-fetch-site": "cross-site"}, 403),
        ("GET", "/small/colour?scan=album/a", {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"}, 403),
        ("GET", "/", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}, 200),
        ("GET", "/", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}, 403),
        ("POST", "/api/decide", {}, 403),
        ("POST", "/api/decide", {"origin": "http://evil.example"}, 403),
        ("POST", "/api/decide", {"origin": f"http://127.0.0.1:{PORT}", "content-type": "text/plain"}, 415),
        ("POST", "/api/decide", {"origin": f"http://127.0.0.1:{PORT}", "content-type": "application/json"}, 400),
        ("PUT", "/api/decide", {}, 405),
        ("OPTIONS", "/api/decide", {"origin": f"http://127.0.0.1:{PORT}"}, 405),
        ("GET", "/api/scans?q=" + "a" * 9000, {}, 405),
    ],
)
def test_only_the_page_itself_may_ask(client, method, path, headers, status):
    answer = client.request(method, path, headers=headers)
    assert answer.status_code == status
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_others_in_the_house_need_the_token(folder):
    guard = Guard(application(Desk(folder), Pictures(folder)), "0.0.0.0", PORT, "right")
    client = Client(guard, f"http://192.0.2.1:{PORT}", follow_redirects=False)
    for path in ("/", "/?token=wrong", "/?token=", "/api/scans?token=right", "/page/main.js"):
        assert client.get(path).status_code == 401
    assert client.get("/", headers={"cookie": "colorize-archive-token=righ"}).status_code == 401
    welcome = client.get("/?token=right")
    assert (welcome.status_code, welcome.headers["location"]) == (303, "/")
    assert "HttpOnly; SameSite=Strict" in welcome.headers["set-cookie"]
    cookie = {"cookie": welcome.headers["set-cookie"].split(";")[0]}
    assert client.get("/api/scans", headers=cookie).status_code == 200
    assert client.get("/api/scans", headers={**cookie, "host": f"evil.example:{PORT}"}).status_code == 421


_nasty = st.sampled_from(
    ["..", "%2e%2e", "%00", "\\", "/etc/passwd", "album", "a", "~", "%c0%ae", "-1", "9" * 30, "é", "a.color.tif"]
)
_paths = st.lists(_nasty, min_size=1, max_size=5).map("/".join)


@given(start=st.sampled_from(["/", "/page/", "/tile/colour/", "/small/", "/api/", "/doubt/"]), path=_paths, scan=_paths)
@examples(60)
def test_hostile_requests_read_nothing_outside_the_list(folder, start, path, scan):
    client = Client(Guard(application(Desk(folder), Pictures(folder)), "127.0.0.1", PORT), f"http://127.0.0.1:{PORT}")
    for address in (
        f"{start}{path}",
        f"/tile/colour/0/0/0?scan={quote(scan)}",
        f"/api/scan?scan=album/a&version={scan}",
    ):
        answer = client.get(address, headers={"range": "bytes=0-10"})
        assert b"root:" not in answer.content
        assert b"secret" not in answer.content
        assert answer.status_code in (200, 307, 400, 404, 405, 409)
        if answer.status_code == 200:
            assert answer.request.url.path in ("/", "/api/folder", "/api/scans") or "scan=album/a" in str(
                answer.request.url
            )


@given(body=st.one_of(st.binary(max_size=200), st.recursive(st.none() | st.text(max_size=5), st.lists).map(json.dumps)))
@examples(60)
def test_any_body_is_refused(folder, body):
    client = Client(Guard(application(Desk(folder), Pictures(folder)), "127.0.0.1", PORT), f"http://127.0.0.1:{PORT}")
    headers = {"origin": f"http://127.0.0.1:{PORT}", "content-type": "application/json"}
    answer = client.post("/api/decide", content=body, headers=headers)
    assert answer.status_code == 400


def test_a_body_that_does_not_end_is_cut_off(client):
    headers = {"origin": f"http://127.0.0.1:{PORT}", "content-type": "application/json"}
    assert client.post("/api/decide", content=b"[" * 200_000, headers=headers).status_code == 413
