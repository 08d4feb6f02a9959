"""The flows' parameters as Prefect's web page shows them: a title, help, choices and ranges for each.

They come from the table of :mod:`flows.request`, and define what a form offers and what a server refuses before a run
begins; the flows' own checks and their messages are in :mod:`flows.options`. Prefect overwrites a field's title and
reads help from docstrings of another style than ours, so both are given directly as keys of the JSON schema.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import Field

from flows.request import F, Parameter, ReprocessRequest, Request, RunRequest, parameters_of, with_signature


def shown(title: str, description: str, **schema: Any) -> Any:
    """A form field with title and description; ``schema`` are further keys of its JSON schema."""
    return Field(json_schema_extra={"title": title, "description": description, **schema})


def words(parameter: Parameter) -> Any:
    """The form field for a parameter of the table."""
    option = parameter.option
    nothing = f"Nothing: {parameter.not_given}." if parameter.not_given else ""
    description = " ".join(filter(None, (parameter.help, option.form, nothing)))
    return shown(option.title, description, **({"examples": list(option.examples)} if option.examples else {}))


def taking(request: type[Request]) -> Callable[[F], F]:
    """A decorator that gives a flow of ``**given`` the parameters of a request."""
    return with_signature(
        inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=each.default,
            annotation=Annotated[each.hint, words(each)],
        )
        for each in parameters_of(request)
    )


def check_parameters(flow: str, given: Mapping[str, Any]) -> None:
    """Refuse, before a flow starts, parameters that it would refuse on any machine.

    A schema cannot express a rule for two parameters, such as a stride no larger than the tile. Values that depend on
    the machine of the run, such as a model's folder, are not checked.

    Raises
    ------
    UsageError : as the flow itself would.
    """
    from flows.options import parse_options
    from flows.run.reprocess_plan import parse_reprocess

    def known(request: type[Request]) -> dict[str, Any]:
        names = [each.name for each in parameters_of(request) if not each.option.is_local]
        return {"output": ".", **{name: given[name] for name in names if name in given}}

    if flow == "colorize-archive":
        parse_options(RunRequest(inputs=[], **known(RunRequest)))
    elif flow == "reprocess-archive":
        parse_reprocess(ReprocessRequest(**known(ReprocessRequest)))
