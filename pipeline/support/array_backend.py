"""Where a block is made: an array namespace, the way up to it and the way down.

The block loop is written in the array API, so it runs where the engine's numbers are. With an engine on a graphics
card, a block goes up once as the scan's own samples, and one block of half-precision chroma comes down: 1 to 6 bytes a
pixel up and 4 down. Tile by tile it would be 4 up and 8 down for each of the 16 tiles that show a pixel at stride 64.

Which namespace, and how to get there, is handed in: nothing here imports CuPy or torch. What runs on a device is
elementwise but for the network, sums in raster order, so that a pixel's bytes depend neither on the block division nor
on who shares its batch. A reduction or a matrix product of a library may take another kernel, and so another order of
sums, for another batch; :mod:`pipeline.colour.resize` does without both.

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

# An array of whichever namespace the work is done in.
Array = Any


@dataclass(frozen=True)
class Device:
    """Where arrays lie.

    Attributes
    ----------
    xp : array namespace, as :mod:`array_api_compat` gives it
    up : NumPy array to one of ``xp``, with the same dtype; what it gives is never written to
    down : array of ``xp`` to NumPy, with the same dtype
    """

    xp: Any
    up: Callable[[NDArray[Any]], Array]
    down: Callable[[Array], NDArray[Any]]

    @property
    def is_host(self) -> bool:
        """Whether this is plain NumPy, for which some steps have a faster way."""
        return self.xp is host_namespace or self.xp is np

    def zeros(self, shape: tuple[int, ...], beside: Array) -> Array:
        """float32 zeros on the device of ``beside``."""
        return self.xp.zeros(shape, dtype=self.xp.float32, device=array_api_compat.device(beside))

    def down_rounded(self, chroma: Array) -> NDArray[Any]:
        """To NumPy, as float16 where it has a way to go and the namespace has that type.

        It is what the store keeps, rounded once and to nearest in either place: half the bytes, and the same ones.
        """
        half = None if self.is_host else getattr(self.xp, "float16", None)
        return self.down(chroma if half is None else self.xp.astype(chroma, half))


HOST = Device(host_namespace, np.asarray, np.asarray)
