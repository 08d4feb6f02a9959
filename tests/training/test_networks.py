from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch

import training.discriminators
import training.generators
from training.export import fold_batch_norm, size_multiple
from training.loop import build

SMALL = {"unet": {"width": 8, "depth": 5}}


def _listed(package: object) -> list[str]:
    folder = Path(str(package.__file__)).parent  # type: ignore[attr-defined]
    return sorted(path.stem for path in folder.glob("[!_]*.py"))


GENERATORS = _listed(training.generators)
DISCRIMINATORS = _listed(training.discriminators)


@pytest.fixture(params=GENERATORS)
def generator(request: pytest.FixtureRequest) -> torch.nn.Module:
    torch.manual_seed(0)
    network = build("generator", request.param, SMALL.get(request.param, {}))
    network.train()
    with torch.no_grad():
        network(torch.rand(2, 1, 64, 64))  # running statistics other than 0 and 1
    return network.eval()


def test_two_channels_of_the_same_size_within_range(generator: torch.nn.Module) -> None:
    multiple = size_multiple(generator)
    with torch.no_grad():
        chroma = generator(torch.rand(2, 1, 2 * multiple, 3 * multiple) * 2 - 1)
    assert chroma.shape == (2, 2, 2 * multiple, 3 * multiple)
    assert chroma.abs().max() <= 1


def test_tile_alone_equals_the_tile_in_a_batch(generator: torch.nn.Module) -> None:
    tiles = torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        together = generator(tiles)
        alone = torch.cat([generator(tile[None]) for tile in tiles])
        again = generator(tiles)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    assert torch.equal(together, again)


def test_folding_batch_norm_changes_nothing(generator: torch.nn.Module) -> None:
    folded = fold_batch_norm(generator)
    assert not [m for m in folded.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    lightness = torch.rand(1, 1, 64, 64) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(folded(lightness), generator(lightness), rtol=0, atol=1e-4)


def test_unet_states_its_size_multiple() -> None:
    assert size_multiple(build("generator", "unet", {"width": 4, "depth": 3})) == 8


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_discriminator_gives_one_channel_of_logits(name: str) -> None:
    with torch.device("meta"):
        logits = build("discriminator", name, {})(torch.empty(2, 3, 128, 128))
    assert logits.shape[:2] == (2, 1)


def test_patchgan_of_six_layers_gives_30_by_62_on_a_whole_scan() -> None:
    with torch.device("meta"):
        logits = build("discriminator", "patchgan", {"layers": 6})(torch.empty(1, 3, 2048, 4096))
    assert logits.shape == (1, 1, 30, 62)
