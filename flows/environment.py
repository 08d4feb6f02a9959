"""What every process has in its environment before it imports Prefect: no usage data, no proxy on the way to itself,
and names of files that mean the same in every locale.

Processes inherit it: servers, workers and runs that ours start.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import MutableMapping

# Who wants one of them sets it.
NOT_TOLD = {
    # Prefect's library: it keeps a number for this user in its home, and tells of first uses.
    "DO_NOT_TRACK": "1",
    # Prefect's server: it tells every ten minutes that it runs.
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # Prefect's runs: processor, memory and spans, to collectors outside.
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
}
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def take_names_for_utf8(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let processes that are started from now on take names for UTF-8, in every locale (PEP 540)."""
    environment["PYTHONUTF8"] = "1"


def is_in_utf8() -> bool:
    """Whether this process does: the locale of a terminal or a service may say otherwise."""
    return sys.getfilesystemencoding().lower() in ("utf-8", "utf8")


def tell_nobody(environment: MutableMapping[str, str] = os.environ) -> None:
    """Switch off what Prefect would tell its makers, where nobody has decided otherwise."""
    for name, value in NOT_TOLD.items():
        environment.setdefault(name, value)


def pass_proxies_by(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let no connection to this machine go through a proxy; on all other ways the site's proxies stay.

    What Prefect's client (httpx) cannot read would end it whatever it connects to, so it is put right or left out: IPv6
    exceptions in brackets or with a mask, and SOCKS proxies where the package for them is missing.
    """
    given = {name for name in environment if name.lower() in _PROXIES}
    if not given:
        return
    for name in given:
        if environment[name].lower().startswith("socks") and importlib.util.find_spec("socksio") is None:
            del environment[name]
    listed = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    hosts = [_readable(host.strip()) for host in listed.split(",") if host.strip()]
    joined = ",".join(dict.fromkeys([*hosts, *LOOPBACK]))
    environment["no_proxy"] = environment["NO_PROXY"] = joined


def _readable(host: str) -> str:
    is_ipv6 = host.count(":") > 1
    return host.partition("/")[0].strip("[]") if is_ipv6 else host


def without_proxies(environment: MutableMapping[str, str]) -> None:
    """Take all proxies away, for processes that connect to this machine only."""
    for name in [name for name in environment if name.lower() in _PROXIES]:
        del environment[name]
    environment["no_proxy"] = environment["NO_PROXY"] = "*"
