"""The keys of what commands print with ``--json``, as ``python -m flows.cli.json_schema`` prints them for the docs.

No command imports this: tests hold what commands print against it.
"""

from __future__ import annotations

from types import UnionType
from typing import Annotated, Any, Literal, NotRequired, Required, get_args, get_origin, get_type_hints

# Pydantic, which holds objects against these, wants this one before Python 3.12.
from typing_extensions import TypedDict

Facts = dict[str, Any]


class Object(TypedDict):
    """What every object has."""

    command: Annotated[str, "the command that printed it, such as `engines list`"]
    format: Annotated[int, "of these outputs, 1; raised when a key changes its meaning or goes"]


class Status(Object):
    output: Annotated[str, "the folder"]
    scans: Annotated[dict[str, int], "number of scans: `all`, and by state"]
    megapixels: Annotated[float, "of the scans that are done"]
    failed: Annotated[list[Facts], "scans: `scan`, `path`, `page`, `reason`, `failures`, `retry_after`, `run`"]
    quarantined: Annotated[list[Facts], "the same"]
    stopped: Annotated[list[Facts], "the same"]
    runs: Annotated[list[Facts], "the last one first, as in the catalogue"]
    versions: Annotated[list[Facts], "as in the catalogue"]


class Verify(Object):
    certificates: Annotated[list[Facts], "one a picture: `passes`, `picture`, `problems`, lightness and its bounds"]


class Diff(Object):
    old: Annotated[str, "a version"]
    new: Annotated[str, "the version that it is compared with"]
    shape_yx: Annotated[list[int], "pixels"]
    pixels: Annotated[int, "that were compared"]
    step_px: Annotated[int, "1: every pixel was"]
    ciede2000: Annotated[dict[str, float], "`mean`, `median`, `p95`, `p99`, `max`, shares above 1 and 5"]
    mean_chroma: Annotated[dict[str, float], "`old` and `new`"]
    worst: Annotated[list[Facts], "windows `[y0, y1, x0, x1]` where they differ most"]


class Inspect(Object):
    path: Annotated[str, "as it was given"]
    facts: Annotated[dict[str, Any], "names and values, as the command prints them; several lines are a list"]
    map: NotRequired[Annotated[str, "what the map of `--map` shows"]]
    at: NotRequired[Annotated[list[str], "what is possible at the pixel of `--at`"]]


class Models(Object):
    models: Annotated[list[Facts], "`name`, `generator`, `size_multiple_px`"]


class Recipes(Object):
    recipes: Annotated[list[Facts], "`name`, `generator` (null for a palette), `description`"]


class Decisions(Object):
    decisions: Annotated[list[Facts], "of people: `scan`, `version`, `decision`, `reason`, `person`, `when`, `note`"]


class DecisionsTaken(Object):
    """Of ``decisions --import``."""

    taken: Annotated[int, "decisions that are new"]
    there: Annotated[int, "that were there already"]
    refused: Annotated[list[str], "a line for each line of the table that was refused"]


class Variants(Object):
    output: Annotated[str, "the folder of all results"]
    scan: Annotated[str, "its name without ending"]
    sheet: Annotated[str, "the page with the looks"]
    looks: Annotated[list[Facts], "`number`, `options` of reprocess, `command`; empty for the current version"]


class Hint(Object):
    file: Annotated[str, "that holds the hints"]
    shape_yx: Annotated[list[int], "pixels of the scan"]
    hints: Annotated[list[Facts], "all of them, as in the file"]


class _Sent(Object):
    counts: Annotated[dict[str, int], "of scans: `new`, `changed`, `same`, `withdrawn`, `kept`, `failed`"]
    scans: Annotated[list[Facts], "`scan`, `state`, and the `reason` where there is one"]


class Publish(_Sent):
    site: Annotated[str, "its folder"]
    base_url: Annotated[str, "the address that it is served at"]
    is_written: Annotated[bool, "false with `--check`"]
    withdrawn: Annotated[list[Facts], "from among the results: `scan`, `version`, `source_sha256`, `removed`, `reason`"]


class Package(_Sent):
    package: Annotated[str, "its folder"]
    kind: Annotated[str, "`bagit`, `ocfl` or `archivematica`"]


class Sign(_Sent):
    output: Annotated[str, "the folder"]


class Catalogue(Object):
    file: Annotated[str, "that was written"]
    results: Annotated[int, "in it"]
    unread: Annotated[list[str], "a line for each result that cannot be read"]


class Evaluate(Object):
    data: Annotated[str, "the folder of photographs"]
    out: Annotated[str | None, "the folder with table, sheets and quiz"]
    rows: Annotated[list[Facts], "baselines and models, with the keys of `table.json`"]


class Quiz(Object):
    people: Annotated[int, "who answered"]
    answers: Annotated[int, "of all people"]
    right: Annotated[int, "of them"]
    kinds: Annotated[list[Facts], "`colours`, `taken_for_real`, `answers`, `interval` and `people_mean` as shares"]


class Clean(Object):
    output: Annotated[str, "the folder"]
    is_removed: Annotated[bool, "false with `--dry-run`"]


class Doctor(Object):
    is_well: Annotated[bool, "nothing is wrong"]
    findings: Annotated[list[Facts], "`topic`, `name`, `value`, `trouble`, `remedy`"]


class ConfigShow(Object):
    files: Annotated[list[str], "settings files that count, the nearest one first"]
    options: Annotated[list[Facts], "`command`, `option`, `value`, `source`: `default`, a variable or a file"]


class EnginesList(Object):
    backends: Annotated[list[Facts], "`backend`, `version` (empty: not usable), `precisions`, `palette`, `note`"]
    auto: Annotated[Facts, "what `auto` takes: `backend`, `version`, `precision`, `reason`"]
    palette: NotRequired[Annotated[Facts, "the same for the palette"]]
    files: Annotated[list[str], "compiled engines"]


class EnginesInspect(Object):
    facts: Annotated[Facts, "what the file was built from and for"]


class EnginesCheck(Object):
    engines: Annotated[list[Facts], "`engine`, and `parity` with the reference, or the reason why there is none"]


class EnginesBench(Object):
    speeds: Annotated[list[Facts], "one for each engine: `tiles_per_s`, `megapixels_per_s`, `share_of_floor`"]
    left_out: Annotated[list[str], "why others were not measured"]


class Plan(Object):
    """Of ``run --dry-run`` and ``reprocess --dry-run``."""

    engine: Annotated[str, "engine and precision, with the reason"]
    model: Annotated[str, "empty where no network is asked"]
    scans: Annotated[list[Facts], "`scan`, `megapixels`, `tiles`, `blocks`, `memory_bytes`, `disk_bytes`, `seconds`"]
    total: Annotated[Facts, "the same for all together"]
    others: Annotated[list[Facts], "scans that are skipped or fail, as in the run's record"]


class Event(TypedDict, total=False):
    """A line of ``run --json`` and ``reprocess --json``."""

    event: Required[Annotated[str, "`begin`, `message`, `planned`, `stage`, `progress`, `finished` or `end`"]]
    time: Required[Annotated[str, "ISO 8601, UTC"]]


class Begin(Event):
    command: Annotated[str, "`run` or `reprocess`"]
    format: Annotated[int, "as above"]


class MessageEvent(Event):
    text: Annotated[str, "one line"]
    is_warning: Annotated[bool, "something is wrong"]


class Planned(Event):
    scan: Annotated[str, "its name without ending"]
    tiles: Annotated[int, "to predict"]
    megapixels: Annotated[float, "of the scan"]
    batch: Annotated[str, "of the scans that are coloured together"]


class Stage(Event):
    scan: Annotated[str, "its name"]
    stage: Annotated[Literal["reading", "colouring", "writing"], "that has begun"]


class Progress(Event):
    """At most once a second."""

    scans: Annotated[int, "that are planned"]
    scans_done: Annotated[int, "that have ended"]
    tiles: Annotated[int, "to make"]
    tiles_done: Annotated[int, "of them"]
    share: Annotated[float, "that is done, 0 to 1"]
    megapixels_per_second: Annotated[float | None, "lately"]
    seconds_left: Annotated[float | None, "null until it can be told"]
    in_work: Annotated[list[Facts], "scans: `name`, `stage`, `share`"]


class End(Event):
    exit_code: Annotated[int, "of the command"]


OBJECTS: dict[str, type] = {
    "run --dry-run": Plan,
    "status": Status,
    "verify": Verify,
    "diff": Diff,
    "inspect": Inspect,
    "models": Models,
    "recipes": Recipes,
    "decisions": Decisions,
    "decisions --import": DecisionsTaken,
    "variants": Variants,
    "hint": Hint,
    "publish": Publish,
    "package": Package,
    "sign": Sign,
    "catalogue": Catalogue,
    "evaluate": Evaluate,
    "quiz": Quiz,
    "clean": Clean,
    "doctor": Doctor,
    "config show": ConfigShow,
    "engines list": EnginesList,
    "engines inspect": EnginesInspect,
    "engines check": EnginesCheck,
    "engines bench": EnginesBench,
}
EVENTS: dict[str, type] = {
    "begin": Begin,
    "message": MessageEvent,
    "planned": Planned,
    "stage": Stage,
    "progress": Progress,
    "end": End,
}
# Whose other keys are those of another table: an outcome in a run's record, or what the house keeps elsewhere.
OPEN = ("finished", "clean")


def keys_of(schema: type, beside: type | None = None) -> dict[str, tuple[Any, str]]:
    """Type and meaning of each key, without those of ``beside``."""
    known = () if beside is None else get_type_hints(beside)
    found = {}
    for name, hint in get_type_hints(schema, include_extras=True).items():
        while get_origin(hint) in (Required, NotRequired):
            (hint,) = get_args(hint)
        if name not in known:
            kind, *notes = get_args(hint)
            found[name] = kind, str(notes[0])
    return found


def _name(kind: Any) -> str:
    """A type in the words of JSON."""
    if get_origin(kind) is Literal:
        return "string"
    if isinstance(kind, UnionType):
        return " or ".join(map(_name, get_args(kind)))
    words = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
    if get_origin(kind) is list:
        return f"array of {_name(get_args(kind)[0])}s"
    return words.get(kind, "object")


def tables() -> str:
    """All tables in Markdown."""
    parts = ["| key | type | of every object |", "|---|---|---|", *_rows(Object, None)]
    for command, schema in OBJECTS.items():
        parts += ["", f"### {command}", "", "| key | type | meaning |", "|---|---|---|", *_rows(schema, Object)]
    parts += ["", "### Events", "", "| event | key | type | meaning |", "|---|---|---|---|"]
    parts += [f"| every one {row}" for row in _rows(Event, None)]
    for event, schema in EVENTS.items():
        parts += [f"| `{event}` {row}" for row in _rows(schema, Event)]
    parts.append("| `finished` | | | the outcome of a scan, with the keys of `scans` in a run's record |")
    return "\n".join(parts)


def _rows(schema: type, beside: type | None) -> list[str]:
    return [f"| `{name}` | {_name(kind)} | {note} |" for name, (kind, note) in keys_of(schema, beside).items()]


if __name__ == "__main__":
    print(tables())
