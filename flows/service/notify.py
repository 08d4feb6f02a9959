"""Prefect tells a webhook of runs that do not end well, by an automation.

The webhook gets ``{"text": ...}``, which Slack, Mattermost, Teams and many others take. Mail and other services are
blocks of Prefect too: make one in its page, and choose it in the automation there.
"""

from __future__ import annotations

from pathlib import Path

import yaml
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client
from prefect.events.schemas.automations import AutomationCore

_BLOCK = "colorize-archive-operator"


def make_automation(url: str, file: Path) -> str:
    """Make the automation of ``file``, or bring it up to date, with the webhook ``url`` told; returns its name."""
    webhook = CustomWebhookNotificationBlock(
        name=_BLOCK, url=url, json_data={"text": "{{subject}}\n{{body}}"}, headers=None, cookies=None
    )
    block_id = webhook.save(_BLOCK, overwrite=True)
    wanted = yaml.safe_load(file.read_text(encoding="utf-8"))
    for action in wanted["actions"]:
        action["block_document_id"] = str(block_id)
    automation = AutomationCore.model_validate(wanted)
    with get_client(sync_client=True) as client:
        found = client.read_automations_by_name(automation.name)
        if found:
            client.update_automation(found[0].id, automation)
        else:
            client.create_automation(automation)
    return automation.name
