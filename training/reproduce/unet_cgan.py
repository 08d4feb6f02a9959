"""System 4: pictures after epochs 5, 15, 30 and 45, curves, both pixel losses, and a collection from elsewhere."""

from __future__ import annotations

from training.evaluation.benchmarks import benchmark_folder
from training.reproduce.figures import epoch_strip
from training.reproduce.page import Figure, Page
from training.reproduce.study import Study, Variant, settings
from training.reproduce.tables import READING, measured

_SMALL = settings(
    phases__0__crop_px=64,
    phases__0__batch=8,
    generator_options__width=12,
    generator_options__depth=6,
    discriminator_options__width=24,
)


def make_page(study: Study) -> Page:
    """The page of the report's run with either pixel loss."""
    variants = {
        "L1": Variant("unet-cgan", (), _SMALL),
        "L2": Variant("unet-cgan", ("content_loss=mse",), _SMALL),
    }
    trained = study.train(variants)
    rows = study.measure(trained, "table")
    unseen = study.request.unseen or benchmark_folder("historic")
    elsewhere = study.measure(trained, "unseen", data=unseen)
    out = study.request.out
    page = Page("U-Net against PatchGAN, epoch by epoch", study.intro(trained))
    for name, each in trained.items():
        strip = epoch_strip(each.folder, each.recipe.phases[-1].crop_px, out / f"strip_{name}.png")
        page.add(f"Epochs beside the truth, {name}", Figure(strip, "Held-out pictures after the epochs of the report"))
    page.add(
        "Losses",
        *(
            Figure(each.curves, f"{name}: generator's total, its adversarial term, and the discriminator's loss")
            for name, each in trained.items()
        ),
    )
    page.add("On held-out pictures", measured(rows), READING, Figure(out / "table" / "sheet.jpg", "Gray, runs, truth"))
    said = str(unseen) if study.request.unseen else "the historic benchmark that comes with the package"
    page.add(
        "On a collection that no run has seen",
        f"All pictures of {said}.",
        measured(elsewhere),
        Figure(out / "unseen" / "sheet.jpg", "Gray, runs, truth"),
    )
    return page
