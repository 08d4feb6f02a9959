"""The flow ``build-engines``: what ``colorize-archive engines build`` does, for several models and precisions."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import Field

from engines.spec import PRECISIONS
from flows.orchestration.forms import shown, with_plain_form
from flows.orchestration.parameters import words
from flows.orchestration.states import as_end
from flows.orchestration.subprocess_log import run_logged
from flows.request import Engine, Pixels, RunRequest, Square, Whole, parameters_of

SOME_NOT_BUILT = "Some engines were not built"

Models = Annotated[
    list[str],
    shown("Models", "Shipped models (colorize-archive models), or model folders as absolute paths.", minItems=1),
]
Precisions = Annotated[
    list[Annotated[str, Field(json_schema_extra={"enum": ["auto", *PRECISIONS]})]],
    shown("Precisions", "Each is built; auto: the first that the backend has.", minItems=1),
]
Backend = Annotated[Engine, *(words(each) for each in parameters_of(RunRequest) if each.name == "engine")]
TileSize = Annotated[Square | Pixels, shown("Tile", "Pixels: 256, or HEIGHTxWIDTH such as 2048x4096.")]
Batch = Annotated[Whole | None, shown("Batch", "Tiles a prediction; empty: as a run has it.")]
Anew = Annotated[bool, shown("Build again", "Also where the file is there.")]


@with_plain_form
@flow(name="build-engines", persist_result=False)
def build_engines(
    models: Models = ["default"],  # noqa: B006  nobody changes it, and the form shows it
    engine: Backend = "auto",
    precisions: Precisions = ["auto"],  # noqa: B006
    tile: TileSize = 256,
    batch: Batch = None,
    force: Anew = False,
) -> State[Any]:
    """Compile engines on the machine that runs this, so that no run waits for it.

    Parameters
    ----------
    models : shipped models by name, or model folders
    engine : auto, or a backend
    precisions : of each model; auto takes the backend's first
    tile : tile size in pixels
    batch : tiles a prediction
    force : build what is there again
    """
    say = get_run_logger().info
    failures = []
    for model in models:
        for precision in precisions:
            words = ["engines", "build", "--model", model, "--backend", engine, "--precision", precision]
            words += ["--tile", str(tile), *(["--batch", str(batch)] if batch else []), *(["--force"] if force else [])]
            ended = run_logged(words, say)
            failures += [ended.last_line] if ended.code else []
    if failures:
        return as_end(Failed(message="; ".join(failures), name=SOME_NOT_BUILT))
    return Completed(message=f"{len(models) * len(precisions)} engines are there")
