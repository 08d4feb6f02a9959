"""System 1: what Lab, dilation and skip connections each contribute."""

from __future__ import annotations

from training.reproduce.page import Figure, Page
from training.reproduce.study import Study, Variant, settings
from training.reproduce.tables import READING, measured

_SMALL = settings(
    phases__0__crop_px=64, phases__0__batch=8, generator_options__width=12, discriminator_options__width=24
)
_VARIANTS: dict[str, tuple[str, ...]] = {
    "as reported": (),
    "RGB": ("colour=rgb",),
    "without dilation": ("generator_options.dilated=false",),
    "without skips": ("generator_options.skips=false",),
}


def make_page(study: Study) -> Page:
    """The page of four runs: the report's, and one for each of its three ablations."""
    trained = study.train({name: Variant("dilated-gan", changes, _SMALL) for name, changes in _VARIANTS.items()})
    rows = study.measure(trained, "table")
    page = Page("Dilated U-Net against a classifier", study.intro(trained))
    page.add(
        "Ablations",
        measured(rows),
        READING,
        "Without dilation the bottom has as many layers and weights but reaches less far; without skips the picture "
        "reaches the output through the bottom alone; in RGB the network must paint lightness, too, of which only the "
        "colour is kept here.",
    )
    table = study.request.out / "table"
    page.add(
        "Gray, generated, truth",
        Figure(table / "sheet.jpg", "Held-out pictures in gray, in the colours of each run, and in their own"),
        Figure(table / "sheet_as reported.png", "As reported: triptychs of gray, generated, truth"),
    )
    page.add("Losses", *(Figure(each.curves, f"{name}: losses of both networks") for name, each in trained.items()))
    return page
