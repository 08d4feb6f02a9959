"""``python deploy/notify.py URL``: Prefect tells a webhook of runs that do not end well, by an automation.

The webhook gets ``{"text": ...}``, which Slack, Mattermost, Teams and many others take. Mail and other services are
blocks of Prefect too: make one in its page, and choose it in the automation there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import flows  # noqa: F401 - before Prefect: it sees to the environment

# isort: split
import typer
import yaml
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client
from prefect.events.schemas.automations import AutomationCore

FILE = Path(__file__).with_name("automations.yaml")
BLOCK = "colorize-archive-operator"


def main(url: Annotated[str, typer.Argument(help="The webhook.")]) -> None:
    """Make the automation of automations.yaml, or bring it up to date, with URL as the one who is told."""
    webhook = CustomWebhookNotificationBlock(
        name=BLOCK, url=url, json_data={"text": "{{subject}}\n{{body}}"}, headers=None, cookies=None
    )
    block_id = webhook.save(BLOCK, overwrite=True)
    wanted = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    for action in wanted["actions"]:
        action["block_document_id"] = str(block_id)
    automation = AutomationCore.model_validate(wanted)
    with get_client(sync_client=True) as client:
        found = client.read_automations_by_name(automation.name)
        if found:
            client.update_automation(found[0].id, automation)
        else:
            client.create_automation(automation)
    typer.echo(f"{automation.name}: {url} is told")


if __name__ == "__main__":
    typer.run(main)
