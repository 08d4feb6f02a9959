from __future__ import annotations

import math

import pytest

pytest.importorskip("torch")

import torch

from training.losses import adversarial_loss, content_loss, discriminator_loss, saturation

REAL = torch.tensor([[2.0, -0.5], [0.3, 1.5]])
FAKE = torch.tensor([[-1.0, 0.7], [0.2, -2.0]])


def _mean(function: object, *tensors: torch.Tensor) -> float:
    values = zip(*(tensor.flatten().tolist() for tensor in tensors), strict=True)
    results = [function(*value) for value in values]  # type: ignore[operator]
    return sum(results) / len(results)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_bce_is_the_papers_formula() -> None:
    """Goodfellow et al. (2014): -log D(x) - log(1 - D(G(z))), and -log D(G(z)) for the generator."""
    real = _mean(lambda r: -math.log(_sigmoid(r)), REAL)
    fake = _mean(lambda f: -math.log(1 - _sigmoid(f)), FAKE)
    assert discriminator_loss("bce", REAL, FAKE).item() == pytest.approx((real + fake) / 2, rel=1e-5)
    assert adversarial_loss("bce", FAKE).item() == pytest.approx(
        _mean(lambda f: -math.log(_sigmoid(f)), FAKE), rel=1e-5
    )


def test_least_squares_and_hinge_are_the_papers_formulas() -> None:
    squares = _mean(lambda r, f: ((r - 1) ** 2 + f**2) / 2, REAL, FAKE)
    assert discriminator_loss("least-squares", REAL, FAKE).item() == pytest.approx(squares, rel=1e-5)
    assert adversarial_loss("least-squares", FAKE).item() == pytest.approx(
        _mean(lambda f: (f - 1) ** 2, FAKE), rel=1e-5
    )
    hinge = _mean(lambda r, f: (max(0, 1 - r) + max(0, 1 + f)) / 2, REAL, FAKE)
    assert discriminator_loss("hinge", REAL, FAKE).item() == pytest.approx(hinge, rel=1e-5)
    assert adversarial_loss("hinge", FAKE).item() == pytest.approx(-_mean(lambda f: f, FAKE), rel=1e-5)


def test_smoothing_touches_real_labels_only() -> None:
    smooth = _mean(lambda r, f: ((r - 0.9) ** 2 + f**2) / 2, REAL, FAKE)
    assert discriminator_loss("least-squares", REAL, FAKE, 0.1).item() == pytest.approx(smooth, rel=1e-5)
    assert discriminator_loss("bce", REAL * 20, FAKE, 0.1) > discriminator_loss("bce", REAL * 20, FAKE)


@pytest.mark.parametrize(("name", "expected"), [("l1", 0.3), ("mse", 0.09), ("huber", 0.3 - 0.025)])
def test_content_losses_of_a_constant_difference(name: str, expected: float) -> None:
    truth = torch.rand(2, 2, 8, 8) * 0.5
    assert content_loss(name, truth + 0.3, truth).item() == pytest.approx(expected, rel=1e-4)


def test_vivid_weight_counts_saturated_pixels_more() -> None:
    truth = torch.zeros(1, 2, 1, 2)
    truth[..., 0] = 0.5  # one vivid pixel, one gray one
    wrong_vivid, wrong_gray = truth.clone(), truth.clone()
    wrong_vivid[..., 0] += 0.2
    wrong_gray[..., 1] += 0.2
    plain = [content_loss("l1", wrong, truth).item() for wrong in (wrong_vivid, wrong_gray)]
    weighted = [content_loss("l1", wrong, truth, 1.0).item() for wrong in (wrong_vivid, wrong_gray)]
    assert plain[0] == pytest.approx(plain[1])
    assert weighted[0] / weighted[1] == pytest.approx(1 + 4 * math.hypot(0.5, 0.5))


def test_saturation_is_zero_for_gray_in_both_colour_spaces() -> None:
    assert saturation(torch.full((1, 3, 2, 2), 0.7)).abs().max() < 1e-6
    assert saturation(torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)).item() == pytest.approx(5)
