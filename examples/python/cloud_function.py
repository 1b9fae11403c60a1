"""Receive events with Google Cloud Functions: functions-framework --source cloud_function.py --target receive

EVENTS_DIR is a Cloud Storage bucket, mounted as a volume.
"""

import os
import sys
from pathlib import Path

from flask import Request
from taskhook import WebhookVerificationError, webhooks

SECRET = os.environ.get("TASKHOOK_SECRET") or sys.exit("TASKHOOK_SECRET must be the whsec_... of the endpoint")


def receive(request: Request) -> tuple[str, int]:
    raw_body = request.get_data()
    try:
        event = webhooks.verify(raw_body, dict(request.headers), SECRET)
    except WebhookVerificationError as error:
        return str(error), 400
    try:
        with (Path(os.environ["EVENTS_DIR"]) / f"{event.id}.json").open("xb") as file:
            file.write(raw_body)
    except FileExistsError:
        return "known already", 200
    return "kept", 200
