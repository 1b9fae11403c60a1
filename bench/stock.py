"""Stores with open work in them, row for row as the service would have written it."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import msgspec
from msgspec.structs import replace

from bench.calls import SECRET, callback_requests
from service.core.delivery import Delivery, Endpoint
from service.core.event import Event, render_body
from service.core.signing import render_secret
from service.core.task import Output, Result, Task, TaskInput
from service.core.times import after, to_ms
from service.core.views import view_task
from service.store import endpoint_rows, rows
from service.store.driver import Driver
from service.store.migrate import migrate
from service.store.vault import Vault
from service.wiring import RealEnv, build_driver

CHUNK = 5_000
DUE_S = 600.0


def running_task(env: RealEnv) -> Task:
    """Submitted and waiting for its callback; its provider's id is ours after a p."""
    now, task_id = env.now(), env.new_id("task")
    return Task(
        id=task_id,
        provider="fluxapi-ai",
        model="flux-kontext-pro",
        input=TaskInput(prompt="a lighthouse at dusk, " * 8, aspect_ratio="16:9"),
        metadata={"order": "1234"},
        webhook_url=None,
        on_unconfirmed="wait",
        created_at=now,
        deadline_at=after(now, 36_000),
        provider_task_id=f"p{task_id}",
        submitted_at=now,
        due_at=after(now, DUE_S),
        status="running",
        step="tracking",
    )


def finished_task(env: RealEnv) -> Task:
    output = Output(url="https://example.com/result/0123456789abcdef.jpg")
    result = Result(outputs=(output,), raw=msgspec.Raw(b'{"code":200}'))
    task = replace(running_task(env), status="succeeded", step="done", due_at=None, finished_at=env.now())
    return replace(task, result=result, via="callback")


def make_endpoint(env: RealEnv, url: str, max_in_flight: int) -> Endpoint:
    secret = Vault([SECRET]).seal(render_secret(b"a secret of this benchmark alone"), "secret")
    return Endpoint(
        id=env.new_id("endpoint"), url=url, secret=secret, created_at=env.now(), max_in_flight=max_in_flight
    )


def event_row(env: RealEnv, task: Task, number: int) -> tuple[Any, ...]:
    data = msgspec.json.encode(view_task(task))
    event = Event(id=env.new_id("event"), type="task.succeeded", at=env.now(), data=data, task_id=task.id)
    body = render_body(event, number).decode()
    return (number, event.id, event.type, event.task_id, None, to_ms(event.at), body)


def delivery_to(env: RealEnv, endpoint: Endpoint, task: Task, event_id: str) -> Delivery:
    return Delivery(
        id=env.new_id("delivery"),
        event_id=event_id,
        event_type="task.succeeded",
        task_id=task.id,
        endpoint_id=endpoint.id,
        url=None,
        lane=endpoint.id,
        status="pending",
        due_at=after(env.now(), DUE_S),
        created_at=env.now(),
    )


class Stock:
    """The content to fill a store with, then the ids of its running tasks."""

    def __init__(self, url: str, *, endpoint_url: str | None = None, max_in_flight: int = 10) -> None:
        self._driver: Driver = build_driver(url)
        self._env = RealEnv()
        self._endpoint_url = endpoint_url
        self._max_in_flight = max_in_flight

    def fill(self, *, running: int = 0, waiting: int = 0, finished: int = 0) -> list[str]:
        """Waiting deliveries belong to finished tasks of their own, and go to the one endpoint."""
        return asyncio.run(self._fill(running, waiting, finished))

    async def _fill(self, running: int, waiting: int, finished: int) -> list[str]:
        await self._driver.open()
        try:
            await migrate(self._driver, to_ms(self._env.now()))
            ids = await self._put_tasks(running, running_task)
            await self._put_tasks(finished, finished_task)
            if self._endpoint_url:
                await self._put_deliveries(make_endpoint(self._env, self._endpoint_url, self._max_in_flight), waiting)
        finally:
            await self._driver.close()
        return ids

    async def _put_tasks(self, count: int, make: Callable[[RealEnv], Task]) -> list[str]:
        ids = []
        for chunk in _chunks(count):
            tasks = [make(self._env) for _ in chunk]
            await self._write(rows.UPSERT_TASK, [rows.task_to_row(task) for task in tasks])
            ids += [task.id for task in tasks]
        return ids

    async def _put_deliveries(self, endpoint: Endpoint, count: int) -> None:
        await self._write(endpoint_rows.UPSERT, [endpoint_rows.endpoint_to_row(endpoint)])
        await self._write("update counters set value = ? where name = 'events'", [(count,)])
        for chunk in _chunks(count):
            tasks = [finished_task(self._env) for _ in chunk]
            events = [event_row(self._env, task, number + 1) for number, task in zip(chunk, tasks, strict=True)]
            made = zip(tasks, events, strict=True)
            deliveries = [delivery_to(self._env, endpoint, task, event[1]) for task, event in made]
            await self._write(rows.UPSERT_TASK, [rows.task_to_row(task) for task in tasks])
            await self._write(rows.INSERT_EVENT, events)
            await self._write(rows.UPSERT_DELIVERY, [rows.delivery_to_row(delivery) for delivery in deliveries])

    async def _write(self, sql: str, values: Sequence[tuple[Any, ...]]) -> None:
        await self._driver.write(lambda session: session.execute_many(sql, values))


def _chunks(count: int) -> list[range]:
    return [range(first, min(first + CHUNK, count)) for first in range(0, count, CHUNK)]


def awaited_callbacks(url: str, count: int) -> list[bytes]:
    """Of as many running tasks, which are in the store then, with an endpoint for their events."""
    return callback_requests(Stock(url, endpoint_url="http://127.0.0.1:9/hook").fill(running=count))


def make_due(path: str, table: str, in_s: float) -> None:
    """Everything open in that table, from then on."""
    due_ms = to_ms(after(RealEnv().now(), in_s))
    with closing(sqlite3.connect(path, timeout=30)) as connection, connection:
        connection.execute(f"update {table} set due_ms = ? where due_ms is not null", (due_ms,))


def count_rows(path: str, table: str, condition: str) -> int:
    with closing(sqlite3.connect(path, timeout=30)) as connection:
        return int(connection.execute(f"select count(*) from {table} where {condition}").fetchone()[0])
