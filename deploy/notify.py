"""``python deploy/notify.py URL``: Prefect tells a webhook of runs that do not end well."""

from pathlib import Path

from flows.cli.service import notify

if __name__ == "__main__":
    notify(obj=Path(__file__).with_name("automations.yaml"))
