"""The flows, their states and pages. Prefect is only here."""
