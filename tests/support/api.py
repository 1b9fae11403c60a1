"""A plain user of the public HTTP API, in the words the tests need."""

import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx

from tests.support.wait import PATIENCE_S, patience, until

FINAL = {"succeeded", "failed", "canceled"}
_prompts = itertools.count(1)


def new_prompt(subject: str = "a lighthouse") -> str:
    """A prompt no other task has, so that a provider's script and a leak can be told by it."""
    return f"{subject} number {next(_prompts)} under a purple sky"


def problem(reply: httpx.Response, status: int) -> dict[str, Any]:
    """The problem+json of a refusal."""
    assert reply.status_code == status, (reply.status_code, reply.text)
    assert reply.headers["content-type"].startswith("application/problem+json"), reply.headers
    body: dict[str, Any] = reply.json()
    assert body["status"] == status, body
    assert body["title"], body
    return body


def ok(reply: httpx.Response, *statuses: int) -> Any:
    """The JSON of a good answer."""
    assert reply.status_code in (statuses or (200, 201, 202, 204)), (reply.request.url, reply.status_code, reply.text)
    return reply.json() if reply.content else None


@dataclass(frozen=True)
class StreamedEvent:
    id: str
    type: str
    data: Any


class Api:
    """Wraps one authenticated client."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def post_task(self, model: str, prompt: str, **rest: Any) -> httpx.Response:
        """POST /v1/tasks; `input` adds to the prompt, `key` is the Idempotency-Key, all else goes in as it is."""
        headers = {"Idempotency-Key": key} if (key := rest.pop("key", None)) else {}
        body = {"model": model, "input": {"prompt": prompt, **rest.pop("input", {})}, **rest}
        return await self.client.post("/v1/tasks", json=body, headers=headers)

    async def submit(self, model: str, prompt: str, **rest: Any) -> dict[str, Any]:
        return ok(await self.post_task(model, prompt, **rest), 202)

    async def task(self, task_id: str, **params: Any) -> dict[str, Any]:
        return ok(await self.client.get(f"/v1/tasks/{task_id}", params=params))

    async def finished(self, task_id: str, at_most_s: float = PATIENCE_S, *, wait: float = 0) -> dict[str, Any]:
        """The task once its state is final; with `wait` the service holds each question, so that many cost little."""

        async def final() -> dict[str, Any] | None:
            task = await self.task(task_id, wait=wait)
            return task if task["status"] in FINAL else None

        try:
            return await until(final, at_most_s, f"{task_id} final")
        except AssertionError as error:
            raise AssertionError(f"{error}: {await self.task(task_id)} {await self.timeline(task_id)}") from None

    async def in_state(self, task_id: str, status: str) -> dict[str, Any]:
        async def there() -> dict[str, Any] | None:
            task = await self.task(task_id)
            return task if task["status"] == status else None

        return await until(there, what=f"{task_id} {status}")

    async def accepted(self, task_id: str, at_most_s: float = PATIENCE_S) -> dict[str, Any]:
        """The task once the provider's own id is stored."""

        async def there() -> dict[str, Any] | None:
            task = await self.task(task_id)
            return task if task["provider_task_id"] else None

        return await until(there, at_most_s, f"{task_id} accepted")

    async def not_sent(self, task_id: str) -> None:
        """Until a submit of the task did not get through; it waits in the queue then, with nothing in flight."""

        async def tried() -> bool:
            return any(entry["type"] == "submit.not_sent" for entry in await self.timeline(task_id))

        await until(tried, what=f"a submit of {task_id} that did not get through")

    async def timeline(self, task_id: str) -> list[dict[str, Any]]:
        return items(ok(await self.client.get(f"/v1/tasks/{task_id}/timeline")))

    async def pages(self, path: str, **params: Any) -> list[dict[str, Any]]:
        """Every item of a list, page after page."""
        found: list[dict[str, Any]] = []
        for _ in range(200):
            page = ok(await self.client.get(path, params=params))
            found += page["data"]
            cursor = page.get("next_cursor")
            if not cursor or not page["data"]:
                return found
            params["cursor"] = cursor
        raise AssertionError(f"{path} has no last page")

    async def events(self, task_id: str | None = None, type: str | None = None) -> list[dict[str, Any]]:
        found = await self.pages("/v1/events", limit=100)
        return [
            event
            for event in found
            if (task_id is None or event["data"].get("id") == task_id) and (type is None or event["type"] == type)
        ]

    async def finals(self, task_id: str | None = None) -> list[dict[str, Any]]:
        """The events that tell of a task's end."""
        ends = {f"task.{status}" for status in FINAL}
        return [event for event in await self.events(task_id) if event["type"] in ends]

    async def endpoint(self, url: str, **rest: Any) -> dict[str, Any]:
        """A new endpoint, with its secret."""
        return ok(await self.client.post("/v1/endpoints", json={"url": url, **rest}), 201)

    async def get_endpoint(self, endpoint_id: str) -> dict[str, Any]:
        return ok(await self.client.get(f"/v1/endpoints/{endpoint_id}"))

    async def patch_endpoint(self, endpoint_id: str, **changes: Any) -> dict[str, Any]:
        return ok(await self.client.patch(f"/v1/endpoints/{endpoint_id}", json=changes))

    async def deliveries(self, **params: Any) -> list[dict[str, Any]]:
        return await self.pages("/v1/deliveries", **params)

    async def delivery(self, delivery_id: str) -> dict[str, Any]:
        return ok(await self.client.get(f"/v1/deliveries/{delivery_id}"))

    @contextlib.asynccontextmanager
    async def stream(self, last_event_id: str | None = None, **params: Any) -> AsyncIterator["Stream"]:
        """The open event stream; it is surely connected once this is entered."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_event_id} if last_event_id else {})
        async with self.client.stream("GET", "/v1/events/stream", params=params, headers=headers) as reply:
            assert reply.status_code == 200, (reply.status_code, await reply.aread())
            assert reply.headers["content-type"].startswith("text/event-stream")
            yield Stream(reply)


class Stream:
    """Server-sent events, one after the other."""

    def __init__(self, reply: httpx.Response) -> None:
        self._lines = reply.aiter_lines()

    async def next(self) -> StreamedEvent:
        async with patience():
            fields: dict[str, str] = {}
            async for line in self._lines:
                if not line and "data" in fields:
                    return StreamedEvent(fields.get("id", ""), fields.get("event", ""), json.loads(fields["data"]))
                if not line:
                    fields = {}  # the first frame has no event: it says where the stream begins
                name, _, value = line.partition(":")
                if name:
                    fields[name] = fields.get(name, "") + value.removeprefix(" ")
        raise AssertionError("the stream ended")

    async def next_final(self) -> StreamedEvent:
        """The next event about the end of a task."""
        while True:
            event = await self.next()
            if event.type.removeprefix("task.") in FINAL:
                return event


def items(body: Any) -> list[dict[str, Any]]:
    """The entries of a list answer, bare or under `data`."""
    found = body if isinstance(body, list) else body["data"]
    assert isinstance(found, list)
    return found


def numbers(body: Any) -> list[int]:
    """Every whole number in an answer, wherever it stands."""
    if isinstance(body, dict):
        return [n for value in body.values() for n in numbers(value)]
    if isinstance(body, list):
        return [n for value in body for n in numbers(value)]
    return [body] if isinstance(body, int) and not isinstance(body, bool) else []


def locations(body: dict[str, Any]) -> str:
    """The fields a 422 names, as one text."""
    return " ".join(json.dumps(error["loc"]) for error in body["errors"])
