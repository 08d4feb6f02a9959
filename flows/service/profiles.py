"""The profile by which ``prefect`` talks to the set-up in every terminal, with the plugin for bare names on."""

from __future__ import annotations

from prefect.settings import PREFECT_API_URL, PREFECT_PLUGINS_ENABLED, load_profiles, save_profiles

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


def switch_off(before: str) -> None:
    """Remove the profile; that of ``before`` is the active one again, unless the user chose another meanwhile."""
    profiles = load_profiles()
    if UP_PROFILE in profiles.names:
        profiles.remove_profile(UP_PROFILE)
    if profiles.active_name == UP_PROFILE:
        profiles.set_active(before if before in profiles.names else _PREFECTS_OWN)
    save_profiles(profiles)
