"""All figures of one coloured picture; values that depend on the truth alone are computed once.

A table of ten models measures each picture a dozen times. :class:`Truth` keeps the truth's Lab, its windowed means and
variances for SSIM and its features for ST-LPIPS; tests compare it with the plain functions of :mod:`training.metrics`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.colour.ciede2000 import ciede2000
from pipeline.colour.colourfulness import colourfulness
from pipeline.colour.lab import lab_from_rgb
from training.metrics import mse, psnr

if TYPE_CHECKING:
    from training.evaluation.stlpips import Features

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

# Constants of Wang et al. 2004 for a range of 1; a flat window of 7 px with the sample covariance, as in scikit-image.
_SSIM_C1, _SSIM_C2 = 0.01**2, 0.03**2
_SSIM_WINDOW_PX = 7
# A picture without error has an infinite PSNR, which would make the mean infinite.
_MOST_DB = 100.0


class Measures(NamedTuple):
    """Figures of one picture; ``mse`` to ``ssim`` are of sRGB values in [0, 1]; ``stlpips`` is NaN without features."""

    ciede2000: float
    mse: float
    psnr_db: float
    ssim: float
    stlpips: float
    colourfulness: float


def _windowed_mean(values: F64) -> F64:
    """Mean over each 7 x 7 window inside the picture, per channel."""
    mean: F64 = cv2.boxFilter(values, cv2.CV_64F, (_SSIM_WINDOW_PX, _SSIM_WINDOW_PX))
    edge = _SSIM_WINDOW_PX // 2
    return mean[edge:-edge, edge:-edge]


class Truth:
    """A photograph to measure results against.

    Parameters
    ----------
    rgb : (H, W, 3) float32, sRGB values in [0, 1], sides of at least 7 px
    features : features of this photograph from :class:`training.evaluation.stlpips.StLpips`; None leaves ST-LPIPS out
    """

    def __init__(self, rgb: F32, features: Features | None = None) -> None:
        self.rgb = rgb
        self.colourfulness = colourfulness(rgb)
        self._lab = lab_from_rgb(rgb)
        self._wide = rgb.astype(np.float64)
        self._mean = _windowed_mean(self._wide)
        self._variance = _windowed_mean(self._wide**2) - self._mean**2
        self.features = features

    def measure(self, result: F32, features: Features | None = None) -> Measures:
        """Figures of ``result``, (H, W, 3) float32 in [0, 1], and its own ``features``."""
        lab = lab_from_rgb(result)
        perceptual = float("nan")
        if features is not None and self.features is not None:
            perceptual = features.distance(self.features)
        return Measures(
            ciede2000=float(ciede2000(lab, self._lab).mean()),
            mse=mse(result, self.rgb),
            psnr_db=min(psnr(result, self.rgb), _MOST_DB),
            ssim=self._ssim(result.astype(np.float64)),
            stlpips=perceptual,
            colourfulness=colourfulness(result),
        )

    def _ssim(self, result: F64) -> float:
        mean = _windowed_mean(result)
        variance = _windowed_mean(result**2) - mean**2
        covariance = _windowed_mean(result * self._wide) - mean * self._mean
        pixels = _SSIM_WINDOW_PX**2
        sample = pixels / (pixels - 1)
        luminance = (2 * mean * self._mean + _SSIM_C1) / (mean**2 + self._mean**2 + _SSIM_C1)
        structure = (2 * sample * covariance + _SSIM_C2) / (sample * (variance + self._variance) + _SSIM_C2)
        return float((luminance * structure).mean())
