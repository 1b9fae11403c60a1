"""Receive events with AWS Lambda behind an API Gateway HTTP API (payload 2.0) and put them into an SQS FIFO queue."""

import base64
import os
import sys
from typing import Any

import boto3
from taskhook import WebhookVerificationError, webhooks

SECRET = os.environ.get("TASKHOOK_SECRET") or sys.exit("TASKHOOK_SECRET must be the whsec_... of the endpoint")

queue = boto3.client("sqs")


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    body = event.get("body") or ""
    raw_body = base64.b64decode(body) if event.get("isBase64Encoded") else body.encode()
    try:
        told = webhooks.verify(raw_body, event["headers"], SECRET)
    except WebhookVerificationError as error:
        return {"statusCode": 400, "body": str(error)}
    queue.send_message(
        QueueUrl=os.environ["QUEUE_URL"],
        MessageBody=raw_body.decode(),
        MessageGroupId="taskhook",
        MessageDeduplicationId=told.id,  # the same on every attempt, so the queue keeps an event once
    )
    return {"statusCode": 204}
