"""httpx-sse reads the stream, is cut off after one event, and resumes after it."""

import json
import os

import httpx
from httpx_sse import connect_sse

url, count = f"{os.environ['TASKHOOK_URL']}/v1/events/stream", int(os.environ["COUNT"])
headers = {"Authorization": f"Bearer {os.environ['TASKHOOK_API_KEY']}", "Last-Event-ID": os.environ["AFTER"]}
found: list[str] = []
with httpx.Client(timeout=90) as client:
    while len(found) < count:
        with connect_sse(client, "GET", url, headers=headers) as source:
            for event in source.iter_sse():
                assert event.json()["id"] == event.id
                found.append(event.id)
                headers["Last-Event-ID"] = event.id
                break
print(json.dumps(found))
