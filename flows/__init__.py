"""Prefect and Dask only here. What their processes need in the environment is set before either is imported."""

import engines  # noqa: F401 - of the runtimes, it is there
from flows import environment

environment.take_names_for_utf8()
environment.tell_nobody()
environment.pass_proxies_by()
