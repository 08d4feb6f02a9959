"""System 3: a table of four pairings with figures beyond the report's two, historic photographs, and a quiz."""

from __future__ import annotations

from training.evaluation.answers import pooled
from training.reproduce.figures import without_truth
from training.reproduce.page import Figure, Link, Page, Part, Table
from training.reproduce.study import Study, Variant, settings
from training.reproduce.tables import READING, measured

_CROP = settings(phases__0__crop_px=64, phases__0__batch=8)
_UNET = (*_CROP, *settings(generator_options__width=12, generator_options__depth=6, discriminator_options__width=24))
_VARIANTS = {
    "3a residual": Variant(
        "organic-3a-residual",
        small=(*_CROP, *settings(generator_options__width=16, generator_options__blocks=4)),
    ),
    "3b U-Net": Variant("organic-3b-unet", small=_UNET),
    "3c ResNet-18": Variant(
        "organic-3c-resnet",
        small=(*_CROP, *settings(generator_options__widths=[64, 48, 32, 24], discriminator_options__width=24)),
    ),
    "3d pretrained": Variant(
        "organic-3d-pretrained", small=(*_UNET, *settings(phases__1__crop_px=64, phases__1__batch=8))
    ),
}


def make_page(study: Study) -> Page:
    """The page with table 1 of the report and its last tests."""
    trained = study.train(_VARIANTS)
    rows = study.measure(trained, "table")
    page = Page("Four pairings of generators and discriminators", study.intro(trained))
    page.add(
        "Table 1",
        measured(rows, reported=True),
        READING,
        "The report's finding: the pairing that collapses to gray has the best MSE and SSIM, so those two mislead. "
        "Gray itself is the first row: compare its MSE and SSIM with the others', then the colourfulness.",
        _finding(rows),
    )
    out = study.request.out
    page.add("Gray, the four pairings, truth", Figure(out / "table" / "sheet.jpg", "Held-out pictures"))
    historic: list[Part] = ["No folder of historic photographs was given (--historic)."]
    if study.request.historic:
        models = [each.model for each in trained.values()]
        side_px = min(trained["3b U-Net"].recipe.phases[-1].crop_px)
        path = without_truth(models, study.request.historic, out / "historic.jpg", side_px=max(128, side_px))
        historic = [Figure(path, "Photographs that never had colours, by each pairing")]
    page.add("Historic photographs", *historic)
    quiz: list[Part] = [
        Link(out / "table" / "quiz.html", "Real or generated? The quiz"),
        "Save the result at its end; give the folder of several people's results as --answers.",
    ]
    if study.request.answers:
        answers = pooled(study.request.answers)
        quiz += [Table(answers.cells()), answers.caption]
    page.add("Judged by people", *quiz)
    page.add("Losses", *(Figure(each.curves, name) for name, each in trained.items()))
    return page


def _finding(rows: list) -> str:
    """The finding in words: which row has the least MSE, and how colourful it is."""
    least = min(rows[2:], key=lambda row: row.mse.mean)
    dullest = min(rows[2:], key=lambda row: row.colourfulness.mean)
    return (
        f"Of the four, {least.name} has the least MSE here, with {100 * least.colourfulness_ratio.mean:.0f} % of the "
        f"truth's colourfulness; the least colourful is {dullest.name} with "
        f"{100 * dullest.colourfulness_ratio.mean:.0f} %."
    )
