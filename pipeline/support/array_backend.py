"""The device that computes a block: an array namespace, with upload and download.

The block loop is written in the array API, so it runs on the device that holds the engine's outputs. With an engine on
a GPU, a block is uploaded once as the scan's own samples, and one block of half-precision chroma is downloaded: 1 to 6
bytes per pixel up and 4 down. Tile by tile it would be 4 up and 8 down for each of the 16 tiles that cover a pixel at
stride 64.

The caller passes the namespace and the transfer functions in: nothing here imports CuPy or torch. Apart from the
network, operations on a device are elementwise, with sums in raster order, so a pixel's bytes depend neither on the
block division nor on the other tiles in its batch. A library's reduction or matrix product may choose another kernel,
and so another order of sums, for another batch; :mod:`pipeline.colour.resize` uses neither.

References
----------
Python array API standard, 2024.12.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import array_api_compat
import array_api_compat.numpy as host_namespace
import numpy as np
from numpy.typing import NDArray

# An array of whichever namespace is in use.
Array = Any


@dataclass(frozen=True)
class Device:
    """The device that holds arrays.

    Attributes
    ----------
    xp : array namespace, from :mod:`array_api_compat`
    up : NumPy array to one of ``xp``, with the same dtype; the result is never written to
    down : array of ``xp`` to NumPy, with the same dtype
    """

    xp: Any
    up: Callable[[NDArray[Any]], Array]
    down: Callable[[Array], NDArray[Any]]

    @property
    def is_host(self) -> bool:
        """True for plain NumPy, for which some steps have a faster implementation."""
        return self.xp is host_namespace or self.xp is np

    def zeros(self, shape: tuple[int, ...], beside: Array) -> Array:
        """float32 zeros on the device of ``beside``."""
        return self.xp.zeros(shape, dtype=self.xp.float32, device=array_api_compat.device(beside))

    def down_rounded(self, chroma: Array) -> NDArray[Any]:
        """To NumPy, as float16 if it is on a device whose namespace has that type.

        The store keeps float16 anyway. Either way values are rounded once, to nearest, so the stored bytes are equal;
        the transfer is half as large.
        """
        half = None if self.is_host else getattr(self.xp, "float16", None)
        return self.down(chroma if half is None else self.xp.astype(chroma, half))


HOST = Device(host_namespace, np.asarray, np.asarray)
