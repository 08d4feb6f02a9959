"""Every generator, discriminator and encoder that has a file; a new file is tested at once."""

from __future__ import annotations

import importlib
import io
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import onnxruntime
import torch
from torch import Tensor, nn

import training.discriminators
import training.encoders
import training.generators
from training.errors import RecipeError

# What keeps a test short; a network without an entry runs as it comes.
SMALL: dict[str, dict[str, Any]] = {
    "unet": {"width": 8, "depth": 5},
    "dilated_unet": {"width": 4},
    "residual": {"width": 8, "blocks": 2},
    "mobilenet_fusion": {"width": 8},
}


def _listed(package: ModuleType) -> list[str]:
    return sorted(path.stem for path in Path(str(package.__file__)).parent.glob("[!_]*.py"))


GENERATORS = _listed(training.generators)
# What goes into a generator and what comes out, where it is always the same: lightness and palette, a*, b*.
FIXED = {"palette_unet": (3, 2)}


def _pairs(*channels: tuple[int, int]) -> list[tuple[str, int, int]]:
    """Each generator with the inputs and outputs of ``channels``, or with its own."""
    return [(name, *pair) for name in GENERATORS for pair in ([FIXED[name]] if name in FIXED else channels)]


DISCRIMINATORS = _listed(training.discriminators)
ENCODERS = _listed(training.encoders)


def _generator(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return importlib.import_module(f"training.generators.{name}").Generator(**{**SMALL.get(name, {}), **options})


def _discriminator(name: str, **options: Any) -> Any:
    return importlib.import_module(f"training.discriminators.{name}").Discriminator(**options)


def _encoder(name: str, *options: Any) -> Any:
    return importlib.import_module(f"training.encoders.{name}").Encoder(*options)


def _lightness(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


def _used(network: nn.Module, inputs: int = 1) -> nn.Module:
    """``network`` in evaluation mode with running statistics other than 0 and 1."""
    network.train()
    with torch.no_grad():
        network(_lightness(2, inputs, 64, 64))
    return network.eval()


# Generators


@pytest.mark.parametrize(("name", "inputs", "outputs"), _pairs((1, 2), (3, 2), (1, 3), (3, 3)))
def test_generator_keeps_size_and_range(name: str, inputs: int, outputs: int) -> None:
    generator = _generator(name, inputs=inputs, outputs=outputs)
    # Odd multiples, so that no hidden factor of two helps; 21 where any size will do.
    high = generator.size_multiple if generator.size_multiple > 1 else 21
    given = _lightness(2, inputs, high, 3 * high)
    _used(generator, inputs)
    with torch.no_grad():
        colour = generator(given)
    assert colour.shape == (2, outputs, *given.shape[2:])
    assert colour.abs().max() <= 1
    assert colour.std() > 0


@pytest.mark.parametrize(("name", "inputs", "outputs"), _pairs((1, 2)))
def test_tile_alone_equals_the_tile_in_a_batch(name: str, inputs: int, outputs: int) -> None:
    generator = _used(_generator(name, inputs=inputs, outputs=outputs), inputs)
    tiles = _lightness(3, inputs, 64, 64)
    with torch.no_grad():
        together = generator(tiles)
        alone = torch.cat([generator(tile[None]) for tile in tiles])
        again = generator(tiles)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    assert torch.equal(together, again)


@pytest.mark.parametrize(("name", "inputs", "outputs"), _pairs((1, 2), (3, 3)))
def test_onnx_agrees_on_another_batch_and_size(name: str, inputs: int, outputs: int) -> None:
    generator = _used(_generator(name, inputs=inputs, outputs=outputs), inputs)
    step = max(32, generator.size_multiple)
    axes = {0: "batch", 2: "height", 3: "width"}
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces that this exporter will not change any more
        torch.onnx.export(
            generator,
            (_lightness(2, inputs, step, step),),
            stream,
            input_names=["lightness"],
            output_names=["colour"],
            dynamic_axes={"lightness": axes, "colour": axes},
            opset_version=17,
            dynamo=False,
        )
    session = onnxruntime.InferenceSession(stream.getvalue(), providers=["CPUExecutionProvider"])
    given = _lightness(3, inputs, 3 * step, 2 * step)
    with torch.no_grad():
        expected = generator(given).numpy()
    assert np.abs(session.run(None, {"lightness": given.numpy()})[0] - expected).max() < 1e-3


@pytest.mark.parametrize(("name", "inputs", "outputs"), _pairs((1, 2)))
def test_every_weight_of_a_generator_learns(name: str, inputs: int, outputs: int) -> None:
    generator = _generator(name, inputs=inputs, outputs=outputs).train()
    target = _lightness(2, outputs, 64, 64)
    (generator(_lightness(2, inputs, 64, 64)) - target).square().mean().backward()
    idle = [key for key, p in generator.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert idle == []


@pytest.mark.parametrize("name", GENERATORS)
def test_each_batch_norm_follows_a_convolution_that_it_can_be_folded_into(name: str) -> None:
    generator = _generator(name)
    foldable = set()
    for sequence in (m for m in generator.modules() if isinstance(m, nn.Sequential)):
        for before, after in zip(sequence, list(sequence)[1:], strict=False):
            if isinstance(before, nn.Conv2d | nn.ConvTranspose2d):
                foldable.add(id(after))
    norms = {key: m for key, m in generator.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert [key for key, norm in norms.items() if id(norm) not in foldable] == []


def _influence(generator: nn.Module, size: int) -> Tensor:
    """How much the middle pixel of the output depends on each pixel of a (1, 1, size, size) input."""
    given = _lightness(1, 1, size, size).requires_grad_()
    generator.eval()(given)[0, :, size // 2, size // 2].sum().backward()
    assert given.grad is not None
    return given.grad[0, 0].abs()


def test_dilation_reaches_further_with_the_same_number_of_weights() -> None:
    with_it, without = (_generator("dilated_unet", dilated=dilated, dilations=(2, 4)) for dilated in (True, False))
    assert sum(p.numel() for p in with_it.parameters()) == sum(p.numel() for p in without.parameters())
    far, near = _influence(with_it, 160), _influence(without, 160)
    assert far[80, 80 - 56] > 0  # 8 px a step at the bottom, 2 + 4 steps of dilation
    assert near[80, 80 - 56] == 0
    assert near[80, 80] > 0


def test_without_skips_only_the_bottom_carries_the_picture() -> None:
    with_them, without = (_generator("dilated_unet", skips=skips) for skips in (True, False))
    for generator in (with_them, without):
        generator.eval().context[-2].weight.data.zero_()  # the last batch norm at the bottom: its map is then constant
        generator.context[-2].bias.data.zero_()
    one, other = _lightness(1, 1, 32, 32), -_lightness(1, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(without(one), without(other))
        assert not torch.equal(with_them(one), with_them(other))


def test_residual_generator_never_changes_resolution() -> None:
    layers = list(_generator("residual").modules())
    assert {m.stride for m in layers if isinstance(m, nn.Conv2d)} == {(1, 1)}
    assert not [m for m in layers if isinstance(m, nn.Upsample | nn.ConvTranspose2d | nn.MaxPool2d | nn.AvgPool2d)]


def test_unet_widths_stop_at_eight_times_the_first() -> None:
    with torch.device("meta"):
        generator = _generator("unet", width=64, depth=8)
        down = [m.out_channels for m in generator.modules() if type(m) is nn.Conv2d]
        assert sorted(down) == [64, 128, 256, 512, 512, 512, 512, 512]
        assert generator.size_multiple == 256
        assert generator.eval()(torch.empty(1, 1, 2048, 4096)).shape == (1, 2, 2048, 4096)


@pytest.mark.parametrize("depth", [1, 3, 7])
@pytest.mark.parametrize("full_resolution", [False, True])
def test_unet_states_its_size_multiple(depth: int, full_resolution: bool) -> None:
    generator = _generator("unet", width=2, depth=depth, full_resolution=full_resolution).eval()
    assert generator.size_multiple == 2**depth
    with torch.no_grad():
        assert generator(_lightness(1, 1, 2**depth, 3 * 2**depth)).shape == (1, 2, 2**depth, 3 * 2**depth)


def test_unet_can_norm_every_layer_but_the_last() -> None:
    for norm_ends, missing in ((False, 3), (True, 1)):
        layers = list(_generator("unet", depth=4, norm_ends=norm_ends).modules())
        convolutions = [m for m in layers if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
        norms = [m for m in layers if isinstance(m, nn.BatchNorm2d)]
        assert len(convolutions) - len(norms) == missing


@pytest.mark.parametrize("name", ["unet", "efficientnet_unet"])
def test_dropout_is_for_training_only(name: str) -> None:
    generator = _generator(name, dropout=0.5)
    _used(generator)
    given = _lightness(2, 1, 64, 64)
    with torch.no_grad():
        assert torch.equal(generator(given), generator(given))
        generator.train()
        assert not torch.equal(generator(given), generator(given))


@pytest.mark.parametrize("name", [name for name in GENERATORS if name.endswith("net_unet")])
def test_margin_must_keep_the_size_a_multiple(name: str) -> None:
    with pytest.raises(RecipeError, match=r"margin_px is 8: .*; give a multiple of 16"):
        _generator(name, margin_px=8)


def test_reflected_margin_is_that_of_evaluation_only() -> None:
    generator = _used(_generator("efficientnet_unet"))
    given = _lightness(1, 1, 64, 64)
    bare = _generator("efficientnet_unet", margin_px=0).eval()
    bare.load_state_dict(generator.state_dict())
    with torch.no_grad():
        grown = nn.functional.pad(given, (16, 16, 16, 16), mode="reflect")
        assert torch.equal(generator(given), bare(grown)[:, :, 16:-16, 16:-16])


# Encoders


@pytest.mark.parametrize("name", ENCODERS)
def test_encoder_gives_five_maps_at_halving_sizes(name: str) -> None:
    encoder = _encoder(name).eval()
    with torch.no_grad():
        maps = encoder(encoder.normalized(_lightness(2, 1, 64, 96)))
    assert [tuple(m.shape) for m in maps] == [
        (2, c, 64 // s, 96 // s) for c, s in zip(encoder.channels, (2, 4, 8, 16, 32), strict=True)
    ]


@pytest.mark.parametrize("name", ENCODERS)
def test_encoder_scales_lightness_as_a_gray_photograph(name: str) -> None:
    encoder = _encoder(name)
    one, three = (
        encoder.normalized(_lightness(1, 1, 4, 4)),
        encoder.normalized(_lightness(1, 1, 4, 4).repeat(1, 3, 1, 1)),
    )
    assert torch.equal(one, three)
    torch.testing.assert_close(one * encoder.std + encoder.mean, (_lightness(1, 1, 4, 4) / 2 + 0.5).repeat(1, 3, 1, 1))


@pytest.mark.parametrize("name", ENCODERS)
def test_published_names_are_distinct_and_cover_all_weights(name: str) -> None:
    encoder = _encoder(name)
    names = encoder.published_names()
    assert len(set(names.values())) == len(names)
    assert set(names) == {key for key in encoder.state_dict() if not key.endswith("num_batches_tracked")}


# Names and shapes from the published files: first, last, and what is peculiar to each.
PUBLISHED = [
    ("mobilenet_v2", (), 255, "features.0.0.weight", (32, 3, 3, 3)),
    ("mobilenet_v2", (), 255, "features.1.conv.0.0.weight", (32, 1, 3, 3)),
    ("mobilenet_v2", (), 255, "features.17.conv.3.running_var", (320,)),
    ("resnet18", (), 100, "conv1.weight", (64, 3, 7, 7)),
    ("resnet18", (), 100, "bn1.running_mean", (64,)),
    ("resnet18", (), 100, "layer2.0.downsample.0.weight", (128, 64, 1, 1)),
    ("resnet18", (), 100, "layer4.1.bn2.bias", (512,)),
    ("efficientnet_lite", ("lite0",), 240, "_conv_stem.weight", (32, 3, 3, 3)),
    ("efficientnet_lite", ("lite0",), 240, "_blocks.0._depthwise_conv.weight", (32, 1, 3, 3)),
    ("efficientnet_lite", ("lite0",), 240, "_blocks.15._bn2.running_var", (320,)),
    ("efficientnet_lite", ("lite1",), 315, "_blocks.3._depthwise_conv.weight", (144, 1, 3, 3)),
    ("efficientnet_lite", ("lite2",), 315, "_blocks.20._project_conv.weight", (352, 1248, 1, 1)),
]


@pytest.mark.parametrize(("name", "options", "count", "published", "shape"), PUBLISHED)
def test_encoder_has_the_published_weights(
    name: str, options: tuple[str, ...], count: int, published: str, shape: tuple[int, ...]
) -> None:
    encoder = _encoder(name, *options)
    own = {theirs: ours for ours, theirs in encoder.published_names().items()}
    assert len(own) == count
    assert tuple(encoder.state_dict()[own[published]].shape) == shape


def test_efficientnet_pads_as_tensorflow_does() -> None:
    # A stride-2 3x3 convolution with "SAME" padding of an even extent has its first tap on the first pixel.
    encoder = _encoder("efficientnet_lite").eval()
    encoder.stem.conv.weight.data.zero_()
    encoder.stem.conv.weight.data[:, :, 0, 0] = 1
    picture = _lightness(1, 3, 32, 32).abs()
    with torch.no_grad():
        stem = encoder.stem(picture)
    expected = picture[:, :, ::2, ::2].sum(1) / (1 + 1e-3) ** 0.5
    torch.testing.assert_close(stem[:, 0], expected)


def test_unknown_efficientnet_is_named() -> None:
    with pytest.raises(RecipeError, match=r"'lite9'.*lite0, lite1, lite2"):
        _generator("efficientnet_unet", variant="lite9")


# Discriminators


@pytest.mark.parametrize("name", DISCRIMINATORS)
@pytest.mark.parametrize("inputs", [3, 4, 6])
@pytest.mark.parametrize("size", [(64, 64), (128, 72)])
def test_discriminator_gives_one_channel_of_logits(name: str, inputs: int, size: tuple[int, int]) -> None:
    with torch.device("meta"):
        logits = _discriminator(name, inputs=inputs)(torch.empty(2, inputs, *size))
    assert logits.shape[:2] == (2, 1)
    assert logits.ndim == 4


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_discriminator_ends_in_logits_and_every_weight_of_it_learns(name: str) -> None:
    torch.manual_seed(0)
    discriminator = _discriminator(name, width=8)
    logits = discriminator(_lightness(4, 3, 64, 64))
    nn.functional.binary_cross_entropy_with_logits(logits, torch.ones_like(logits)).backward()
    assert [key for key, p in discriminator.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []
    assert not [m for m in discriminator.modules() if isinstance(m, nn.Sigmoid)]
    assert logits.min() < 0  # no probability


def test_patchgan_of_six_layers_gives_30_by_62_on_a_whole_scan() -> None:
    with torch.device("meta"):
        network = _discriminator("patchgan", layers=6, norm_ends=True)
        logits = network(torch.empty(1, 3, 2048, 4096))
    assert logits.shape == (1, 1, 30, 62)
    convolutions = [i for i, layer in enumerate(network.layers) if isinstance(layer, nn.Conv2d)]
    norms = [isinstance(network.layers[i + 1], nn.BatchNorm2d) for i in convolutions[:-1]]
    assert (len(convolutions), norms) == (8, [True] * 7)


def test_mobilenet_has_the_parameters_of_the_report() -> None:
    """4.2 million, with the classifier of 1000 classes that is left out here; a quarter of the width has 0.47."""
    from training.encoders.mobilenet_v1 import Encoder

    def with_classifier(multiplier: float) -> int:
        encoder = Encoder(multiplier)
        return sum(p.numel() for p in encoder.parameters()) + 1000 * (encoder.channels[-1] + 1)

    assert with_classifier(1.0) == 4_231_976
    assert with_classifier(0.25) == pytest.approx(0.47e6, rel=0.01)
    generator = _generator("mobilenet_fusion", version=1, multiplier=0.25)
    assert generator(torch.zeros(1, 1, 32, 40)).shape == (1, 2, 32, 40)
    with pytest.raises(ValueError, match="multiplier"):
        _generator("mobilenet_fusion", multiplier=0.5)


@pytest.mark.parametrize(("layers", "patches"), [(1, 126), (2, 62), (3, 30), (4, 14), (5, 6)])
def test_patchgan_has_any_number_of_layers(layers: int, patches: int) -> None:
    with torch.device("meta"):
        logits = _discriminator("patchgan", layers=layers)(torch.empty(1, 3, 256, 256))
    assert logits.shape == (1, 1, patches, patches)
    with torch.device("meta"):
        assert _discriminator("patchgan", layers=layers)(torch.empty(1, 3, 3 * 2**layers, 256)).shape[2] == 1


def test_pixel_discriminator_judges_each_pixel_by_itself() -> None:
    discriminator = _discriminator("pixel").eval()
    picture = _lightness(1, 3, 16, 24)
    other = picture.clone()
    other[:, :, 5, 7] *= -1
    with torch.no_grad():
        changed = (discriminator(picture) - discriminator(other)).abs() > 0
    assert changed.shape == (1, 1, 16, 24)
    assert changed.nonzero().tolist() == [[0, 0, 5, 7]]


@pytest.mark.parametrize("name", ["classifier", "sequential"])
@pytest.mark.parametrize("size", [(64, 64), (96, 256)])
def test_classifiers_give_one_logit_a_picture(name: str, size: tuple[int, int]) -> None:
    with torch.device("meta"):
        assert _discriminator(name)(torch.empty(2, 3, *size)).shape == (2, 1, 1, 1)


@pytest.mark.parametrize("name", ["patchgan", "pixel", "classifier"])
def test_batch_norm_has_a_switch(name: str) -> None:
    for batch_norm in (True, False):
        layers = _discriminator(name, batch_norm=batch_norm).modules()
        assert any(isinstance(m, nn.BatchNorm2d) for m in layers) == batch_norm
