"""Where a coloured copy lies on its scan, and whether it is a copy of it at all.

A copy comes back from another program smaller or larger, cropped, shifted, slightly turned or squeezed, and in other
tones. What stays is where the edges are and which of their sides is the brighter one. So both pictures are shrunk,
features are matched (SIFT) and the affine transform that most of them agree on is taken (RANSAC); where too few match,
phase correlation of the edges gives the start. Then the correlation of the edges is maximized over affine transforms
(ECC). None that mirrors a picture is taken.

Whether it fits is told by the directions of gradients, which tones do not change: the mean cosine between those of the
scan and those of the copy under it, by region. Unlike pictures agree in a few regions by chance, a copy in most of
them, also where a part of it was painted anew.

References
----------
Lowe, Distinctive Image Features from Scale-Invariant Keypoints, IJCV 60(2), 2004.
Fischler, Bolles, Random Sample Consensus, Communications of the ACM 24(6), 1981.
Evangelidis, Psarakis, Parametric Image Alignment Using Enhanced Correlation Coefficient Maximization, IEEE Transactions
on Pattern Analysis and Machine Intelligence 30(10), 2008.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PaletteCopyError

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Matrix = tuple[tuple[float, float, float], tuple[float, float, float]]

LONG_PX = 512  # of both pictures while they are compared
LEAST_SCORE = 0.25  # tests.benchmarks.palette_from: unlike pictures stay below 0.1
LEAST_AGREEING = 0.4
LEAST_COVERED = 0.5
_SAME_SCORE, _SAME_AGREEING = 0.5, 0.6  # two scans of one thing differ in noise and tones only
_LEAST_SHARED = 1 / 12
_BEYOND_DOUBT = 0.9  # the score from which a copy is not looked at in the mirror
_LEAST_SIDE_PX = 32
_FEATURES = 1500
_RATIO = 0.8  # between a feature's nearest and its second nearest (Lowe, 7.1)
_LEAST_MATCHES = 10
_NEAR_PX = 3.0
_MOST_SQUEEZED = 1.5  # one axis against the other
_BLUR_PX = 7
_STEPS = cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-5
_REGIONS = 5  # along each side
_REGION_AGREES = 0.3
_SMOOTH_PX = 1.5
_LEAST_GRADIENT = 0.2  # L* a pixel: below it is noise


@dataclass(frozen=True)
class Registration:
    """Where the places of a scan lie on its copy.

    Attributes
    ----------
    matrix : (2, 3), of x, y, 1 on the scan to x, y on the copy; pixels, from the upper left corner of the first one
    score : median over the regions of the mean cosine between gradients, -1 to 1; 1 is the same picture
    agreeing : share of regions where it is above 0.3, 0 to 1
    covered : share of the scan that the copy covers, 0 to 1
    """

    matrix: Matrix
    score: float
    agreeing: float
    covered: float

    def scaled(self, scan_factor: float, copy_factor: float) -> Registration:
        """The same where the scan and the copy have so many times the pixels along each side."""
        rows = (
            (row[0] * copy_factor / scan_factor, row[1] * copy_factor / scan_factor, row[2] * copy_factor)
            for row in self.matrix
        )
        first, second = rows
        return replace(self, matrix=(first, second))

    @property
    def scale(self) -> float:
        """Pixels of the copy for a pixel of the scan, the geometric mean of both axes."""
        return float(np.sqrt(np.linalg.det(np.array(self.matrix)[:, :2])))

    @property
    def degrees(self) -> float:
        """By which the copy is turned, clockwise."""
        (a, _, _), (c, _, _) = self.matrix
        return float(np.degrees(np.arctan2(c, a)))


def register(scan: F32, copy: F32) -> Registration:
    """Find where the pixels of a scan lie on a coloured copy of it.

    Parameters
    ----------
    scan, copy : (h, w) L*, each of any size

    Raises
    ------
    PaletteCopyError : the copy shows another picture, or this one mirrored, or too little of it; one line
    """
    for picture, name in ((scan, "the scan"), (copy, "the copy")):
        if LONG_PX * min(picture.shape) < _LEAST_SIDE_PX * max(LONG_PX, *picture.shape):
            raise PaletteCopyError(f"{name} is too narrow to be compared; leave the copy out")
    seen, coloured = Seen.of(scan), Seen.of(copy)
    found = _best(seen, coloured)
    reason = _refusal(found)
    # A picture that is nearly symmetrical resembles its own mirror image, which then fits better still.
    if found is None or reason or found.score < _BEYOND_DOUBT:
        mirrored = _best(seen, Seen.of(np.ascontiguousarray(copy[:, ::-1])))
        if mirrored is not None and not _refusal(mirrored) and (not found or reason or mirrored.score > found.score):
            reason = "the copy is mirrored; mirror it back, or leave it out"
    if found is None or reason:
        raise PaletteCopyError(reason)
    scan_factor, copy_factor = (old.shape[1] / new.plane.shape[1] for old, new in ((scan, seen), (copy, coloured)))
    return found.scaled(scan_factor, copy_factor)


def find_overlap(scan: Seen, other: Seen) -> Registration | None:
    """Where another picture of a series shows what a scan shows, whole or in part; None where it shows another thing.

    Only features tell: what they say is made finer as for a copy. Of pictures that share less than a twelfth of the
    scan, nothing is known.
    """
    start = _by_features(scan, other)
    if start is None:
        return None
    every = (_measured(scan.plane, other.plane, matrix) for matrix in (_refined(scan, other, start), start))
    good = [each for each in every if each is not None and _is_possible(np.array(each.matrix))]
    best = max(good, key=lambda each: each.score, default=None)
    is_same = best is not None and best.score >= _SAME_SCORE and best.agreeing >= _SAME_AGREEING
    return best if is_same and best is not None and best.covered >= _LEAST_SHARED else None


def _refusal(found: Registration | None) -> str:
    """Why a registration is none, as one line; empty where it is one."""
    if found is None or found.score < LEAST_SCORE or found.agreeing < LEAST_AGREEING:
        likeness = 0.0 if found is None else max(found.score, 0.0)
        return (
            f"the copy does not show what the scan shows (likeness {likeness:.2f}, {LEAST_SCORE} is needed), its "
            "colours would be those of another picture; give the right copy, or leave it out"
        )
    if found.covered < LEAST_COVERED:
        return (
            f"the copy shows only {found.covered:.0%} of the scan, the rest would stay gray; give a copy of the whole "
            "scan, or leave it out"
        )
    return ""


@dataclass(frozen=True)
class Seen:
    """A picture as it is compared: its L*, and its edges at half the size and at the whole."""

    plane: F32
    edges: tuple[F32, F32]

    @classmethod
    def of(cls, picture: F32) -> Seen:
        """Shrunk to a long side of 512 px, where it is longer."""
        less = max(1.0, max(picture.shape) / LONG_PX)
        plane = _resized(picture, less)
        return cls(plane, (_edges(_resized(plane, 2)), _edges(plane)))

    @cached_property
    def features(self) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """(n, 2) places x, y and (n, 128) descriptors of what stands out; None where hardly anything does."""
        sift = cv2.SIFT.create(_FEATURES, contrastThreshold=0.02)
        found, described = sift.detectAndCompute(cv2.createCLAHE(2.0, (8, 8)).apply(_levels(self.plane)), None)
        if described is None or len(found) < _LEAST_MATCHES:
            return None
        return np.array([each.pt for each in found]), described


def _resized(picture: F32, less: float) -> F32:
    size = max(1, round(picture.shape[1] / less)), max(1, round(picture.shape[0] / less))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.float32)


def _best(scan: Seen, copy: Seen) -> Registration | None:
    """Of all starts the registration that fits best; None where nothing can be compared."""
    best: Registration | None = None
    for start in _starts(scan, copy):
        for matrix in (_refined(scan, copy, start), start):
            found = _measured(scan.plane, copy.plane, matrix) if _is_possible(matrix) else None
            if found is not None and (best is None or found.score > best.score):
                best = found
        if best is not None and best.score >= _BEYOND_DOUBT and not _refusal(best):
            return best
    return best


def _starts(scan: Seen, copy: Seen) -> Iterator[F64]:
    """(2, 3) matrices to begin with, in OpenCV's pixels, the most trustworthy one first."""
    matched = _by_features(scan, copy)
    if matched is not None:
        yield matched
        return
    (height, width), (tall, wide) = scan.plane.shape, copy.plane.shape
    laid = np.asarray(cv2.resize(copy.edges[1], (width, height), interpolation=cv2.INTER_AREA))
    hann = cv2.createHanningWindow((width, height), cv2.CV_32F)
    (x, y), _ = cv2.phaseCorrelate(scan.edges[1], laid, hann)
    yield np.array([[wide / width, 0, x * wide / width], [0, tall / height, y * tall / height]])
    yield np.array([[wide / width, 0, 0], [0, tall / height, 0]])


def _by_features(scan: Seen, copy: Seen) -> F64 | None:
    """The affine transform that most of the matching features agree on; None where too few do."""
    if scan.features is None or copy.features is None:
        return None
    (ours, our), (theirs, their) = scan.features, copy.features
    pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(our, their, k=2)
    good = [two[0] for two in pairs if len(two) == 2 and two[0].distance < _RATIO * two[1].distance]
    if len(good) < _LEAST_MATCHES:
        return None
    ours, theirs = ours[[each.queryIdx for each in good]], theirs[[each.trainIdx for each in good]]
    matrix, inliers = cv2.estimateAffine2D(ours, theirs, method=cv2.RANSAC, ransacReprojThreshold=_NEAR_PX)
    return None if matrix is None or inliers.sum() < _LEAST_MATCHES else np.asarray(matrix, np.float64)


def _levels(picture: F32) -> NDArray[np.uint8]:
    """The picture as 8-bit levels from its darkest to its brightest hundredth."""
    low, high = np.percentile(picture, (1, 99))
    return np.asarray(np.clip((picture - low) * (255 / max(high - low, 1)), 0, 255), np.uint8)


def _refined(scan: Seen, copy: Seen, start: F64) -> F64:
    """The affine transform near ``start`` for which the edges correlate most, or what was found of the way there."""
    matrix = start.copy()
    for ours, theirs, less in zip(scan.edges, copy.edges, (2, 1), strict=True):
        try:
            _, found = cv2.findTransformECC(
                ours, theirs, _at_size(matrix, 1 / less).astype(np.float32), cv2.MOTION_AFFINE, _STEPS, None, _BLUR_PX
            )
        except cv2.error:  # it did not converge: unlike pictures, or no overlap
            break
        matrix = _at_size(np.asarray(found, np.float64), less)
    return matrix


def _at_size(matrix: F64, factor: float) -> F64:
    """The same for both pictures ``factor`` times as large: OpenCV counts from the middle of the first pixel."""
    corner = matrix[:, 2] + 0.5 - matrix[:, :2] @ (0.5, 0.5)
    scaled = matrix.copy()
    scaled[:, 2] = corner * factor - 0.5 + matrix[:, :2] @ (0.5, 0.5)
    return scaled


def _edges(picture: F32) -> F32:
    """How strong edges are beside those around them, so that faint parts count too."""
    x, y = _gradients(picture)
    strength = np.sqrt(np.hypot(x, y))
    usual = cv2.GaussianBlur(strength, (0, 0), 16)
    return np.asarray(strength / (usual + np.float32(0.3)), np.float32)


def _gradients(picture: F32) -> tuple[F32, F32]:
    """L* a pixel, along x and y."""
    smooth = cv2.GaussianBlur(picture, (0, 0), _SMOOTH_PX)
    x, y = (np.asarray(cv2.Scharr(smooth, cv2.CV_32F, *way, scale=1 / 32)) for way in ((1, 0), (0, 1)))
    return x, y


def _is_possible(matrix: F64) -> bool:
    """Whether a program that colours pictures may have done that to one: nothing mirrored, squeezed or far off."""
    linear = matrix[:, :2]
    if not np.isfinite(matrix).all() or np.linalg.det(linear) <= 0:
        return False
    large, small = np.linalg.svd(linear, compute_uv=False)
    return bool(large < _MOST_SQUEEZED * small and small > 0.1 and large < 10)


def _measured(scan: F32, copy: F32, matrix: F64) -> Registration | None:
    """How well the copy fits; None where next to nothing of the scan can be compared."""
    shape_xy = scan.shape[1], scan.shape[0]
    given: dict[str, Any] = {"flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, "borderMode": cv2.BORDER_REPLICATE}
    laid = np.asarray(cv2.warpAffine(copy, matrix, shape_xy, **given), np.float32)
    given["borderMode"] = cv2.BORDER_CONSTANT
    inside = np.asarray(cv2.warpAffine(np.ones_like(copy), matrix, shape_xy, **given)) > 0.5
    cosines = _cosines(scan, laid, cv2.erode(inside.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool))
    if not cosines:
        return None
    # From the middles of pixels, which OpenCV counts from, to their corners.
    offset = matrix[:, 2] + 0.5 - matrix[:, :2] @ (0.5, 0.5)
    first, second = ((float(row[0]), float(row[1]), float(at)) for row, at in zip(matrix, offset, strict=True))
    return Registration(
        matrix=(first, second),
        score=float(np.median(cosines)),
        agreeing=float(np.mean(np.array(cosines) > _REGION_AGREES)),
        covered=float(inside.mean()),
    )


def _cosines(scan: F32, laid: F32, inside: NDArray[np.bool_]) -> list[float]:
    """Mean cosine between the gradients of both, of each region that has any; strong ones count more."""
    (ax, ay), (bx, by) = _gradients(scan), _gradients(laid)
    product = ax * bx + ay * by
    lengths = np.hypot(ax, ay) * np.hypot(bx, by)
    counts = inside & (lengths > _LEAST_GRADIENT**2)
    weights = np.where(counts, np.sqrt(lengths), 0)
    agreement = np.where(counts, product / np.sqrt(np.maximum(lengths, 1e-9)), 0)
    found = []
    for rows in np.array_split(np.arange(scan.shape[0]), _REGIONS):
        for columns in np.array_split(np.arange(scan.shape[1]), _REGIONS):
            region = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
            if counts[region].mean() > 0.02:
                found.append(float(agreement[region].sum() / weights[region].sum()))
    return found
