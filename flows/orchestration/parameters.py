"""The flows' parameters, from the table of :mod:`flows.request`: what a form shows, and what a run is asked for.

They define what a form offers and what a server refuses before a run begins; the flows' own checks and their messages
are in :mod:`flows.options`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

from flows.orchestration.forms import Plain, shown
from flows.request import (
    LOOKS,
    SAYS,
    WHAT,
    WHEN,
    WHERE,
    F,
    Parameter,
    ReprocessRequest,
    Request,
    RunRequest,
    parameters_of,
    with_signature,
)

R = TypeVar("R", RunRequest, ReprocessRequest)
_BUTTON_CHARACTERS = 12
_GROUPS = (WHAT, LOOKS, WHEN, WHERE, SAYS)


def words(parameter: Parameter, group: str = "") -> Any:
    """The form field for a parameter of the table, whose title begins with ``group`` if there is one."""
    option = parameter.option
    known = f"Shipped: {', '.join(parameter.choices)}." if parameter.name == "model" else ""
    empty = f"Empty: {parameter.not_given}." if parameter.not_given else ""
    description = " ".join(filter(None, (parameter.help, known, option.form, empty)))
    title = f"{group} \N{MIDDLE DOT} {option.title}" if group else option.title
    more: dict[str, Any] = {"examples": list(option.examples)} if option.examples else {}
    if group and option.form_type is not None and isinstance(parameter.default, str):
        more["default"] = parameter.default.split(",")  # chosen, and not as text
    return shown(title, description, **more)


def taking(request: type[Request]) -> Callable[[F], F]:
    """A decorator that gives a flow of ``**given`` the parameters of a request, group by group."""
    return with_signature(
        inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=each.default,
            annotation=Annotated[_form_type(each), words(each, each.option.panel), Plain(_empty_word(each))],
        )
        for each in sorted(parameters_of(request), key=lambda each: _GROUPS.index(each.option.panel))
    )


def _empty_word(parameter: Parameter) -> str:
    """What None is called on a button: what it means, if that is short."""
    meaning = parameter.not_given
    return meaning[0].upper() + meaning[1:] if 0 < len(meaning) <= _BUTTON_CHARACTERS else "Default"


def _form_type(parameter: Parameter) -> Any:
    other = parameter.option.form_type
    if other is None:
        return parameter.hint
    return other | None if parameter.is_optional else other


def requested(request: type[R], given: Mapping[str, Any]) -> R:
    """The request for what a form or a command gave: several words that were chosen are one text with commas."""
    lists = {each.name for each in parameters_of(request) if each.is_list}

    def as_text(name: str, value: Any) -> Any:
        return ",".join(value) if isinstance(value, list) and name not in lists else value

    return request(**{name: as_text(name, value) for name, value in given.items()})


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
        parse_options(requested(RunRequest, {"inputs": [], **known(RunRequest)}))
    elif flow == "reprocess-archive":
        parse_reprocess(requested(ReprocessRequest, known(ReprocessRequest)))
