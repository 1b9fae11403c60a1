"""Receive events with Google Cloud Functions: functions-framework --source cloud_function.py --target receive

EVENTS_DIR is a Cloud Storage bucket, mounted as a volume.
"""

import os
from pathlib import Path

from flask import Request
from taskhook import WebhookVerificationError, webhooks


def receive(request: Request) -> tuple[str, int]:
    raw_body = request.get_data()
    try:
        event = webhooks.verify(raw_body, dict(request.headers), os.environ["TASKHOOK_SECRET"])
    except WebhookVerificationError as error:
        return str(error), 400
    try:
        with (Path(os.environ["EVENTS_DIR"]) / f"{event.id}.json").open("xb") as file:
            file.write(raw_body)
    except FileExistsError:
        return "known already", 200
    return "kept", 200
