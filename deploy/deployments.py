"""The deployments of prefect.yaml, made or brought up to date on the server that PREFECT_API_URL names."""

from pathlib import Path

from flows.cli.service import deployments

if __name__ == "__main__":
    deployments(obj=Path(__file__).with_name("prefect.yaml"))
