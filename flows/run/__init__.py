"""A run without Prefect: jobs, plans, stages, results."""
