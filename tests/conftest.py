"""Settings of the whole test run."""

from hypothesis import HealthCheck, settings

# Shared machines stall for seconds at a time; a deadline would only test the machine.
settings.register_profile("steady", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")
