"""The one table of the options of ``run`` and ``reprocess``: name, type, default, bounds and help of each.

A request is what a user gives, unchecked; :mod:`flows.options` makes of it what a run works with. From its fields come
the command's options (:mod:`flows.cli.request`), the flows' parameters with Prefect's forms
(:mod:`flows.orchestration.parameters`) and the table in ``docs/usage.md``. Everything heavy is imported late, because
the command reads this file before it knows what is asked of it.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pipeline.endings import FORMATS
from pipeline.palettes import MOST_ANSWERS
from pipeline.tiling.windows import NAMES as WINDOWS

AUTO = "auto"
WHOLE = "whole"
ALL = "all"
NONE = "none"
LOCAL, CUDA = "local", "cuda"
# The groups that help and forms show options in.
WHAT, LOOKS, WHERE, WHEN, SAYS = (
    "What",
    "How it looks",
    "Where it runs",
    "When it stops",
    "What the command says",
)
# Marks a parameter without a default.
REQUIRED = inspect.Parameter.empty
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Schema:
    """Bounds or choices of a type, as further keys of its JSON schema; pydantic asks for them when it makes a form."""

    keys: Callable[[], dict[str, Any]]

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Callable[[Any], dict[str, Any]]) -> Any:
        return {**handler(core_schema), **self.keys()}


@dataclass(frozen=True, eq=False)
class Option:
    """The texts and flags of an option, wherever it is shown.

    Attributes
    ----------
    panel : the group of options that it is shown in
    title : its label in a form
    help : its meaning, as Markdown without links
    more : what only the table in the docs has room for
    flags : on the command line, if it is not its name with hyphens
    metavar : of one that is given by its place on the command line
    off : what undoes a switch, if it is not ``--no-NAME``
    form : what only a form has to say
    examples : for a form
    is_local : only the machine that runs it can tell whether the value is good
    choices : the words of one that takes several of them, or other texts too
    form_type : the type in a form, if it is not that of the table
    """

    panel: str
    title: str
    help: str
    more: str = ""
    flags: tuple[str, ...] = ()
    metavar: str = ""
    off: str = ""
    form: str = ""
    examples: tuple[Any, ...] = ()
    is_local: bool = False
    choices: Callable[[], list[str]] | None = None
    form_type: Any = None


@dataclass(frozen=True)
class NotGiven:
    """What is taken where an option is not given, in words."""

    what: str


@dataclass(frozen=True)
class Parameter:
    """A row of the table: one option of one command.

    ``hint`` is the type with its bounds; ``not_given`` says what a default of None means, if there is anything to say.
    """

    name: str
    hint: Any
    default: Any
    option: Option
    not_given: str = ""

    @property
    def is_switch(self) -> bool:
        return bool in _parts(self.hint)

    @property
    def is_list(self) -> bool:
        return list[str] in _parts(self.hint)

    @property
    def key(self) -> str:
        """Its name in settings files: the long flag without hyphens, or the name that stands for its place."""
        return self.name.replace("_", "-") if self.option.metavar else self.flags[0].split("/")[0].lstrip("-")

    @property
    def choices(self) -> list[str]:
        """The words that it takes, beside numbers or free texts if it takes those too."""
        if self.option.choices is not None:
            return self.option.choices()
        schemas = (part.keys() for part in _parts(self.hint) if isinstance(part, Schema))
        return [word for schema in schemas for word in schema.get("enum", ())]

    @property
    def is_optional(self) -> bool:
        return types.NoneType in _parts(self.hint)

    @property
    def flags(self) -> tuple[str, ...]:
        """On the command line; those of a switch that has two ways are one text with a slash between."""
        name = self.name.replace("_", "-")
        if self.is_switch and (self.default or self.is_optional):
            return (f"--{name}/{self.option.off or f'--no-{name}'}",)
        return self.option.flags or (f"--{name}",)

    @property
    def help(self) -> str:
        """The help without Markdown."""
        return self.option.help.replace("`", "")


_PIXELS = r"^\d+([xX]\d+)?$"
_MEMORY = r"^\d+(\.\d+)?\s*([kKmMgG][iI]?[bB])?$"
_UNTIL = r"^\s*(([01]?\d|2[0-3]):[0-5]\d|\+(\d+h)?(\d+m?)?|\d{4}-.*|none|)\s*$"
_RANGES = r"^\s*(all|\d+(\s*-\s*\d+)?(\s*,\s*\d+(\s*-\s*\d+)?)*)\s*$"


def _windows() -> dict[str, Any]:
    return {"enum": list(WINDOWS)}


def _formats() -> dict[str, Any]:
    names = "|".join(FORMATS)
    return {"pattern": rf"^\s*({names})(\s*,\s*({names}))*\s*$", "title": "As text"}


def _format_names() -> list[str]:
    return list(FORMATS)


def _model_names() -> list[str]:
    from engines.spec import shipped_models

    return list(shipped_models())


def _backends() -> dict[str, Any]:
    from engines.registry import backend_names

    return {"enum": [AUTO, *backend_names()]}


def _precisions() -> dict[str, Any]:
    from engines.spec import PRECISIONS

    return {"enum": [AUTO, *PRECISIONS]}


# The title of a type is what a form calls it where another may be chosen.
Whole = Annotated[int, Schema(lambda: {"minimum": 1})]
Square = Annotated[int, Schema(lambda: {"minimum": 1, "title": "Pixels"})]
Pixels = Annotated[str, Schema(lambda: {"pattern": _PIXELS, "title": "HEIGHTxWIDTH"})]
PixelsOrWhole = Annotated[str, Schema(lambda: {"pattern": f"{_PIXELS}|^whole$", "title": "HEIGHTxWIDTH or whole"})]
Score = Annotated[float, Schema(lambda: {"exclusiveMinimum": 1, "exclusiveMaximum": 100, "title": "Score"})]
NoScore = Annotated[str, Schema(lambda: {"enum": [NONE], "title": "No goal"})]

Inputs = Annotated[
    list[str],
    Schema(lambda: {"minItems": 1}),
    Option(
        WHAT,
        "Scans",
        "Scans, folders (searched through) or patterns, also in object storage: `s3://bucket/folder`.",
        metavar="INPUT...",
        form="As absolute paths of the machine that runs them.",
        examples=(["/scans"],),
        is_local=True,
    ),
]
Output = Annotated[
    str,
    Schema(lambda: {"minLength": 1}),
    Option(
        WHAT,
        "Results",
        "Folder for the results, also in object storage: `s3://bucket/folder`.",
        flags=("--output", "-o"),
        form="As an absolute path.",
    ),
]
Results = Annotated[
    str,
    Schema(lambda: {"minLength": 1}),
    Option(WHAT, "Results", "Folder of earlier results.", metavar="OUTPUT", form="As an absolute path."),
]
Selection = Annotated[
    list[str],
    Option(
        WHAT,
        "Only these scans",
        "Names without ending, patterns, or folders such as `albums/`.",
        metavar="[SCAN]...",
        examples=(["1910*", "albums/"],),
        is_local=True,
    ),
]
Tile = Annotated[
    Square | PixelsOrWhole,
    Option(
        LOOKS,
        "Tile",
        "Tile in pixels: `256`, HEIGHTxWIDTH such as `2048x4096`, or `whole` for one as large as the scan.",
    ),
]
Stride = Annotated[
    Square | Pixels,
    Option(
        LOOKS,
        "Stride",
        "Pixels between tiles, at most a tile; smaller is smoother and slower: half the stride is four times the work.",
        examples=(128, 64),
    ),
]
Window = Annotated[
    str,
    Schema(_windows),
    Option(
        LOOKS,
        "Window",
        "Weights in overlaps: `hann`, `triangle` and `gaussian` hide the edges of tiles, `average` is the plain mean.",
    ),
]
Anchor = Annotated[
    bool,
    Option(
        LOOKS,
        "Palette of the whole scan",
        "Take the palette (slow changes of colour) from the whole scan, so that its tiles agree.",
        "Without, each tile is coloured by what it shows alone: only for models that see nothing but a tile "
        "(`efficientnet-unet`, `pix2pix-unet`, your own), and for models of one fixed size",
    ),
]
Quality = Annotated[
    Score | NoScore,
    Option(
        LOOKS,
        "Seam score to reach",
        "Seam score to reach, such as `1.05`: finer tiles where tiles disagree; the stride is then the coarsest. "
        "`none`: no such goal.",
        "If finer tiles do not reach it, the scan's line says so",
        examples=(1.05,),
    ),
]
Vivid = Annotated[
    float,
    Schema(lambda: {"minimum": 0, "maximum": 1}),
    Option(
        LOOKS,
        "Vivid",
        "Which of the possible colours to take: 0 is their mean, 1 the likeliest alone and half as strong again, and "
        "wrong more often.",
        "About 0.5 is as strong as photographs are",
    ),
]
Cautious = Annotated[
    bool,
    Option(LOOKS, "Cautious", "Fade guesses towards gray.", "What keeps its colour is likely", off="--not-cautious"),
]
Answer = Annotated[
    int,
    Schema(lambda: {"minimum": 1, "maximum": MOST_ANSWERS}),
    Option(
        LOOKS,
        "Answer",
        "Where several colours are possible: 1 takes the best of them, 2 and 3 the next ones. Sure places stay.",
        examples=(2,),
    ),
]
PaletteFrom = Annotated[
    str,
    Schema(lambda: {"minLength": 1}),
    Option(
        LOOKS,
        "Coloured copies",
        "Folder of coloured copies made elsewhere, named as their scans: their colours, the scan's own lightness.",
        "They may be smaller, cropped, shifted and in other tones: see "
        "[coloured copies](#coloured-copies-made-elsewhere)",
        form="As an absolute path.",
        is_local=True,
    ),
]
SeriesOf = Annotated[
    str,
    Schema(lambda: {"minLength": 1}),
    Option(
        LOOKS,
        "Series",
        "Folder of scans that belong together, or a CSV file with the columns scan and series: what several of them "
        "show gets one colour.",
        "See [series](#series)",
        form="As an absolute path.",
        is_local=True,
    ),
]
Hints = Annotated[
    str,
    Schema(lambda: {"minLength": 1}),
    Option(
        LOOKS,
        "Hints",
        "Folder of hints, `NAME.hints.json`: colours that are known of places, which spread to what is alike and near.",
        "See [hints](hints.md)",
        form="As an absolute path.",
        is_local=True,
    ),
]
Lenient = Annotated[
    bool,
    Option(
        LOOKS,
        "Lenient",
        "Scans without a copy (`--palette-from`), or whose copy or hints are refused, are coloured without them.",
        # Whether there are copies at all is known where the run works.
        is_local=True,
    ),
]
Engine = Annotated[
    str,
    Schema(_backends),
    Option(
        WHERE,
        "Engine",
        "A backend (`colorize-archive engines list`); `auto` takes the fastest that runs on the machine, and says so; "
        "`identity` is for tests.",
        "All are in [engines](engines.md)",
    ),
]
Precision = Annotated[
    str,
    Schema(_precisions),
    Option(
        WHERE,
        "Precision",
        "What the engine computes in: `fp32`, `bf16`, `fp16` or `int8`; `auto`: the fastest that keeps the picture.",
        "Which one does is measured on this machine",
    ),
]
Model = Annotated[
    str,
    Option(
        LOOKS,
        "Model",
        "A shipped model (`colorize-archive models`), or a folder with `model.onnx` and `card.json`.",
        is_local=True,
        choices=_model_names,
    ),
]
Saturation = Annotated[
    float,
    Schema(lambda: {"minimum": 0, "maximum": 4}),
    Option(
        LOOKS,
        "Saturation",
        "Factor on the chroma of the colours that are there, 0 to 4: 0 is gray, 1 changes nothing.",
        examples=(0.9,),
    ),
]
Warmth = Annotated[
    float,
    Schema(lambda: {"minimum": -20, "maximum": 20}),
    Option(
        LOOKS,
        "Warmth",
        "CIELAB units towards warmer daylight, -20 to 20; ink and paper stay as they are.",
        "Along the line from D65 to D50, which are 18 apart. It fades out from L\\* 25 to 5 and from 75 to 95, and "
        "ends where the picture does",
        examples=(3,),
    ),
]
HueMap = Annotated[
    str,
    Option(
        LOOKS,
        "Hues to change",
        "Hues with factors, `violet:0.4`, or turned to others, `blue>brown`, with commas between: `red`, `orange`, "
        "`yellow`, `green`, `cyan`, `blue`, `violet`, `magenta`, `brown`.",
        "Factors are 0 to 4; `brown` is a dark orange",
        examples=("violet:0.4, blue>brown",),
    ),
]
Colourfulness = Annotated[
    float,
    Schema(lambda: {"minimum": 0, "maximum": 150}),
    Option(
        LOOKS,
        "Colourfulness to reach",
        "Colourfulness (Hasler and Süsstrunk) to reach by a factor on chroma, 0 to 150: 0 is gray, 33 moderate.",
        "15 is slightly, 45 averagely colourful. The factor is 4 at most, and reaches it to 2 %",
        examples=(28,),
    ),
]
Within = Annotated[
    str,
    Option(
        LOOKS,
        "Only within",
        "Grade only this part of each scan: `x,y,width,height` or a polygon `x,y x,y x,y`, in its pixels, several with "
        "`;` between.",
        "It is added to the grade that the scan has, and takes the place of what was done to the same part",
        examples=("100,80,640,480", "0,0 2400,0 2400,900 0,700"),
    ),
]
Feather = Annotated[
    float,
    Schema(lambda: {"minimum": 0, "maximum": 512}),
    Option(
        LOOKS,
        "Soft edge",
        "Pixels inside the border of `--within` over which the grade fades in; 0 is a hard edge.",
        examples=(20,),
    ),
]
Workers = Annotated[
    Annotated[str, Schema(lambda: {"enum": [AUTO], "title": "By the machine"})]
    | Annotated[int, Schema(lambda: {"minimum": 1, "maximum": 4096, "title": "Number"})],
    Option(
        WHERE,
        "Worker processes",
        "Worker processes, or `auto`; they share the processors.",
        "Those are the processors that this process may use, a container's quota included",
    ),
]
Cluster = Annotated[
    str,
    Schema(lambda: {"enum": [LOCAL, CUDA]}),
    Option(
        WHERE,
        "Cluster",
        "`local`, or `cuda`: one pinned worker for each GPU of the machine.",
        "`cuda` needs `pip install '.[cuda]'`",
        is_local=True,
    ),
]
Scheduler = Annotated[
    str,
    Option(
        WHERE,
        "Dask scheduler",
        "Existing Dask cluster: `tcp://host:8786`, `tls://host:8786` or a scheduler file.",
        examples=("tcp://dask:8786",),
        is_local=True,
    ),
]
Work = Annotated[
    str,
    Schema(lambda: {"minLength": 1}),
    Option(
        WHERE,
        "Work folder",
        "Folder for what is on its way from and to object storage (`s3://bucket/folder` as input or output).",
        "It keeps the sidecars and thumbnails of each such output. See [object storage](object_storage.md)",
        is_local=True,
    ),
]
WorkLimit = Annotated[
    str,
    Schema(lambda: {"pattern": _MEMORY}),
    Option(
        WHERE,
        "Work limit",
        "Most bytes of scans that are fetched from object storage at once; a larger scan comes alone.",
        "The next as many are fetched meanwhile",
    ),
]
_PEM = ("/certificates/dask.pem",)
TlsCa = Annotated[
    str,
    Option(
        WHERE,
        "TLS authority",
        "PEM file of the authority that signed the scheduler's certificate.",
        examples=_PEM,
        is_local=True,
    ),
]
TlsCert = Annotated[
    str, Option(WHERE, "TLS certificate", "PEM file of this client's certificate.", examples=_PEM, is_local=True)
]
TlsKey = Annotated[str, Option(WHERE, "TLS key", "PEM file of this client's key.", examples=_PEM, is_local=True)]
LimitMemory = Annotated[
    Annotated[str, Schema(lambda: {"pattern": f"{_MEMORY}|^auto$", "title": "Size or auto"})]
    | Annotated[int, Schema(lambda: {"minimum": 1, "title": "Bytes"})],
    Option(
        WHERE,
        "Memory",
        "Most memory that the plan may use, all processes together: `2GiB`, `1500MB`; `auto`: by what the machine has.",
        "A run that cannot fit is refused before any work. `auto` is 2 GiB and half a GiB for every processor beyond "
        "two, but at most half of what the machine or its container has; of less than 4 GiB it is 2 GiB, or seven "
        "eighths if that is less",
    ),
]
Keep = Annotated[
    Whole,
    Option(WHAT, "Versions to keep", "Versions of a scan's colours that stay, the new one among them."),
]
FormatText = Annotated[str, Schema(_formats)]
FormatList = Annotated[
    list[Annotated[str, Schema(lambda: {"enum": _format_names()})]], Schema(lambda: {"minItems": 1, "title": "Choose"})
]
Formats = Annotated[
    FormatText,
    Option(
        WHAT,
        "Formats",
        "Of the pictures: `tiff`, `cog`, `omezarr`, `jp2`, `png`, `jpeg`, `iiif`, or several: `tiff,iiif`.",
        "A format that is added later is made from the existing colours",
        flags=("--format",),
        choices=_format_names,
        form_type=FormatList | FormatText,
    ),
]
Metadata = Annotated[
    bool, Option(WHAT, "Metadata", "Carry over what the scan says beside its pixels (also names and its GPS position).")
]
Pages = Annotated[
    Annotated[str, Schema(lambda: {"pattern": _RANGES, "title": "Numbers or all"})]
    | Annotated[int, Schema(lambda: {"minimum": 1, "title": "One page"})],
    Option(
        WHAT,
        "Pages",
        "Of files that have several: `all`, or numbers such as `1,3-5`.",
        "Each page is a scan of its own, `NAME.p001`",
        examples=("all", "1,3-5"),
    ),
]
Salvage = Annotated[
    bool,
    Option(WHAT, "Salvage", "Colour damaged scans too: what cannot be read is plain gray, and listed in the JSON."),
]
Force = Annotated[bool, Option(WHAT, "Do it again", "Read and colour again scans whose result is there.")]
ForceVersions = Annotated[bool, Option(WHAT, "Do it again", "Make versions again that are there.")]
Until = Annotated[
    Annotated[str, Schema(lambda: {"pattern": _UNTIL})],
    Option(
        WHEN,
        "Until",
        "When to end, at a block: `06:00` (the next one, local time), `+90m`, `+8h` or an ISO 8601 time. The next run "
        "goes on from there.",
        "`+90m` counts from when the command was given; in a deployment from the start that was due: a run that comes "
        "late does not get a second night",
        form="Local time is that of the worker.",
        examples=("06:00", "+8h"),
    ),
]
QuarantineAfter = Annotated[
    Annotated[int, Schema(lambda: {"minimum": 0, "maximum": 1000})],
    Option(
        WHEN,
        "Quarantine after",
        "Failures in a row after which later runs leave a scan out until its file changes or it is released; 0: never.",
        "Before that it waits longer after each failure. A scan that is named by itself is always tried. See "
        "[how to release one](#scans-that-keep-failing)",
    ),
]
RetryQuarantined = Annotated[
    bool, Option(WHEN, "Retry all", "Try all scans, also those that wait after a failure or are quarantined.")
]
Reuse = Annotated[
    bool,
    Option(WHAT, "Take over tiles", "Take over the tiles of a version with twice the stride: a quarter less work."),
]
WorseThan = Annotated[
    float,
    Schema(lambda: {"minimum": 1, "exclusiveMaximum": 100}),
    Option(
        WHAT, "Only seam scores above", "Only scans whose seam score is above this, such as `1.05`.", examples=(1.05,)
    ),
]
DryRun = Annotated[bool, Option(SAYS, "Plan only", "Print tiles, megapixels, memory, disk and time; do nothing.")]
Quiet = Annotated[bool, Option(SAYS, "Quiet", "Print only what failed, and warnings.", flags=("--quiet", "-q"))]
Verbose = Annotated[
    bool,
    Option(
        SAYS,
        "Verbose",
        "Print what was decided and why, too: engine, precision, refused backends.",
        flags=("--verbose", "-v"),
    ),
]
LogFile = Annotated[
    str,
    Option(
        SAYS,
        "Log file",
        "File to append the log to.",
        "Each run's log is in `OUTPUT/runs` in any case",
    ),
]
Json = Annotated[
    bool,
    Option(
        SAYS,
        "JSON",
        "Print events as JSON Lines on standard output; with `--dry-run`, the plan.",
        "See [JSON](json.md)",
    ),
]
_AS_IT_WAS = NotGiven("as it was")
_BESIDE = NotGiven("beside the scan or the result")
_NO_OTHER = NotGiven("as it was; none where another of the grade is given")


@dataclass(frozen=True, kw_only=True)
class _Shared:
    """What ``run`` and ``reprocess`` are asked alike."""

    engine: Engine = AUTO
    precision: Precision = AUTO
    workers: Workers = AUTO
    cluster: Cluster = LOCAL
    scheduler: Annotated[Scheduler | None, NotGiven("one is made for the run")] = None
    tls_ca: TlsCa | None = None
    tls_cert: TlsCert | None = None
    tls_key: TlsKey | None = None
    limit_memory: LimitMemory = AUTO
    keep: Keep = 2


@dataclass(frozen=True, kw_only=True)
class RunRequest(_Shared):
    """What ``colorize-archive run`` is asked for, as it was given: numbers may be text."""

    inputs: Inputs
    output: Output
    tile: Tile = 256
    stride: Annotated[Stride | None, NotGiven("7/8 of a tile; half without a palette")] = None
    window: Window = "hann"
    anchor: Anchor = True
    quality: Annotated[Quality | None, NotGiven("none")] = None
    vivid: Vivid = 0
    cautious: Cautious = False
    answer: Answer = 1
    palette_from: Annotated[PaletteFrom | None, NotGiven("the model's own palette")] = None
    hints: Annotated[Hints | None, _BESIDE] = None
    lenient: Lenient = False
    series: Annotated[SeriesOf | None, NotGiven("each scan by itself")] = None
    model: Model = "default"
    formats: Formats = "tiff"
    metadata: Metadata = True
    pages: Pages = ALL
    salvage: Salvage = False
    force: Force = False
    until: Annotated[Until | None, NotGiven("when all is done")] = None
    quarantine_after: QuarantineAfter = 3
    retry_quarantined: RetryQuarantined = False
    work: Annotated[Work | None, NotGiven("in the user's cache")] = None
    work_limit: WorkLimit = "2GiB"


@dataclass(frozen=True, kw_only=True)
class ReprocessRequest(_Shared):
    """What ``colorize-archive reprocess`` is asked for; None stays as it is in each scan's current version."""

    output: Results
    scans: Annotated[Selection | None, NotGiven("all")] = None
    tile: Annotated[Tile | None, _AS_IT_WAS] = None
    stride: Annotated[Stride | None, _AS_IT_WAS] = None
    window: Annotated[Window | None, _AS_IT_WAS] = None
    anchor: Annotated[Anchor | None, _AS_IT_WAS] = None
    quality: Annotated[Quality | None, NotGiven("as it was; none where a stride is given")] = None
    vivid: Annotated[Vivid | None, _AS_IT_WAS] = None
    cautious: Annotated[Cautious | None, _AS_IT_WAS] = None
    answer: Annotated[Answer | None, _AS_IT_WAS] = None
    palette_from: Annotated[PaletteFrom | None, NotGiven("the palette as it was")] = None
    model: Annotated[Model | None, _AS_IT_WAS] = None
    hints: Annotated[Hints | None, _BESIDE] = None
    lenient: Lenient = False
    saturation: Annotated[Saturation | None, _NO_OTHER] = None
    warmth: Annotated[Warmth | None, _NO_OTHER] = None
    hue_map: Annotated[HueMap | None, _NO_OTHER] = None
    colourfulness: Annotated[Colourfulness | None, _NO_OTHER] = None
    within: Annotated[Within | None, NotGiven("the whole scan")] = None
    feather: Annotated[Feather | None, NotGiven("4")] = None
    formats: Annotated[Formats | None, _AS_IT_WAS] = None
    metadata: Annotated[Metadata | None, _AS_IT_WAS] = None
    worse_than: Annotated[WorseThan | None, NotGiven("all")] = None
    force: ForceVersions = False
    reuse: Reuse = True


@dataclass(frozen=True, kw_only=True)
class CommandOptions:
    """What only a command is asked, and no flow: a flow always runs, and what it says is on its page."""

    dry_run: DryRun = False
    quiet: Quiet = False
    verbose: Verbose = False
    log_file: Annotated[LogFile | None, NotGiven("none")] = None
    json: Json = False


Request = RunRequest | ReprocessRequest
# What both commands are asked alike.
SHARED_OPTIONS = frozenset(field.name for part in (_Shared, CommandOptions) for field in fields(part))
# What an address in object storage begins with.
OBJECTS = "s3://"
# What a grade is made of.
GRADE_OPTIONS = ("saturation", "warmth", "hue_map", "colourfulness")
# Where it is done.
REGION_OPTIONS = ("within", "feather")


def names_objects(request: Request) -> bool:
    """True if scans or results of a request are in object storage."""
    inputs = request.inputs if isinstance(request, RunRequest) else []
    return any(str(each).startswith(OBJECTS) for each in (request.output, *inputs))


def parameters_of(request: type[Request | CommandOptions]) -> tuple[Parameter, ...]:
    """The rows of the table for one command, with the options that both commands share at the end."""
    hints = get_type_hints(request, include_extras=True)
    shared = {field.name for field in fields(_Shared)}
    return tuple(
        Parameter(
            name=field.name,
            hint=_without_words(hints[field.name]),
            default=REQUIRED if field.default is MISSING else field.default,
            option=next(part for part in _parts(hints[field.name]) if isinstance(part, Option)),
            not_given=next((part.what for part in _parts(hints[field.name]) if isinstance(part, NotGiven)), ""),
        )
        for field in sorted(fields(request), key=lambda field: field.name in shared)
    )


def _parts(hint: Any) -> list[Any]:
    """A type, and what it is a union of or is annotated with."""
    if get_origin(hint) not in (Annotated, Union, types.UnionType):
        return [hint]
    return [part for each in get_args(hint) for part in _parts(each)]


def _without_words(hint: Any) -> Any:
    """A type with its bounds alone, as one union if it is a union of unions."""
    if get_origin(hint) in (Union, types.UnionType):
        return Union[tuple(map(_without_words, get_args(hint)))]  # noqa: UP007  of a tuple
    if get_origin(hint) is not Annotated:
        return hint
    kind, *notes = get_args(hint)
    bounds = [note for note in notes if not isinstance(note, Option | NotGiven)]
    return Annotated[(_without_words(kind), *bounds)] if bounds else _without_words(kind)


def with_signature(parameters: Iterable[inspect.Parameter]) -> Callable[[F], F]:
    """A decorator that gives a function of ``**given`` a signature with these parameters."""
    signature = inspect.Signature(list(parameters))

    def decorate(function: F) -> F:
        function.__dict__["__signature__"] = signature
        function.__annotations__ = {name: each.annotation for name, each in signature.parameters.items()}
        return function

    return decorate
