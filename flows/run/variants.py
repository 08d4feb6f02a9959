"""Nine looks of a scan at reduced size, each with the options of ``reprocess`` that make it.

Looks of the network are made anew: it sees the scan again, and the generator colours the shrunk scan, whole. Looks that
are grades are made of the colours that the store holds. Tiles and full size change what is seen here only in detail.
"""

from __future__ import annotations

import base64
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.machine import processors
from engines.palette import PaletteNetwork, palette_spec, plain_backend
from engines.registry import open_engine
from engines.spec import EngineSpec, Model, find_model, shipped_models
from flows.cluster.grade_factors import sampled
from flows.run.restore import find_result
from pipeline.colour.grading import Grade, factor_for
from pipeline.colour.lab import chroma_from_half, rgb_from_lab
from pipeline.errors import StoreError, UsageError
from pipeline.palettes.answers import Taste
from pipeline.palettes.windows import distribution_of, palette_of
from pipeline.results.run_spec import RunSpec
from pipeline.results.sidecar import version_of
from pipeline.store import ChromaVersion, ScanStore
from pipeline.support.files import write_whole
from pipeline.tiling.anchor import shrinking, square_means
from pipeline.tiling.palette import Palette
from pipeline.types import Roi

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

Options = Mapping[str, Any]
COUNT = 9
_OF_NETWORK: tuple[Options, ...] = ({"answer": 2}, {"answer": 3}, {"vivid": 0.35}, {"vivid": 0.7})
_GRADES: tuple[Options, ...] = (
    {"colourfulness": 33},
    {"saturation": 0.6},
    {"warmth": 6},
    {"warmth": -6},
    {"saturation": 1.4},
    # Where there is no network to ask.
    {"hue_map": "violet:0.3, magenta:0.3"},
    {"saturation": 0.8, "warmth": 4},
    {"saturation": 1.2, "warmth": -4},
)
_WINDOW_PX = 2048
_LEAST_SIDE_PX = 32
# Mean difference of palettes in a*, b* below which the next best colours are none: the network is sure everywhere.
_TOLD_APART = 0.5
_QUALITY = 88


@dataclass(frozen=True)
class Variant:
    """A look: its options for ``reprocess``, none for that of the current version, and (h, w, 3) RGB."""

    options: Options
    rgb: U8

    def command(self, output: Path, stem: str) -> str:
        """The command that makes it; empty for the current version."""
        if not self.options:
            return ""
        words = [f"--{name.replace('_', '-')}={value}" for name, value in self.options.items()]
        return shlex.join(["colorize-archive", "reprocess", str(output), stem, *words])


def variants_of(result: Path) -> tuple[Path, str, list[Variant]]:
    """The folder of all results, the name of the scan's, and the looks, the current one first.

    Parameters
    ----------
    result : the scan's store, one of its results, or these without an ending

    Raises
    ------
    UsageError : no such result. StoreError : its colours are not whole. ModelError : its model cannot be loaded.
    """
    output, paths = find_result(result.expanduser().absolute())
    store = ScanStore.open(paths.store)
    name = version_of(paths.sidecar)
    current = store.find_version(name) if name else None
    if current is None or not current.is_complete:
        raise StoreError(f"{paths.store}: the current colours are not all there; colorize-archive run makes them")
    spec = RunSpec.from_json(current.settings)
    ungraded = store.version(spec.graded_from) if spec.graded_from else current
    lightness, chroma = shrunk(store, ungraded)
    looks = [Variant({}, _rgb(lightness, shrunk(store, current)[1] if spec.graded_from else chroma))]
    looks += _of_network(store, spec, lightness)
    for options in _GRADES:
        if len(looks) == COUNT:
            break
        grade = Grade.parse(**options)
        try:
            factor = factor_for(grade, *sampled(store, ungraded))
        except UsageError:  # a goal that these colours do not reach
            continue
        looks.append(Variant(options, _rgb(lightness, grade.apply(chroma, lightness, factor=factor))))
    return output, paths.store.relative_to(output).as_posix().removesuffix(".zarr"), looks


def shrunk(store: ScanStore, version: ChromaVersion) -> tuple[F32, F32]:
    """(h, w) L* and (2, h, w) a*, b* of a version, as means over squares; the long side is at most 512 px."""
    shape_yx = store.info.shape_yx
    factor = shrinking(shape_yx)
    planes = np.empty((3, *(-(-extent // factor) for extent in shape_yx)), np.float32)
    side = max(_WINDOW_PX, factor)
    for y in range(0, shape_yx[0], side):
        for x in range(0, shape_yx[1], side):
            roi = Roi(y, y + side, x, x + side).clipped(shape_yx)
            colours = chroma_from_half(version.read(roi), version.scale_factor)
            for plane, window in zip(planes, (store.read_lightness(roi), *colours), strict=True):
                means = square_means(np.ascontiguousarray(window), factor)
                plane[y // factor :, x // factor :][: means.shape[0], : means.shape[1]] = means
    return planes[0], planes[1:]


def _rgb(lightness: F32, chroma: F32) -> U8:
    rgb = rgb_from_lab(lightness, np.ascontiguousarray(chroma))
    return np.asarray(np.rint(np.clip(rgb, 0, 1) * 255), np.uint8)


def _of_network(store: ScanStore, spec: RunSpec, lightness: F32) -> Iterator[Variant]:
    """Looks that ask the network; none for a palette that is not its own, or for a model that is not at hand."""
    is_own = not (spec.palette_copy_sha256 or spec.series_sha256) and spec.model in shipped_models()
    model = find_model(spec.model) if is_own else None
    if model is None or model.card.palette is None or spec.engine == "identity":
        return
    with PaletteNetwork(palette_spec(model, processors())) as network:
        card = network.card
        seen = distribution_of(store.read_seen, store.info.shape_yx, card.side_px, card.cells, network.see)
    colours_ab = np.array(card.colours_ab, np.float32)
    shape_yx = lightness.shape[0], lightness.shape[1]
    mean = palette_of(seen, colours_ab, shape_yx, card.gain)
    palettes = []
    for options in _OF_NETWORK:
        # The network's other choices stay as they are in the current version.
        taste = Taste(options.get("vivid", spec.vivid), answer=options.get("answer", spec.answer))
        palette = palette_of(seen, colours_ab, shape_yx, card.gain, taste)
        if np.abs(palette.cells - mean.cells).mean() >= _TOLD_APART:
            palettes.append((options, palette))
    chroma = _coloured(model, lightness, [palette for _, palette in palettes])
    for (options, _), each in zip(palettes, chroma, strict=True):
        yield Variant(options, _rgb(lightness, each))


def _coloured(model: Model, lightness: F32, palettes: list[Palette]) -> Iterator[F32]:
    """The chroma that the generator gives the shrunk scan with each palette, as one tile."""
    height, width = lightness.shape
    multiple = model.card.size_multiple
    tile_yx = tuple(max(_LEAST_SIDE_PX, -(-side // multiple) * multiple) for side in (height, width))
    margin = [(0, 0), (0, tile_yx[0] - height), (0, tile_yx[1] - width)]
    spec = EngineSpec(plain_backend(), str(model.folder), (tile_yx[0], tile_yx[1]), 1, processors())
    with open_engine(spec) as engine:
        for palette in palettes:
            given = np.concatenate([lightness[None], palette.under((0, 0), (height, width))])
            yield engine.predict(np.pad(given, margin, mode="symmetric")[None])[0][:, :height, :width]


def write_sheet(path: Path, output: Path, stem: str, looks: list[Variant]) -> None:
    """Write the looks as one HTML file that holds its pictures. Raises OutputError."""
    cells = []
    for number, look in enumerate(looks, 1):
        _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(look.rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        picture = base64.b64encode(jpeg.tobytes()).decode()
        words = look.command(output, stem) or "as it is"
        cells.append(
            f'<figure><img alt="look {number}" src="data:image/jpeg;base64,{picture}">'
            f"<figcaption>{number}: <code>{escape(words)}</code></figcaption></figure>"
        )
    style = (
        "body{font:14px/1.4 system-ui,sans-serif;margin:1.5em;background:#eee;color:#222}main{display:grid;gap:1em;"
        "grid-template-columns:repeat(auto-fit,minmax(18em,1fr))}figure{margin:0;background:#fff;padding:.6em}"
        "img{width:100%}code{overflow-wrap:anywhere}"
    )
    title = f"Looks of {escape(stem)}"
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{style}</style>'
        f"<h1>{title}</h1><p>At reduced size. Each command makes a version of the whole scan; "
        f"<code>colorize-archive variants {escape(shlex.quote(str(output / stem)))} --take NUMBER</code> runs it.</p>"
        f"<main>{''.join(cells)}</main></html>"
    )
    write_whole(path, page.encode())


def taken(looks: list[Variant], number: int) -> Options:
    """The options of the look of that number. Raises UsageError."""
    if not 1 <= number <= len(looks):
        raise UsageError(f"take {number}: there are looks 1 to {len(looks)} only, and none would be made; give one")
    if not looks[number - 1].options:
        raise UsageError(f"take {number}: that is the current version already; give another number")
    return looks[number - 1].options
