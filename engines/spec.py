"""What a model states about itself, what an engine is, and how to ask for one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from engines.errors import ModelError

MODELS = Path(__file__).parent / "models"
MODEL_FILE = "model.onnx"
INT8_FILE = "int8.onnx"
CARD_FILE = "card.json"
# What an engine computes in. int8 needs a model folder with a quantized file (engines/quantize.py).
PRECISIONS = ("fp32", "fp16", "bf16", "int8")

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class ModelCard:
    """What a model folder's ``card.json`` says; the engine scales its input and output by it.

    Attributes
    ----------
    name, generator : the model's own name; the file name of its generator under ``training/generators``
    lightness_scale, lightness_offset : network input = L* * scale + offset, L* in [0, 100]
    chroma_scale : a*, b* = network output * chroma_scale
    size_multiple : tile height and width must be multiples of this many pixels
    sha256 : of ``model.onnx``
    int8_sha256 : of ``int8.onnx``, the same network with quantize and dequantize nodes; empty without one
    colour_space : what is predicted; "CIELAB a*b*, D65"
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
    colour_space: str = "CIELAB a*b*, D65"
    training: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class Model:
    """A model folder that was checked: its card and its ONNX file."""

    folder: Path
    card: ModelCard

    @property
    def onnx_path(self) -> Path:
        return self.folder / MODEL_FILE

    def onnx_for(self, precision: str) -> Path:
        """The file that an engine of ``precision`` is made from. Raises ModelError where there is none."""
        if precision != "int8":
            return self.onnx_path
        if not self.card.int8_sha256:
            raise ModelError(
                f"model {self.card.name} has no {INT8_FILE}: there is nothing to compute in int8; "
                f"make it with: colorize-archive engines quantize --model {self.folder} --out FOLDER"
            )
        return self.folder / INT8_FILE

    def sha256_for(self, precision: str) -> str:
        """Of :meth:`onnx_for`."""
        return self.card.int8_sha256 if precision == "int8" else self.card.sha256


@dataclass(frozen=True)
class EngineSpec:
    """All that decides a prediction, small enough to send to every worker.

    Attributes
    ----------
    backend : file name under ``engines/backends``
    model_folder : absolute path, readable by every worker
    tile_yx : tile height and width in pixels
    batch : tiles per prediction; the shape is fixed, so that the bytes are too
    threads : processor threads one prediction may use
    streams : predictions that run side by side in one process
    precision : one of PRECISIONS
    """

    backend: str
    model_folder: str
    tile_yx: tuple[int, int]
    batch: int
    threads: int = 1
    streams: int = 1
    precision: str = "fp32"


class Engine(Protocol):
    """A compiled generator. Use as a context manager; :meth:`predict` may be called from several threads."""

    def predict(self, lightness: F32) -> F32:
        """(N, 1, T, U) L* in [0, 100] to (N, 2, T, U) a*, b*, float32; N at most the spec's batch.

        NumPy in, NumPy out, with every engine. One that is :class:`OnDevice` takes arrays of its namespace as well, and
        then gives such back without waiting for the device.
        """
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


@runtime_checkable
class OnDevice(Protocol):
    """What an :class:`Engine` has as well where it says in which memory it works; without it that is NumPy's.

    Blocks are then cut and blended there, and only samples go up and finished chroma comes down.

    Attributes
    ----------
    array_namespace : of the arrays that ``predict`` takes and gives, as :mod:`array_api_compat` names it
    """

    array_namespace: Any

    def to_device(self, array: NDArray[Any]) -> Any:
        """A NumPy array of any number type, and its dtype, in the namespace; it is not written to."""
        ...

    def to_host(self, array: Any) -> NDArray[Any]:
        """An array of the namespace as NumPy, complete."""
        ...


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def shipped_models() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(p.parent.name for p in MODELS.glob(f"*/{CARD_FILE}"))


def find_model(name_or_folder: str) -> Model:
    """A shipped model by name or a model folder by path, its hash checked.

    Raises
    ------
    ModelError : no such model, no or damaged card, or ``model.onnx`` that is not the one the card describes.
    """
    folder = MODELS / name_or_folder if name_or_folder in shipped_models() else Path(name_or_folder)
    if not (folder / CARD_FILE).is_file() or not (folder / MODEL_FILE).is_file():
        raise ModelError(
            f"model {name_or_folder!r}: neither a shipped model ({', '.join(shipped_models())}) "
            f"nor a folder with {MODEL_FILE} and {CARD_FILE}; give one of these"
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
    return Model(folder.resolve(), card)


def _check_hash(path: Path, expected: str) -> None:
    if not path.is_file():
        raise ModelError(f"{path}: the model's card names it and it is not there; export or copy the model again")
    if (actual := file_sha256(path)) != expected:
        raise ModelError(
            f"{path}: hash {actual[:12]} is not the card's {expected[:12]}: the file was changed or damaged; "
            "export or copy the model again"
        )
