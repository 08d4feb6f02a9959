"""The flows' parameters as Prefect's web page shows them: a title, help, choices and ranges for each.

These types say what a form offers and what a server refuses before a run begins; what the flows themselves check, and
how they say it, is in :mod:`flows.settings`. Prefect overwrites a field's title and reads help from docstrings of
another style than ours, so both are given as what they become: keys of the JSON schema.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from engines.select import backend_names
from engines.spec import PRECISIONS
from pipeline.windows import WINDOWS


def shown(title: str, description: str, **schema: Any) -> Any:
    """What a form says of a parameter; ``schema`` are further keys of its JSON schema."""
    return Field(json_schema_extra={"title": title, "description": description, **schema})


def _one_of(*choices: str) -> Any:
    return Field(json_schema_extra={"enum": list(choices)})


Whole = Annotated[int, Field(json_schema_extra={"minimum": 1})]
PIXELS = r"^\d+([xX]\d+)?$"
MEMORY = r"^\d+(\.\d+)?\s*([kKmMgG][iI]?[bB])?$"
Pixels = Annotated[str, Field(json_schema_extra={"pattern": PIXELS})]
PixelsOrWhole = Annotated[str, Field(json_schema_extra={"pattern": f"{PIXELS}|^whole$"})]
Window = Annotated[str, _one_of(*WINDOWS)]
_SCORE = Annotated[float, Field(json_schema_extra={"exclusiveMinimum": 1, "exclusiveMaximum": 100})]

_TILE = shown("Tile", "Pixels: 256, HEIGHTxWIDTH such as 2048x4096, or whole for one tile as large as the scan.")
_STRIDE = shown(
    "Stride",
    "Pixels between tiles, at most a tile; smaller is smoother and slower: half the stride is four times the work. "
    "Nothing: half a tile; in reprocess-archive as it was.",
    examples=[128, 64],
)
_WINDOW = shown("Window", "Weights where tiles overlap: hann, triangle and gaussian hide edges, average is the mean.")
_ANCHOR = shown(
    "Palette of the whole scan", "Take slow changes of colour from the whole scan, so that its tiles agree."
)
_QUALITY = shown(
    "Seam score to reach",
    "Such as 1.05: finer tiles where tiles disagree; the stride is then the coarsest. Nothing or none: no such goal.",
    examples=[1.05],
)
_MODEL = shown("Model", "A shipped model (colorize-archive models), or a folder with model.onnx and card.json.")
_FORMATS = shown(
    "Formats", "Of the pictures: tiff, cog, omezarr, jp2, iiif, png, jpeg, or several with commas: tiff,iiif."
)
_METADATA = shown("Metadata", "Carry over what the scan says beside its pixels (also names and its GPS position).")
_PEM = {"examples": ["/certificates/dask.pem"]}

Inputs = Annotated[
    list[str],
    shown(
        "Scans",
        "Files, folders (searched through) or patterns, as absolute paths of the machine that runs them.",
        minItems=1,
        examples=[["/scans"]],
    ),
]
Output = Annotated[str, shown("Results", "Folder for the results, as an absolute path.", minLength=1)]
Results = Annotated[str, shown("Results", "Folder of the earlier results, as an absolute path.", minLength=1)]
Selection = Annotated[
    list[str] | None,
    shown(
        "Only these scans",
        "Names without ending, patterns, or folders such as albums/; nothing: all.",
        examples=[["1910*", "albums/"]],
    ),
]
WorseThan = Annotated[
    Annotated[float, Field(json_schema_extra={"minimum": 1, "exclusiveMaximum": 100})] | None,
    shown("Only seam scores above", "Such as 1.05: leave alone what shows its grid less than that.", examples=[1.05]),
]
Tile = Annotated[Whole | PixelsOrWhole, _TILE]
NewTile = Annotated[Whole | PixelsOrWhole | None, _TILE]
Stride = Annotated[Whole | Pixels | None, _STRIDE]
WindowName = Annotated[Window, _WINDOW]
NewWindow = Annotated[Window | None, _WINDOW]
Anchor = Annotated[bool, _ANCHOR]
NewAnchor = Annotated[bool | None, _ANCHOR]
Quality = Annotated[_SCORE | str | None, _QUALITY]
ModelName = Annotated[str, _MODEL]
NewModel = Annotated[str | None, _MODEL]
Formats = Annotated[str, _FORMATS]
NewFormats = Annotated[str | None, _FORMATS]
Metadata = Annotated[bool, _METADATA]
NewMetadata = Annotated[bool | None, _METADATA]
Engine = Annotated[
    str,
    shown(
        "Engine",
        "auto takes the fastest backend that runs there; identity is for tests.",
        enum=["auto", *backend_names()],
    ),
]
Precision = Annotated[
    str,
    shown("Precision", "What the engine computes in; auto keeps the picture.", enum=["auto", *PRECISIONS]),
]
Workers = Annotated[
    Annotated[int, Field(json_schema_extra={"minimum": 1, "maximum": 4096})] | Annotated[str, _one_of("auto")],
    shown("Worker processes", "auto, or a number; the processors are shared out among them."),
]
Cluster = Annotated[
    str, shown("Cluster", "local, or cuda: one pinned worker for each GPU of the machine.", enum=["local", "cuda"])
]
Scheduler = Annotated[
    str | None,
    shown(
        "Dask scheduler",
        "Address or scheduler file of a cluster that is already there; nothing: one is made for the run.",
        examples=["tcp://dask:8786"],
    ),
]
TlsCa = Annotated[str | None, shown("TLS authority", "PEM file of who signed the scheduler's certificate.", **_PEM)]
TlsCert = Annotated[str | None, shown("TLS certificate", "PEM file of this client's certificate.", **_PEM)]
TlsKey = Annotated[str | None, shown("TLS key", "PEM file of this client's key.", **_PEM)]
LimitMemory = Annotated[
    Annotated[int, Field(json_schema_extra={"minimum": 1})]
    | Annotated[str, Field(json_schema_extra={"pattern": MEMORY})],
    shown("Memory", "Most that all processes of the run together are planned to use: 2GiB, 1500MB."),
]
Keep = Annotated[
    Whole | Annotated[str, Field(json_schema_extra={"pattern": r"^[1-9]\d*$"})],
    shown("Versions to keep", "Of a scan's colours, the new one among them."),
]
Force = Annotated[bool, shown("Do it again", "Colour scans again whose result is there.")]
Pages = Annotated[
    int | str,
    shown("Pages", "Of files that have several: all, or numbers such as 1,3-5.", examples=["all", "1,3-5"]),
]
Salvage = Annotated[bool, shown("Salvage", "Colour damaged scans too: what cannot be read is plain gray, and listed.")]
Reuse = Annotated[bool, shown("Take over tiles", "Of a version with twice the stride: a quarter less work.")]
UNTIL = r"^\s*(\d{1,2}:\d{2}|\+(\d+h)?(\d+m?)?|\d{4}-.*|none|)\s*$"
Until = Annotated[
    Annotated[str, Field(json_schema_extra={"pattern": UNTIL})] | None,
    shown(
        "Until",
        "When to end, at a block: 06:00 (the next one, the worker's local time), +90m, +8h or an ISO 8601 time. The "
        "next run goes on from there. Nothing: when all is done.",
        examples=["06:00", "+8h"],
    ),
]
QuarantineAfter = Annotated[
    Annotated[int, Field(json_schema_extra={"minimum": 0, "maximum": 1000})]
    | Annotated[str, Field(json_schema_extra={"pattern": r"^\d+$"})],
    shown(
        "Quarantine after",
        "Failures in a row after which later runs leave a scan out until its file changes or it is released; 0: never.",
    ),
]
RetryQuarantined = Annotated[
    bool, shown("Retry all", "Try every scan now, also those that wait after a failure or are quarantined.")
]
