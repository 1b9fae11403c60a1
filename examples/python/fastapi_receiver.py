"""Receive events with FastAPI: fastapi run fastapi_receiver.py"""

import os
import sqlite3
import sys
from typing import Annotated

from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request
from taskhook import Event, TaskEvent, WebhookVerificationError, webhooks

SECRET = os.environ.get("TASKHOOK_SECRET") or sys.exit("TASKHOOK_SECRET must be the whsec_... of the endpoint")

app = FastAPI()
database = sqlite3.connect(os.environ.get("DATABASE", "events.db"), isolation_level=None, check_same_thread=False)
database.execute("create table if not exists events (id text primary key)")


async def verified(request: Request) -> Event:
    """The signature covers the bytes as they came, so they are read before anything parses them."""
    try:
        return webhooks.verify(await request.body(), request.headers, SECRET)
    except WebhookVerificationError as error:
        raise HTTPException(400, str(error)) from error


@app.post("/taskhook", status_code=204)
async def receive(event: Annotated[Event, Depends(verified)], background: BackgroundTasks) -> None:
    is_new = database.execute("insert or ignore into events values (?)", [event.id]).rowcount == 1
    if is_new:
        background.add_task(work, event)  # after the answer: Taskhook waits 15 s for it


def work(event: Event) -> None:
    if isinstance(event, TaskEvent) and event.type == "task.succeeded":
        print(event.data.id, event.data.outputs[0].url, flush=True)
