"""``prefect deployment run colorize-archive``: a deployment by its bare name, if only one has that name.

Prefect's command wants FLOW/DEPLOYMENT. Its plugins (entry point group ``prefect.plugins``, enabled by the setting
``PREFECT_PLUGINS_ENABLED``) run before a command reads its arguments, so this one replaces the bare name by the whole
one. It also refuses at once parameters that one of our flows would refuse only after a worker has begun the run. In
every other process that imports Prefect, it looks at the arguments and does nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect.plugins import register_hook

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.plugins import HookContext

_GROUPS = ("deployment", "deployments")
# A placeholder for the whole name while searching for the position of the bare one.
_WHOLE = "flow/deployment"
_MOST_NAMED = 20
# Prefect ends the hooks of plugins after 20 s, and would go on with the bare name. A server whose database is busy says
# so, and its client asks again until then.
_PATIENCE_S = 180.0
# Flows whose parameters are checked before a run is created.
_CHECKED = ("colorize-archive", "reprocess-archive")
# Prefect's command replaces these before it parses, because its parser would split them.
_LONG_FORMS = {"-jv": "--job-variable", "-cl": "--concurrency-limit"}


@register_hook
async def setup_environment(*, ctx: HookContext) -> None:
    """Complete the deployment's name in this process's arguments, and check the parameters of a run of ours."""
    if tokens := _tokens():
        await _complete_and_check(tokens, ctx.api_url)


async def _complete_and_check(tokens: list[str], url: str | None) -> None:
    import anyio

    place = _place_of_name(tokens)
    try:
        with anyio.fail_after(_PATIENCE_S, shield=True):
            if place is not None:
                sys.argv[place + 1] = tokens[place] = await _whole_name(tokens[place], _profile(tokens), url)
            if asked := _run_of_ours(tokens):
                await _check(*asked, _profile(tokens))
    except TimeoutError as error:
        raise _end(
            f"the Prefect server {url or ''} gave no answer in {_PATIENCE_S:.0f} s, nothing was started; try again "
            "when it is less busy, or see its log"
        ) from error


def _tokens() -> list[str]:
    """Arguments of ``prefect`` or ``python -m prefect`` if they are about deployments, else none."""
    is_command = Path(sys.argv[0]).stem == "prefect" or (
        # Python has not yet replaced "-m" by the module's path.
        sys.argv[0] == "-m" and [*sys.orig_argv, "", ""][sys.orig_argv.index("-m") + 1] == "prefect"
    )
    return sys.argv[1:] if is_command and any(group in sys.argv[1:] for group in _GROUPS) else []


def _global_options(tokens: list[str]) -> int:
    """How many tokens come before the command."""
    count = 0
    while count < len(tokens) and tokens[count].startswith("-"):
        count += 2 if tokens[count] in ("-p", "--profile") else 1
    return count


def _profile(tokens: list[str]) -> str | None:
    before = tokens[: _global_options(tokens)]
    for option, value in zip(before, [*before[1:], ""], strict=False):
        if option in ("-p", "--profile"):
            return value
        if option.startswith("--profile="):
            return option.partition("=")[2]
    return None


def _place_of_name(tokens: list[str]) -> int | None:
    """Which of ``tokens`` is a bare deployment name, as Prefect's own parser sees it; None if there is none."""
    start = _global_options(tokens)
    if tokens[start : start + 1] == [] or tokens[start] not in _GROUPS or "--help" in tokens:
        return None
    from prefect.cli.deployment import deployment_app

    words = [_LONG_FORMS.get(token, token) for token in tokens[start + 1 :]]
    for place, word in enumerate(words):
        if word.startswith("-") or "/" in word:
            continue
        if _name_in(deployment_app, [*words[:place], _WHOLE, *words[place + 1 :]]) == _WHOLE:
            return start + 1 + place
    return None


def _arguments(app: Any, words: list[str]) -> dict[str, Any]:
    """The arguments of a command by name; empty if they are invalid, which Prefect will report itself."""
    from cyclopts import CycloptsError

    try:
        _, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    except CycloptsError:
        return {}
    arguments: dict[str, Any] = bound.arguments
    return arguments


def _name_in(app: Any, words: list[str]) -> str | None:
    """The deployment's name in a command; None if there is none."""
    arguments = _arguments(app, words)
    return arguments.get("name") or arguments.get("deployment_name")


def _run_of_ours(tokens: list[str]) -> tuple[str, dict[str, Any]] | None:
    """FLOW/DEPLOYMENT and the parameters of a command that starts one of our flows; None for all other commands."""
    start = _global_options(tokens)
    if tokens[start + 1 : start + 2] != ["run"] or "--help" in tokens:
        return None
    from prefect.cli.deployment import deployment_app

    arguments = _arguments(deployment_app, [_LONG_FORMS.get(token, token) for token in tokens[start + 1 :]])
    name, several = str(arguments.get("name") or ""), arguments.get("multiparams")
    if name.partition("/")[0] not in _CHECKED or several == "-":
        return None
    try:
        given = dict(json.loads(several)) if several else {}
        for each in arguments.get("params") or ():
            key, _, value = each.partition("=")
            given[key] = _value(value)
    except (TypeError, ValueError):
        return None  # Prefect will report what is wrong
    return name, given


def _value(text: str) -> Any:
    """A value as Prefect reads it: JSON if it parses, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


async def _check(name: str, given: dict[str, Any], profile: str | None) -> None:
    """End the command with one line if the run itself would refuse its parameters after a worker has begun it."""
    import httpx
    from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

    from flows.orchestration.parameters import check_parameters
    from pipeline.errors import ColorizeError

    try:
        async with _client(profile, name) as client:
            deployment = await client.read_deployment_by_name(name)
    except (httpx.HTTPError, PrefectHTTPStatusError, ObjectNotFound):
        return  # Prefect will report it
    try:
        check_parameters(name.partition("/")[0], {**deployment.parameters, **given})
    except ColorizeError as error:
        raise _end(f"deployment {name!r}: {error}; nothing was started") from error
    except Exception:
        return  # a value of the wrong type, which the server refuses by its schema


async def _whole_name(name: str, profile: str | None, url: str | None) -> str:
    """FLOW/DEPLOYMENT of the only deployment called ``name``; if there is none or several, ends with one line."""
    import httpx
    from prefect.exceptions import PrefectHTTPStatusError

    from pipeline.support.text import reason_of

    try:
        async with _client(profile, name) as client:
            names = await _deployments(client)
            url = str(client.api_url)
    except (httpx.HTTPError, PrefectHTTPStatusError) as error:
        raise _end(
            f"deployment {name!r}: the Prefect server {url or ''} does not answer ({reason_of(error)}), nothing was "
            "started; start it (deploy/up), or check PREFECT_API_URL"
        ) from error
    found = [whole for whole in names if whole.partition("/")[2] == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise _end(f"deployment {name!r}: {len(found)} have this name, none was taken; give one of {_listed(found)}")
    if not names:
        raise _end(f"deployment {name!r}: the server {url} has none, nothing was started; deploy/up makes them")
    raise _end(f"deployment {name!r}: none has this name, nothing was started; give one of {_listed(names)}")


@asynccontextmanager
async def _client(profile: str | None, name: str) -> AsyncIterator[PrefectClient]:
    """A client of the server that the command will talk to."""
    from contextlib import ExitStack

    from prefect.client.orchestration import get_client
    from prefect.context import use_profile
    from prefect.settings import get_current_settings

    with ExitStack() as stack:
        if profile:
            try:
                stack.enter_context(use_profile(profile, override_environment_variables=True))
            except KeyError as error:
                raise _end(f"profile {profile!r}: unknown; prefect profile ls names those that are there") from error
        if not get_current_settings().api.url:
            raise _end(
                f"deployment {name!r}: no Prefect server is known, nothing was started; "
                "start one (deploy/up), or set PREFECT_API_URL"
            )
        async with get_client() as client:
            yield client


async def _deployments(client: PrefectClient) -> list[str]:
    """FLOW/DEPLOYMENT of all deployments on the server, sorted."""
    from prefect.client.schemas.filters import FlowFilter, FlowFilterId

    found: list[Any] = []
    while page := await client.read_deployments(limit=200, offset=len(found)):
        found += page
    flow_ids = list({deployment.flow_id for deployment in found})
    flows: dict[Any, str] = {}
    for first in range(0, len(flow_ids), 200):
        wanted = FlowFilter(id=FlowFilterId(any_=flow_ids[first : first + 200]))
        flows |= {flow.id: flow.name for flow in await client.read_flows(flow_filter=wanted)}
    return sorted(f"{flows.get(deployment.flow_id, '?')}/{deployment.name}" for deployment in found)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more (prefect deployment ls)" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def _end(message: str) -> SystemExit:
    """One line, and the end of the command."""
    print(f"colorize-archive: {message}", file=sys.stderr)
    return SystemExit(1)
