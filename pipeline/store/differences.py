"""A Zarr codec: each sample less its neighbour, so that what changes slowly compresses to half.

    {"name": "colorize_archive.differences", "configuration": {"axis": 2}}

Along ``axis`` each value but the first is replaced by its difference to the one before, both taken as unsigned integers
of the value's size, modulo 2^bits; the bits of a float16 count as an integer too. So it is exact for every type, as
TIFF's predictor 2 is for integers (TIFF 6.0, section 14). Decoding is a running sum: in NumPy
``np.add.accumulate(stored.view("u2"), axis=2, dtype="u2").view("f2")``.

The order in which neighbours differ matters little to size; x is taken because it lies together in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from zarr.abc.codec import ArrayArrayCodec
from zarr.registry import register_codec

NAME = "colorize_archive.differences"


def differences(values: NDArray[Any], axis: int) -> NDArray[Any]:
    """``values`` of any shape and type as differences along ``axis``, in the same type.

    >>> differences(np.array([[5, 7, 6]], np.uint8), 1).tolist()
    [[5, 2, 255]]
    """
    bits = np.ascontiguousarray(values).view(_unsigned(values.dtype))
    return np.asarray(imagecodecs.delta_encode(bits, axis=axis)).view(values.dtype)


def sums(stored: NDArray[Any], axis: int) -> NDArray[Any]:
    """The values whose :func:`differences` are ``stored``."""
    bits = np.ascontiguousarray(stored).view(_unsigned(stored.dtype))
    return np.asarray(imagecodecs.delta_decode(bits, axis=axis)).view(stored.dtype)


def _unsigned(dtype: np.dtype) -> np.dtype:
    return np.dtype(f"u{dtype.itemsize}").newbyteorder(dtype.byteorder)


@dataclass(frozen=True)
class Differences(ArrayArrayCodec):  # type: ignore[misc]
    """The codec for arrays of at least ``axis`` + 1 dimensions."""

    axis: int
    is_fixed_size = True

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError for metadata of another codec."""
        if data["name"] != NAME:
            raise ValueError(f"the codec {data['name']!r} is not {NAME}")
        return cls(int(data["configuration"]["axis"]))

    def to_dict(self) -> dict[str, Any]:
        return {"name": NAME, "configuration": {"axis": self.axis}}

    async def _encode_single(self, chunk_array: Any, chunk_spec: Any) -> Any:
        return chunk_spec.prototype.nd_buffer.from_ndarray_like(differences(chunk_array.as_numpy_array(), self.axis))

    async def _decode_single(self, chunk_array: Any, chunk_spec: Any) -> Any:
        return chunk_spec.prototype.nd_buffer.from_ndarray_like(sums(chunk_array.as_numpy_array(), self.axis))

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
        return input_byte_length


register_codec(NAME, Differences)
