"""LPIPS, the learned perceptual distance, on AlexNet: version 0.1, the authors' choice for measuring.

Two published files make it, and neither comes with this package:

- the linear heads, ``alex.pth``, 6 KB, inside the PyPI package ``lpips`` 0.1.4 (``lpips/weights/v0.1``);
- the AlexNet that torchvision publishes as ``alexnet-owt-7be5be79.pth``, 244 MB.

The ``lpips`` package itself imports torchvision; the network is small enough to be written down here, so only its
files are needed. Nothing is downloaded: an evaluation should not depend on the network of the day.

References
----------
Zhang, Isola, Efros, Shechtman, Wang, The unreasonable effectiveness of deep features as a perceptual metric, CVPR 2018.
Krizhevsky, One weird trick for parallelizing convolutional neural networks, arXiv:1404.5997 (the AlexNet variant).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.errors import DataError

F32 = NDArray[np.float32]

HEADS_FILE = "alex.pth"
BACKBONE_FILE = "alexnet-owt-7be5be79.pth"
BACKBONE_URL = f"https://download.pytorch.org/models/{BACKBONE_FILE}"
# torchvision's convention: the file's name ends with the beginning of its SHA-256.
BACKBONE_SHA256 = "7be5be79"

_LAYERS = 5
# Mean and standard deviation of ImageNet for values in [-1, 1]; version 0.1 of the heads was trained with these.
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_EPSILON = 1e-10


class _AlexNet(nn.Module):
    """torchvision's ``alexnet.features`` under its weight names; gives the output of each of the five ReLUs."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, 1, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, 1, 1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, 1, 1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, 1, 1), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = []
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                outputs.append(x)
        return outputs


class Lpips:
    """The distance between two pictures of one shape: 0 for equal ones, larger for what people see as more different.

    Parameters
    ----------
    backbone : torchvision's state of AlexNet; its classifier is not used
    heads : ``lin0.model.1.weight`` to ``lin4.model.1.weight``, (1, C, 1, 1) each

    Raises
    ------
    KeyError, RuntimeError : states of another network.
    """

    def __init__(self, backbone: dict[str, Tensor], heads: dict[str, Tensor]) -> None:
        self._network = _AlexNet().eval()
        self._network.load_state_dict({k: v for k, v in backbone.items() if k.startswith("features.")})
        self._heads = [heads[f"lin{i}.model.1.weight"].float() for i in range(_LAYERS)]

    @torch.inference_mode()
    def features(self, rgb: F32) -> list[Tensor]:
        """Unit vectors of the five layers of an (H, W, 3) picture in [0, 1], sides of 32 px at least."""
        x = torch.from_numpy(np.ascontiguousarray(rgb, np.float32)).permute(2, 0, 1)[None] * 2 - 1
        x = (x - torch.tensor(_SHIFT).view(1, 3, 1, 1)) / torch.tensor(_SCALE).view(1, 3, 1, 1)
        return [f / (f.square().sum(1, keepdim=True).sqrt() + _EPSILON) for f in self._network(x)]

    @torch.inference_mode()
    def distance(self, one: list[Tensor], other: list[Tensor]) -> float:
        """Distance of two pictures from their :meth:`features`."""
        layers = zip(one, other, self._heads, strict=True)
        return sum(float(((a - b).square() * head).sum(1).mean()) for a, b, head in layers)


def load_lpips(folder: Path | None = None) -> Lpips:
    """LPIPS with its published weights.

    Parameters
    ----------
    folder : holds ``alexnet-owt-7be5be79.pth`` and, unless the package ``lpips`` is installed, ``alex.pth``; by
        default torch's folder of downloaded weights, where torchvision would put the first

    Raises
    ------
    DataError : a file is missing, or is not the published one.
    """
    place = folder if folder is not None else Path(torch.hub.get_dir()) / "checkpoints"
    backbone = place / BACKBONE_FILE
    if not backbone.is_file():
        raise DataError(
            f"LPIPS: no {BACKBONE_FILE} in {place}, and without it there is no such figure; put {BACKBONE_URL} there"
        )
    with backbone.open("rb") as stream:
        actual = hashlib.file_digest(stream, "sha256").hexdigest()
    if not actual.startswith(BACKBONE_SHA256):
        raise DataError(
            f"LPIPS: {backbone} has hash {actual[:8]}, not {BACKBONE_SHA256}: the figure would not be LPIPS; "
            f"download {BACKBONE_URL} again"
        )
    heads = _find_heads(place)
    try:
        states = [torch.load(path, map_location="cpu", weights_only=True) for path in (backbone, heads)]
        return Lpips(states[0], states[1])
    except (KeyError, RuntimeError, AttributeError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(
            f"LPIPS: {heads} and {BACKBONE_FILE} are not the heads and the network of LPIPS 0.1 "
            f"({type(error).__name__}); take the files of lpips==0.1.4 and torchvision"
        ) from error


def _find_heads(place: Path) -> Path:
    if (place / HEADS_FILE).is_file():
        return place / HEADS_FILE
    # Read from the installed files, because importing the package imports torchvision.
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("lpips") or []:
            if file.as_posix() == f"lpips/weights/v0.1/{HEADS_FILE}":
                return Path(str(file.locate()))
    raise DataError(
        f"LPIPS: no {HEADS_FILE} in {place} and no package lpips, so its learned weights are missing; "
        "run pip install --no-deps lpips==0.1.4"
    )


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """torch on one thread for the body: pictures are already measured side by side, one a processor."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
