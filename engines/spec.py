"""Model cards, the interface of an engine, and the specification of one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

from engines.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]

MODELS = Path(__file__).parent / "models"
MODEL_FILE = "model.onnx"
INT8_FILE = "int8.onnx"
PALETTE_FILE = "palette.onnx"
SHARED = MODELS / "shared"  # stems that several models use
CARD_FILE = "card.json"
# An engine or a number format that is chosen for the user.
AUTO = "auto"
# Number formats of an engine. int8 needs a model folder with a quantized file (engines/convert/quantize.py).
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
# The networks of a model: the generator colours a tile, the palette network computes a scan's palette.
GENERATOR, PALETTE = "generator", "palette"


@dataclass(frozen=True)
class PaletteCard:
    """The network beside a generator that predicts the colours of a whole scan: a stem, and a head on its tokens.

    The stem takes (N, 1, side_px, side_px) sRGB-encoded gray in [0, 1]; the head returns (N, K, cells, cells) logits,
    one for each of K colours.

    Attributes
    ----------
    stem, stem_sha256 : file of the stem, in the model's folder or among those that shipped models share
    sha256 : hash of ``palette.onnx``, the head
    side_px, cells : sides of the input square and of the output grid
    colours_ab : K pairs of a*, b*
    temperature : temperature of the softmax; below 1 is bolder
    gain : factor of the mean colours
    scan_doubt, cell_doubt : calibration of the distribution's spread, for whole scans and for cells: the lines of
        :class:`pipeline.palettes.doubt.Calibration`, spreads, expected, low and high; empty if not measured
    """

    stem: str
    stem_sha256: str
    sha256: str
    side_px: int
    cells: int
    colours_ab: tuple[tuple[float, float], ...]
    temperature: float = 1.0
    gain: float = 1.0
    scan_doubt: tuple[tuple[float, ...], ...] = ()
    cell_doubt: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        for name in ("colours_ab", "scan_doubt", "cell_doubt"):  # JSON has lists
            lines = tuple(tuple(float(value) for value in line) for line in getattr(self, name))
            object.__setattr__(self, name, lines)

    @cached_property
    def network_sha256(self) -> str:
        """Hash of all that decides its colours: stem, head, and how its distribution is read."""
        deciding = (self.stem_sha256, self.sha256, self.colours_ab, self.temperature, self.gain)
        return hashlib.sha256(json.dumps(deciding).encode()).hexdigest()

    @property
    def has_doubt(self) -> bool:
        """True if the error of its colours was measured."""
        return bool(self.scan_doubt and self.cell_doubt)


@dataclass(frozen=True)
class ModelCard:
    """The contents of a model folder's ``card.json``; the engine scales its input and output by it.

    Attributes
    ----------
    name, generator : the model's own name; the file name of its generator under ``training/generators``
    lightness_scale, lightness_offset : network input = L* * scale + offset, L* in [0, 100]
    chroma_scale : a*, b* = network output * chroma_scale
    size_multiple : tile height and width must be multiples of this many pixels
    sha256 : hash of ``model.onnx``
    int8_sha256 : hash of ``int8.onnx``, the same network with quantize and dequantize nodes; empty if there is none
    takes_palette : the network has three input channels: lightness, and a palette's a*, b* over ``chroma_scale``
    palette : the palette network; a model may take a palette without having such a network
    colour_space : colour space of the predictions; "CIELAB a*b*, D65"
    training : recipe, steps, data, licences, figures: free JSON for people
    """

    name: str
    generator: str
    lightness_scale: float
    lightness_offset: float
    chroma_scale: float
    size_multiple: int
    sha256: str
    int8_sha256: str = ""
    takes_palette: bool = False
    palette: PaletteCard | None = None
    colour_space: str = "CIELAB a*b*, D65"
    training: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.palette, dict):
            object.__setattr__(self, "palette", PaletteCard(**self.palette))

    @property
    def channels(self) -> int:
        """Channels of the network's input."""
        return 3 if self.takes_palette else 1

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class Model:
    """A checked model folder, seen as one of its networks: that network's card and its ONNX files."""

    folder: Path
    card: ModelCard
    network: str = GENERATOR

    @property
    def onnx_path(self) -> Path:
        return self.folder / MODEL_FILE

    def onnx_for(self, precision: str) -> Path:
        """The file for an engine of ``precision``. Raises ModelError if there is none."""
        if precision != "int8":
            return self.onnx_path
        if not self.card.int8_sha256:
            raise ModelError(
                f"model {self.card.name} has no {INT8_FILE}: there is nothing to compute in int8; "
                f"make it with: colorize-archive engines quantize --model {self.folder} --out FOLDER"
            )
        return self.folder / INT8_FILE

    def files_for(self, precision: str) -> tuple[Path, ...]:
        """All files of the network; each takes the output of the previous one. Raises ModelError."""
        return self.palette_paths() if self.network == PALETTE else (self.onnx_for(precision),)

    def as_network(self, network: str) -> Model:
        """The model as its generator, which is the default, or as its palette network.

        The palette network takes (N, 1, side_px, side_px) sRGB-encoded gray in [0, 1] and returns (N, K, cells, cells)
        logits, so its card scales nothing. Raises ModelError if there is none.
        """
        if network == self.network:
            return self
        self.palette_paths()
        palette = self.card.palette
        assert palette is not None
        card = ModelCard(
            name=f"{self.card.name}-{PALETTE}",
            generator="",
            lightness_scale=1.0,
            lightness_offset=0.0,
            chroma_scale=1.0,
            size_multiple=palette.side_px,
            sha256=palette.network_sha256,
            palette=palette,
            colour_space="logits of colours",
        )
        return Model(self.folder, card, PALETTE)

    def output_shape(self, tile_yx: tuple[int, int]) -> tuple[int, int, int]:
        """Shape of the network's output for one tile: planes, rows, columns."""
        if self.network == PALETTE and self.card.palette is not None:
            return len(self.card.palette.colours_ab), self.card.palette.cells, self.card.palette.cells
        return 2, *tile_yx

    def palette_paths(self) -> tuple[Path, Path]:
        """The files of the palette network: its stem and its head. Raises ModelError if there is none."""
        if self.card.palette is None:
            raise ModelError(f"model {self.card.name} has no palette network; give a model that has one")
        own = self.folder / self.card.palette.stem
        return own if own.is_file() else SHARED / self.card.palette.stem, self.folder / PALETTE_FILE

    def sha256_for(self, precision: str) -> str:
        """Hash of the file of :meth:`onnx_for`."""
        return self.card.int8_sha256 if precision == "int8" else self.card.sha256


@dataclass(frozen=True)
class EngineSpec:
    """All that decides a prediction, small enough to send to every worker.

    Attributes
    ----------
    backend : file name under ``engines/backends``
    model_folder : absolute path, readable by every worker
    tile_yx : tile height and width in pixels
    batch : tiles per prediction; a fixed shape, for reproducible bytes
    threads : processor threads that one prediction may use
    streams : predictions that run side by side in one process
    precision : one of PRECISIONS
    network : GENERATOR or PALETTE; the tile of the latter is its input square
    """

    backend: str
    model_folder: str
    tile_yx: tuple[int, int]
    batch: int
    threads: int = 1
    streams: int = 1
    precision: str = "fp32"
    network: str = GENERATOR


class Engine(Protocol):
    """A compiled network. Use as a context manager; :meth:`predict` may be called from several threads."""

    def predict(self, lightness: F32) -> F32:
        """(N, 1, T, U) L* in [0, 100] to (N, 2, T, U) a*, b*, float32; N at most the spec's batch.

        For a model that takes a palette the input is (N, 3, T, U): L*, and the palette's a*, b* under each tile. For a
        palette network, see :meth:`Model.as_network`.

        Every engine accepts NumPy arrays and then returns NumPy arrays. An engine that is :class:`OnDevice` accepts
        arrays of its namespace too, and then returns such arrays without waiting for the device.
        """
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


@runtime_checkable
class OnDevice(Protocol):
    """Additional members of an :class:`Engine` that works in device memory; without them it works in NumPy's.

    Blocks are then cut and blended on the device; only samples are uploaded and finished chroma is downloaded.

    Attributes
    ----------
    array_namespace : namespace of the arrays that ``predict`` takes and returns, from :mod:`array_api_compat`
    """

    array_namespace: Any

    def to_device(self, array: NDArray[Any]) -> Any:
        """Upload a NumPy array of any numeric dtype, which is kept; the result is not written to."""
        ...

    def to_host(self, array: Any) -> NDArray[Any]:
        """Download an array of the namespace to NumPy, after waiting for it."""
        ...


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def shipped_models() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(p.parent.name for p in MODELS.glob(f"*/{CARD_FILE}"))


def find_model(name_or_folder: str) -> Model:
    """A shipped model by name, or a model folder by path; its hash is checked.

    Raises
    ------
    ModelError : no such model, no or damaged card, or ``model.onnx`` that is not the one the card describes.
    """
    folder = MODELS / name_or_folder if name_or_folder in shipped_models() else Path(name_or_folder)
    if not (folder / CARD_FILE).is_file() or not (folder / MODEL_FILE).is_file():
        raise ModelError(
            f"model {name_or_folder!r}: neither a shipped model ({', '.join(shipped_models())}) "
            f"nor a folder with {MODEL_FILE} and {CARD_FILE}; give one of these",
            "model",
        )
    try:
        card = ModelCard(**json.loads((folder / CARD_FILE).read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ModelError(f"{folder / CARD_FILE}: not a model card ({error}); export the model again") from error
    except OSError as error:
        raise ModelError(f"{folder}: cannot be read ({error.strerror}); check its permissions") from error
    _check_hash(folder / MODEL_FILE, card.sha256)
    if card.int8_sha256:
        _check_hash(folder / INT8_FILE, card.int8_sha256)
    model = Model(folder.resolve(), card)
    if card.palette:
        for path, sha256 in zip(model.palette_paths(), (card.palette.stem_sha256, card.palette.sha256), strict=True):
            _check_hash(path, sha256)
    return model


def _check_hash(path: Path, expected: str) -> None:
    if not path.is_file():
        raise ModelError(f"{path}: the model's card names it and it is not there; export or copy the model again")
    if (actual := file_sha256(path)) != expected:
        raise ModelError(
            f"{path}: hash {actual[:12]} is not the card's {expected[:12]}: the file was changed or damaged; "
            "export or copy the model again"
        )
