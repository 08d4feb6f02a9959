"""What Prefect's web page makes of a flow's parameters: fields with a title, help, and choices where there are some.

The page offers every type of a union as a choice and names it in Python's words, unless the type has a title; a value
that may be missing is to it one more type, ``None``, which has to be left before anything can be typed. So in a form
such a parameter is a field that may stay empty: without the type of None, and without a default. A server takes null
for a field without a default all the same, so values from the command line and of older deployments stay good.

A page has no groups for parameters that are not in one another, and these are flat, because they have the names of the
command's options. They stand in the order of the groups, and their titles begin with them.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from prefect import Flow
from prefect.utilities.callables import parameter_schema
from pydantic import Field
from pydantic_core import MISSING

F = TypeVar("F", bound=Flow[Any, Any])
_NULL = {"type": "null"}


def shown(title: str, description: str, **schema: Any) -> Any:
    """A form field with title and description; ``schema`` are further keys of its JSON schema.

    Prefect overwrites a field's title and reads help from docstrings of another style than ours, so both are given
    directly as keys of the JSON schema.
    """
    return Field(json_schema_extra={"title": title, "description": description, **schema})


def with_plain_form(flow: F) -> F:
    """Give a flow a form of plain fields; what it is called with stays as it was."""
    signature = inspect.signature(flow.fn, eval_str=True)
    fields = [_plain(each) for each in signature.parameters.values()]
    # Prefect reads a form from a flow's signature, and calls the function with the function's own.
    vars(flow)["__signature__"] = signature.replace(parameters=fields)
    flow.parameters = parameter_schema(flow)
    return flow


def _plain(parameter: inspect.Parameter) -> inspect.Parameter:
    default = MISSING if parameter.default is None else parameter.default
    return parameter.replace(default=default, annotation=Annotated[parameter.annotation, Plain()])


@dataclass(frozen=True)
class Plain:
    """Marks a parameter whose JSON schema is made plain; pydantic asks for it.

    Attributes
    ----------
    empty : what None is called where it has to stay a choice
    """

    empty: str = "Nothing"

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> Any:
        return plain(handler(core_schema), self.empty)


def plain(schema: dict[str, Any], empty: str = "Nothing") -> dict[str, Any]:
    """A JSON schema in which None is no choice of its own, wherever the page and the server can do without.

    >>> plain({"anyOf": [{"type": "string", "minLength": 1}, {"type": "null"}]})
    {'type': 'string', 'minLength': 1}
    >>> plain({"anyOf": [{"type": "string", "enum": ["hann"]}, {"type": "null"}]})
    {'type': 'string', 'enum': ['hann', None]}
    """
    kinds = schema.get("anyOf", [])
    if _NULL not in kinds:
        return schema
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    others = [kind for kind in kinds if kind != _NULL]
    if len(others) > 1:
        return {**rest, "anyOf": [*others, {**_NULL, "title": empty}]}
    (only,) = others
    if only["type"] == "boolean":
        # A switch that is shown has been switched: the first of several is what an empty field shows.
        return {**rest, "anyOf": [{**_NULL, "title": empty}, {**only, "title": "On or off"}]}
    if "enum" in only:
        only = {**only, "enum": [*only["enum"], None]}
    return {**rest, **{key: value for key, value in only.items() if key != "title"}}
