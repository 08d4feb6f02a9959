"""The card's scaling wherever the network's numbers are: one network on NumPy, and on tensors as on a GPU."""

import array_api_compat
import numpy as np
import pytest

from engines.backends.identity import IdentityEngine
from engines.scaling import ScaledEngine
from engines.spec import EngineSpec, ModelCard, OnDevice

CARD = ModelCard("tiny", "none", 0.02, -1.0, 110.0, 1, "")
SPEC = EngineSpec("none", "", (8, 16), 3)


class Square(ScaledEngine):
    """Every backend's part: one full batch in network units."""

    def _run(self, inputs):
        assert inputs.shape == (3, 1, 8, 16)
        assert array_api_compat.array_namespace(inputs) is self.array_namespace
        self.inputs = inputs
        return self.array_namespace.concat([inputs, inputs * inputs], axis=1)


class SquareOfTensors(Square):
    """As a backend with a device of its own has it: the namespace, and nothing else."""

    @property
    def array_namespace(self):
        pytest.importorskip("torch")
        from array_api_compat import torch

        return torch


def tiles(count):
    return np.random.default_rng(count).uniform(0, 100, (count, 1, 8, 16)).astype(np.float32)


@pytest.mark.parametrize("engine", [Square(CARD, SPEC), SquareOfTensors(CARD, SPEC)])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_numpy_in_is_numpy_out_in_the_cards_units(engine, count):
    chroma = engine.predict(tiles(count))
    assert isinstance(chroma, np.ndarray)
    assert chroma.dtype == np.float32
    scaled = tiles(count) * 0.02 - 1
    np.testing.assert_allclose(chroma, 110 * np.concatenate([scaled, scaled**2], axis=1), rtol=1e-5, atol=1e-4)
    assert (np.asarray(engine.inputs)[count:] == 0).all()


@pytest.mark.parametrize("count", [1, 3])
def test_arrays_of_the_namespace_stay_there(count):
    engine = SquareOfTensors(CARD, SPEC)
    chroma = engine.predict(engine.to_device(tiles(count)))
    assert array_api_compat.is_torch_array(chroma)
    np.testing.assert_array_equal(engine.to_host(chroma), Square(CARD, SPEC).predict(tiles(count)))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.int64])
def test_numbers_go_up_and_come_down_as_they_are(dtype):
    engine = SquareOfTensors(CARD, SPEC)
    values = np.arange(7).astype(dtype)
    back = engine.to_host(engine.to_device(values))
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, values)


def test_an_engine_that_says_nothing_of_a_device_works_on_numpy():
    assert not isinstance(IdentityEngine(), OnDevice)
    assert isinstance(Square(CARD, SPEC), OnDevice)
    assert Square(CARD, SPEC).array_namespace is array_api_compat.array_namespace(tiles(1))
