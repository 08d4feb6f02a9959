"""System 5: whole frames with their truth, a failure, and a long picture stitched at two strides."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.colour.lab import lightness_from_samples
from training.data import Pictures, Subset, open_collection
from training.data.batches import squeezed
from training.errors import DataError
from training.evaluation.colorizers import OnnxColorizer
from training.evaluation.sheet import as_samples, labelled
from training.export import load_average
from training.metrics import ciede2000
from training.reproduce.figures import side_by_side, write_picture
from training.reproduce.page import Figure, Page, Table
from training.reproduce.stitch import stitch
from training.reproduce.study import Study, Trained, Variant, settings
from training.reproduce.tables import READING, measured
from training.samples import shrunk

U8 = NDArray[np.uint8]

# An eighth of the report's frame, which has room for six levels down and six layers of PatchGAN.
_SHRUNK = 8
_SMALL = settings(
    phases__0__crop_px=[256, 512],
    generator_options__width=12,
    generator_options__depth=6,
    discriminator_options__width=12,
)
_STRIDES_PX = (256, 32)
_SMALL_TILE_PX = 512
_LONG = 5120 / 4096  # of the stitched picture, in frames
_FRAMES = 20  # test images of the report
_SHOWN = 4
_PAGE_PX = 2560


def make_page(study: Study) -> Page:
    """The page of one run at the frames' own size, shown in both ways."""
    (one,) = study.train({"pix2pix": Variant("pix2pix-2048x4096", (), _SMALL)}).values()
    frame_yx = one.recipe.phases[-1].crop_px
    held_out = open_collection(one.data, 0, Subset.of(one.recipe)).test
    if not len(held_out):
        raise DataError(f"{one.data}: nothing is held out to show; give more photographs")
    page = Page("pix2pix on whole frames", study.intro({one.name: one}))
    if not study.request.full:
        page.intro.append(
            f"Frames, patches and strides are 1/{_SHRUNK} of the report's: {frame_yx[0]} x {frame_yx[1]} px, "
            f"strides {' and '.join(str(s // _SHRUNK) for s in _STRIDES_PX)}."
        )
    page.add("Losses", Figure(one.curves, "Losses of both networks"))
    _add_frames(page, study, one, held_out)
    _add_stitched(page, study, one, held_out)
    rows = study.measure({one.name: one}, "table")
    page.add("Held-out pictures in their own shapes", measured(rows), READING)
    return page


def _add_frames(page: Page, study: Study, one: Trained, held_out: Pictures) -> None:
    """Whole frames from the network itself, in RGB, best and worst."""
    network, recipe, _ = load_average(one.folder)
    frame_yx = recipe.phases[-1].crop_px
    found = []
    for index in range(min(_FRAMES, len(held_out))):
        truth = squeezed(held_out.read(index).pixels, frame_yx)
        given = torch.from_numpy(lightness_from_samples(truth)[None, None] / 50 - 1).expand(-1, 3, -1, -1)
        with torch.no_grad():
            rgb = as_samples(((network(given)[0].permute(1, 2, 0) + 1) / 2).numpy())
        error = ciede2000(rgb.astype(np.float32) / 255, truth.astype(np.float32) / 255)
        gray = np.repeat(as_samples(given[0, 0, ..., None].numpy() / 2 + 0.5), 3, axis=2)
        found.append((error, (gray, rgb, truth)))
    found.sort(key=lambda item: item[0])
    best, worst = found[: min(_SHOWN, len(found) - 1) or 1], found[-1]
    out = study.request.out

    def frames(chosen: list[tuple[float, tuple[U8, U8, U8]]]) -> U8:
        columns = zip(*(pictures for _, pictures in chosen), strict=True)
        height_px = min(frame_yx[0], 512)
        return side_by_side(dict(zip(("gray", "generated", "truth"), columns, strict=True)), height_px)

    errors = ", ".join(f"{error:.1f}" for error, _ in best)
    page.add(
        "Whole frames",
        f"{len(found)} held-out frames in one pass each: mean CIEDE2000 "
        f"{np.mean([error for error, _ in found]):.1f}, from {found[0][0]:.1f} to {worst[0]:.1f}. The network paints "
        "lightness, too; below, as in a run, only its chroma is taken.",
        Figure(write_picture(out / "frames.png", frames(best)), f"Gray, generated, truth; CIEDE2000 {errors}"),
        Figure(
            write_picture(out / "failure.png", frames([worst])),
            f"The worst of them: CIEDE2000 {worst[0]:.1f}",
        ),
    )


def _add_stitched(page: Page, study: Study, one: Trained, held_out: Pictures) -> None:
    """The same long picture from patches of a whole frame, and from small ones, at both strides."""
    shrink = 1 if study.request.full else _SHRUNK
    frame_yx = one.recipe.phases[-1].crop_px
    truth = _long(held_out, (frame_yx[0], round(frame_yx[1] * _LONG)))
    lightness = lightness_from_samples(truth)
    colorize = OnnxColorizer(one.model, 2)
    small = _SMALL_TILE_PX // shrink
    strides = [stride // shrink for stride in _STRIDES_PX]
    lines, pictures = [["patches", "stride", "number of patches", "step at edges", "CIEDE2000"]], []
    for name, tile_yx in (("whole frames", frame_yx), ("small", (small, small))):
        # The coarse grid's lines belong to the fine grid, too. Frames as high as the picture have no edges across it.
        grid_yx = (2 * frame_yx[0] if tile_yx == frame_yx else strides[0], strides[0])
        for stride in strides:
            made = stitch(lightness, colorize, tile_yx, stride)
            error = ciede2000(made.rgb.astype(np.float32) / 255, truth.astype(np.float32) / 255)
            size = f"{name}, {tile_yx[0]} x {tile_yx[1]} px"
            edge = f"{made.edge_score(grid_yx):.2f}"
            lines.append([size, f"{stride} px", str(made.patches), edge, f"{error:.2f}"])
            pictures.append((f"{name}, stride {stride}", made.rgb))
    pictures.append(("truth", truth))
    rows = [labelled(name, [shrunk(rgb, _PAGE_PX)]) for name, rgb in pictures]
    path = write_picture(study.request.out / "stitched.png", np.concatenate(rows))
    page.add(
        f"Stitched, {truth.shape[0]} x {truth.shape[1]} px",
        "Patches at a stride, all of them averaged where they overlap. The larger the stride, the more visible the "
        "transitions between patches. The step at edges is that of colour on the lines of the coarser grid over that "
        "beside them: 1 shows no grid.",
        Table(lines),
        Figure(path, "One picture, stitched four times, and its truth"),
    )


def _long(held_out: Pictures, size_yx: tuple[int, int]) -> U8:
    """The middle of the widest held-out photograph, with the aspect ratio of a long picture."""
    wide = max(range(min(len(held_out), 4 * _FRAMES)), key=lambda i: _ratio(held_out.read(i).pixels))
    rgb = held_out.read(wide).pixels
    rows = min(rgb.shape[0], round(rgb.shape[1] * size_yx[0] / size_yx[1]))
    top = (rgb.shape[0] - rows) // 2
    return squeezed(rgb[top : top + rows], size_yx)


def _ratio(rgb: U8) -> float:
    return rgb.shape[1] / rgb.shape[0]
