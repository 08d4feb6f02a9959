"""Sets up the environment of every process before it imports Prefect: no usage data, no proxy for connections to this
machine, and file names in UTF-8 whatever the locale.

Child processes inherit it: servers, workers and runs.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import MutableMapping

# Defaults only: a user may set any of them otherwise.
NOT_TOLD = {
    # Prefect's library: it stores a number for this user in its home, and reports first uses.
    "DO_NOT_TRACK": "1",
    # Prefect's server: it reports every ten minutes that it runs.
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # Prefect's runs: they send processor and memory metrics and spans to external collectors.
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
}
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def take_names_for_utf8(environment: MutableMapping[str, str] = os.environ) -> None:
    """Make processes started from now on read file names as UTF-8 in every locale (PEP 540)."""
    environment["PYTHONUTF8"] = "1"


def is_in_utf8() -> bool:
    """True if this process reads file names as UTF-8, which depends on the locale of its terminal or service."""
    return sys.getfilesystemencoding().lower() in ("utf-8", "utf8")


def tell_nobody(environment: MutableMapping[str, str] = os.environ) -> None:
    """Switch off Prefect's usage reports, except those that the user has set."""
    for name, value in NOT_TOLD.items():
        environment.setdefault(name, value)


def pass_proxies_by(environment: MutableMapping[str, str] = os.environ) -> None:
    """Exempt connections to this machine from proxies; for all others the site's proxies stay.

    Prefect's client (httpx) fails on entries that it cannot parse, whatever it connects to. So these are corrected or
    removed: IPv6 exceptions in brackets or with a mask, and SOCKS proxies if the package for them is missing.
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
    """Remove all proxies, for processes that connect to this machine only."""
    for name in [name for name in environment if name.lower() in _PROXIES]:
        del environment[name]
    environment["no_proxy"] = environment["NO_PROXY"] = "*"
