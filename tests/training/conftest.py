from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

try:
    import torch
except ModuleNotFoundError:
    pass
else:
    torch.set_num_threads(1)  # the tensors are tiny: more threads only wait for one another


@pytest.fixture(scope="session")
def photographs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 small colour pictures, each of two blurred colours, and one gray one."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(1)
    for i in range(40):
        bgr = cv2.resize(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8), (48, 40), interpolation=cv2.INTER_CUBIC)
        assert cv2.imwrite(str(folder / f"{i:02}.png"), bgr)
    assert cv2.imwrite(str(folder / "gray.png"), np.full((40, 48, 3), 128, np.uint8))
    return folder


@pytest.fixture
def tiny_yaml(tmp_path: Path) -> Path:
    """A recipe of four steps, the last two adversarial and with dropout, that trains in a second."""
    path = tmp_path / "tiny.yaml"
    path.write_text(
        "name: tiny\ngenerator: unet\ngenerator_options: {width: 8, depth: 3}\ndiscriminator: sequential\n"
        "precision: 32-true\nwarmup_steps: 1\ncheckpoint_steps: 2\nsmallest_crop_px: 16\n"
        "film: {gamma: 0.3, grain: 0.05}\nphases:\n  - {steps: 2, crop_px: 32, batch: 2}\n"
        "  - {steps: 2, crop_px: 64, batch: 2, adversarial_weight: 1}\n"
    )
    return path
