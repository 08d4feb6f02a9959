"""Parts of a picture to which a grade is kept, and the soft edge inside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.colour.hues import smooth_step
from pipeline.errors import UsageError
from pipeline.shapes import MOST, Shape
from pipeline.types import Roi

F32 = NDArray[np.float32]
FEATHER_PX, MOST_FEATHER_PX = 4.0, 512.0
_MOST_SHAPES, _MOST_CORNERS = 100, 10_000
_EXAMPLE = "a box such as 100,80,640,480 or a polygon such as '0,0 900,0 900,300', several with ; between"


@dataclass(frozen=True, order=True)
class Region:
    """Boxes and polygons of a scan, in its pixels, as one area.

    Attributes
    ----------
    shapes : the area is all of them together
    feather_px : over so many pixels inside its border it fades in; the border of the scan is none
    """

    shapes: tuple[Shape, ...]
    feather_px: float = FEATHER_PX

    @classmethod
    def parse(cls, text: str, feather: str | float | None = None) -> Region:
        """What a user asks for: ``x,y,width,height`` or ``x,y x,y x,y``, several with ``;`` between. UsageError."""
        shapes = tuple(_parse_shape(part) for part in text.split(";") if part.strip())
        corners = sum(len(shape.numbers) for shape in shapes)
        if not shapes or len(shapes) > _MOST_SHAPES or corners > _MOST_CORNERS:
            raise UsageError(
                f"within {text!r:.60}: {len(shapes)} shapes with {corners} corners; give 1 to {_MOST_SHAPES} shapes "
                f"with at most {_MOST_CORNERS}: {_EXAMPLE}"
            )
        return cls(shapes, _parse_feather(feather))

    def check(self, shape_yx: tuple[int, int]) -> None:
        """Raises UsageError where it is not on a scan of this size, or has no pixel there."""
        for shape in self.shapes:
            if not shape.is_inside(shape_yx):
                raise UsageError(
                    f"within {_text_of(shape)}: is outside the scan, which has {shape_yx[1]} x {shape_yx[0]} pixels, "
                    "so it may be meant for another one; give pixels inside it"
                )
            if not len(shape.pixels(1)):
                raise UsageError(f"within {_text_of(shape)}: has no pixel's middle in it, nothing would change")

    def part_of(self, roi: Roi) -> Roi | None:
        """The smallest rectangle of ``roi`` that has all of the region that is in it; None where nothing is."""
        inside = [
            Roi(max(each.y0, roi.y0), min(each.y1, roi.y1), max(each.x0, roi.x0), min(each.x1, roi.x1))
            for each in (shape.bounds for shape in self.shapes)
        ]
        found = [each for each in inside if each.y0 < each.y1 and each.x0 < each.x1]
        if not found:
            return None
        low, high = (
            (min(each.y0 for each in found), min(each.x0 for each in found)),
            (max(each.y1 for each in found), max(each.x1 for each in found)),
        )
        return Roi(low[0], high[0], low[1], high[1])

    def weight(self, roi: Roi, shape_yx: tuple[int, int]) -> F32 | None:
        """(h, w) how much each pixel of ``roi`` belongs to it: 0 outside, 1 deep inside; None where all are outside.

        A pixel's weight is the same in whichever ``roi`` of the scan it is asked for.
        """
        around = int(np.ceil(self.feather_px)) + 1
        wide = Roi(max(0, roi.y0 - around), roi.y1 + around, max(0, roi.x0 - around), roi.x1 + around)
        wide = wide.clipped(shape_yx)
        inside = np.zeros(wide.shape_yx, bool)
        for shape in self.shapes:
            mask = shape.mask(wide)
            if mask is not None:
                inside |= mask
        rows, columns = (
            slice(low - start, high - start)
            for low, high, start in ((roi.y0, roi.y1, wide.y0), (roi.x0, roi.x1, wide.x0))
        )
        if not inside[rows, columns].any():
            return None
        if not self.feather_px:
            return inside[rows, columns].astype(np.float32)
        # To the nearest pixel outside; far away from all of them it is more than any feather.
        far = np.full(inside.shape, MOST_FEATHER_PX + 2, np.float32)
        if not inside.all():
            far = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            # Its root of a whole number differs in the last bit with the place in a row; that of NumPy does not.
            far = np.sqrt(np.rint(far * far))
        return smooth_step(far[rows, columns] / np.float32(self.feather_px + 1))

    def to_json(self) -> dict[str, Any]:
        shapes = [{"kind": each.kind, "numbers": [list(numbers) for numbers in each.numbers]} for each in self.shapes]
        return {"shapes": shapes, "feather_px": self.feather_px}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Region:
        """What :meth:`to_json` gave. Raises KeyError, TypeError, ValueError where it is something else."""
        shapes = tuple(
            Shape(each["kind"], tuple(tuple(map(float, numbers)) for numbers in each["numbers"]))
            for each in values["shapes"]
        )
        return cls(shapes, float(values["feather_px"]))

    def __str__(self) -> str:
        few = "; ".join(map(_text_of, self.shapes[:2]))
        return f"{few} and {len(self.shapes) - 2} more" if len(self.shapes) > 2 else few


def _text_of(shape: Shape) -> str:
    """A box as it is given, of a polygon the box around it."""
    if shape.kind == "boxes":
        return ",".join(f"{each:g}" for each in shape.numbers[0])
    around = shape.bounds
    return f"{len(shape.numbers)} corners in {around.x0},{around.y0},{around.shape_yx[1]},{around.shape_yx[0]}"


def _parse_shape(text: str) -> Shape:
    points = text.split()
    try:
        numbers = tuple(tuple(map(float, point.split(","))) for point in points)
    except ValueError:
        numbers = ()
    sizes = {len(each) for each in numbers}
    is_box, is_polygon = sizes == {4} and len(numbers) == 1, sizes == {2} and len(numbers) >= 3
    flat = [value for each in numbers for value in each]
    if not (is_box or is_polygon) or not all(abs(value) <= MOST for value in flat):  # also where one is not a number
        raise UsageError(f"within {text.strip()!r:.60}: is no place of a scan; give {_EXAMPLE}")
    if is_box and not (numbers[0][2] > 0 and numbers[0][3] > 0):
        raise UsageError(f"within {text.strip()!r:.60}: is empty; give x, y, width and height, both above 0")
    return Shape("boxes" if is_box else "polygon", tuple(tuple(value + 0.0 for value in each) for each in numbers))


def _parse_feather(value: str | float | None) -> float:
    if value is None:
        return FEATHER_PX
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number <= MOST_FEATHER_PX:
        raise UsageError(f"feather {value!r}: is no width of a soft edge; give 0, hard, to {MOST_FEATHER_PX:g} pixels")
    return number + 0.0
