"""The list of systems, and the function that makes a system's page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from training.errors import RecipeError
from training.reproduce import dilated_gan, mobilenet_fusion, patchgan_study, pix2pix_frames, unet_cgan
from training.reproduce.page import Page
from training.reproduce.study import Request, Study

SYSTEMS: dict[str, Callable[[Study], Page]] = {
    "dilated-gan": dilated_gan.make_page,
    "mobilenet-fusion": mobilenet_fusion.make_page,
    "patchgan-study": patchgan_study.make_page,
    "unet-cgan": unet_cgan.make_page,
    "pix2pix-2048x4096": pix2pix_frames.make_page,
}
# Options that only one page uses.
_USED_BY = {"historic": "patchgan-study", "answers": "patchgan-study", "unseen": "unet-cgan"}


def reproduce(system: str, request: Request, report: Callable[[str], None] = print) -> Path:
    """Train and measure what the report of ``system`` compares; returns the page, ``index.html`` in the output folder.

    A stopped page is resumed.

    Raises
    ------
    RecipeError : no such system, an option that its page does not use, or ``out`` holds a page with other options.
    DataError : no pictures to train on, or to show. TrainingError : a run could not be kept.
    """
    if system not in SYSTEMS:
        raise RecipeError(f"no system {system!r}; give one of: {', '.join(SYSTEMS)}")
    for option, user in _USED_BY.items():
        if getattr(request, option) is not None and system != user:
            raise RecipeError(f"--{option}: only the page of {user} uses it, not that of {system}; leave it out")
    study = Study(system, request, report)
    return SYSTEMS[system](study).write(request.out)
