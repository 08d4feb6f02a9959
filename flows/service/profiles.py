"""The profile by which ``prefect`` talks to the set-up in every terminal, with the plugin for bare names on."""

from __future__ import annotations

from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_PLUGINS_ENABLED,
    get_current_settings,
    load_profiles,
    save_profiles,
)

from flows.orchestration.server import UP_PROFILE

_PREFECTS_OWN = "ephemeral"


def active() -> str:
    """Name of the profile that is active now."""
    return load_profiles().active_name or _PREFECTS_OWN


def switch_on(url: str) -> None:
    """Make the profile, with the address of the server, and make it the active one."""
    profiles = load_profiles()
    profiles.update_profile(UP_PROFILE, {PREFECT_API_URL: url, PREFECT_PLUGINS_ENABLED: True})
    profiles.set_active(UP_PROFILE)
    save_profiles(profiles)


def accept_bare_names() -> str:
    """Switch the plugin for bare names on in the active profile; one line about what works now, or what to type.

    Nothing changes where it is on already, by whatever setting.
    """
    if get_current_settings().plugins.enabled:
        return f"prefect deployment run {UP_PROFILE} works here"
    profiles = load_profiles()
    name = profiles.active_name or _PREFECTS_OWN
    try:
        profiles.update_profile(name, {PREFECT_PLUGINS_ENABLED: True})
        save_profiles(profiles)
    except (OSError, ValueError, KeyError) as error:
        return f"to type prefect deployment run {UP_PROFILE}, set PREFECT_PLUGINS_ENABLED=true (no profile: {error})"
    return f"prefect deployment run {UP_PROFILE} works in every terminal with the profile {name}"


def switch_off(before: str) -> None:
    """Remove the profile; that of ``before`` is the active one again, unless the user chose another meanwhile."""
    profiles = load_profiles()
    if UP_PROFILE in profiles.names:
        profiles.remove_profile(UP_PROFILE)
    if profiles.active_name == UP_PROFILE:
        profiles.set_active(before if before in profiles.names else _PREFECTS_OWN)
    save_profiles(profiles)
