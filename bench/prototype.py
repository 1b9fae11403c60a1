"""The same work without the features: what this design costs at the least, with the same libraries, rows and syncs.

    python -m bench.prototype web|serve

It runs with the service's settings on the service's schema, on SQLite or PostgreSQL. A task is accepted, submitted with
a signed callback URL, called back, and its event signed and delivered; each step is durable before it is answered, and
what waits shares a transaction. Left out is all that one expects besides: keys and checks of what comes in, limits, an
account's pace, retries, leases, polls, duplicates, deadlines, filters, logs, metrics, problems, guarded addresses.
"""

import asyncio
import gc
import os
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import aiohttp
import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench.prototype_storage import Ask, Tables, Work, build_storage
from bench.stock import Stock
from service.app import GC_THRESHOLDS
from service.core.signing import derive_secret, sign
from service.core.times import from_ms, rfc3339
from service.core.tokens import CallbackTokens
from service.store.driver import Row
from service.store.queries import OPEN
from service.store.rows import (
    INSERT_ATTEMPT,
    INSERT_ENTRY,
    INSERT_EVENT,
    INSERT_LABEL,
    UPSERT_DELIVERY,
    UPSERT_TASK,
    endpoint_from_row,
)
from service.wiring import RealEnv, now_ms

PROVIDER, MODEL, ENDED = "fluxapi-ai", "flux-kontext-pro", "task.succeeded"
WAITING = f"""
select d.event_id, e.body, d.id, d.event_id, d.event_type, d.task_id, d.endpoint_id, d.url, d.lane
from deliveries d join events e on e.id = d.event_id
where d.lane = ? and d.{OPEN} and d.due_ms <= ? order by d.due_ms limit ?
"""
DUE_MS = 60_000
JSON = "application/json"


class Asked(msgspec.Struct):
    """The body of a request for a task."""

    input: dict[str, Any]
    metadata: dict[str, str] = {}


class Info(msgspec.Struct, rename="camel"):
    result_image_url: str


class Data(msgspec.Struct, rename="camel"):
    task_id: str
    info: Info | None = None


class Answered(msgspec.Struct):
    """The provider's envelope, of an answer and of a callback."""

    data: Data


class Document(msgspec.Struct, omit_defaults=True):
    """What stands in a task's row as JSON."""

    input: dict[str, Any]
    created_at: str
    metadata: dict[str, str] = {}
    submitted_at: str | None = None
    result: dict[str, Any] | None = None


class Parcel(msgspec.Struct, frozen=True):
    """An event on its way to the subscriber, and the first fields of its delivery's row."""

    event_id: str
    body: str
    row: Row


encode = msgspec.json.encode
read_asked = msgspec.json.Decoder(Asked).decode
read_answered = msgspec.json.Decoder(Answered).decode
read_document = msgspec.json.Decoder(Document).decode


class Prototype:
    def __init__(self, *, works: bool) -> None:
        self.works = works
        self.env = RealEnv()
        self.endpoint_id, self.hook, self.at_once = self.env.new_id("endpoint"), "", 0
        self.last = 0
        secret_key = os.environ["TASKHOOK_SECRET_KEYS"]
        self.tokens, self.secret = CallbackTokens([secret_key], [PROVIDER]), derive_secret(secret_key)
        self.callbacks = f"{os.environ['TASKHOOK_PUBLIC_URL']}/callbacks/{PROVIDER}/"
        self.submits = f"{os.environ['TASKHOOK_FLUXAPI_AI_BASE_URL']}/api/v1/flux/kontext/generate"
        self.storage = build_storage(os.environ["TASKHOOK_DATABASE_URL"])
        self.queue: asyncio.Queue[tuple[Ask, asyncio.Future[Any]]] = asyncio.Queue()
        self.running: set[asyncio.Task[None]] = set()
        self.freed = asyncio.Event()

    # --- the writer ---------------------------------------------------------------------------------------------------

    async def write(self) -> None:
        while True:
            asks = [await self.queue.get()]
            while not self.queue.empty():
                asks.append(self.queue.get_nowait())
            answers = await self.storage.commit([ask for ask, _ in asks])
            for (_, done), answer in zip(asks, answers, strict=True):
                done.set_result(answer)

    async def store(self, work: Work, task_id: str | None = None) -> Any:
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.queue.put_nowait((Ask(work, task_id), done))
        return await done

    # --- what comes in ------------------------------------------------------------------------------------------------

    async def create(self, request: Request) -> Response:
        asked, task_id, ms = read_asked(await request.body()), self.env.new_id("task"), now_ms()
        document = Document(input=asked.input, metadata=asked.metadata, created_at=rfc3339(from_ms(ms)))
        state = ("queued", "sending", None, 1, ms + DUE_MS) if self.works else ("queued", "submit", None, 0, ms)
        row = (task_id, PROVIDER, MODEL, *state, ms + 3_600_000, None, encode(document).decode())

        def write(tables: Tables, _: Row | None) -> None:
            tables[UPSERT_TASK].append(row)
            tables[INSERT_LABEL] += [(*label, task_id) for label in document.metadata.items()]
            tables[INSERT_ENTRY].append((task_id, 1, ms, "task.created", "{}"))

        await self.store(write)
        if self.works:
            self.begin(self.submit(row, document))
        return Response(encode({"id": task_id, "status": "queued", "task": document}), 202, media_type=JSON)

    async def receive(self, request: Request) -> Response:
        task_id = self.tokens.verify(PROVIDER, request.path_params["token"])
        parcel = await self.store(partial(self.end, task_id, read_answered(await request.body())), task_id)
        if self.works:
            self.begin(self.deliver(parcel))
        return Response(b'{"status":"received"}', media_type=JSON)

    def end(self, task_id: str, answered: Answered, tables: Tables, row: Row | None) -> Parcel:
        """The task's result, an event and a delivery."""
        assert answered.data.info and row
        _, deadline_ms, doc = row
        ms, named, document = now_ms(), answered.data.task_id, read_document(doc)
        document.result = {"images": [{"url": answered.data.info.result_image_url}]}
        self.last += 1
        event_id, body = self.env.new_id("event"), self.render(named, document).decode()
        lane = (self.endpoint_id, None, self.endpoint_id)
        parcel = Parcel(event_id, body, (self.env.new_id("delivery"), event_id, ENDED, task_id, *lane))
        state = ("succeeded", "done", named, 1, None, deadline_ms, ms)
        tables[UPSERT_TASK].append((task_id, PROVIDER, MODEL, *state, encode(document).decode()))
        tables[INSERT_ENTRY] += [(task_id, 4, ms, "callback.succeeded", "{}"), (task_id, 5, ms, ENDED, "{}")]
        tables[INSERT_EVENT].append((self.last, event_id, ENDED, task_id, None, ms, body))
        tables[UPSERT_DELIVERY].append(self.begun(parcel, ms) if self.works else self.waiting(parcel, ms))
        return parcel

    def render(self, named: str, document: Document) -> bytes:
        data = {"provider": PROVIDER, "model": MODEL, "status": "succeeded", "provider_task_id": named}
        return encode({"type": ENDED, "sequence": self.last, "data": {**data, "task": document}})

    # --- rows of a delivery -------------------------------------------------------------------------------------------

    def waiting(self, parcel: Parcel, ms: int) -> Row:
        return (*parcel.row, "pending", ms, ms, None, 0, 0, 0, None, None)

    def begun(self, parcel: Parcel, ms: int) -> Row:
        return (*parcel.row, "sending", ms + DUE_MS, ms, None, 1, 0, 0, None, None)

    def ended(self, parcel: Parcel, ms: int) -> Row:
        return (*parcel.row, "succeeded", None, ms, ms, 1, 1, 0, None, None)

    # --- what goes out ------------------------------------------------------------------------------------------------

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self.running.add(task)
        task.add_done_callback(self.finish)

    def finish(self, task: asyncio.Task[None]) -> None:
        self.running.discard(task)
        self.freed.set()
        task.result()

    async def submit(self, row: Row, document: Document) -> None:
        task_id, deadline_ms = row[0], row[8]
        fields = {**document.input, "model": MODEL, "callBackUrl": self.callbacks + self.tokens.sign(PROVIDER, task_id)}
        answered = read_answered(await self.post(self.submits, encode(fields), {"Authorization": "Bearer key"}))
        ms = now_ms()
        document.submitted_at = rfc3339(from_ms(ms))
        state = ("running", "tracking", answered.data.task_id, 1, ms + DUE_MS, deadline_ms, None)
        running = (task_id, PROVIDER, MODEL, *state, encode(document).decode())

        def write(tables: Tables, _: Row | None) -> None:
            tables[UPSERT_TASK].append(running)
            tables[INSERT_ENTRY] += [(task_id, 2, ms, "submit.accepted", "{}"), (task_id, 3, ms, "task.running", "{}")]

        await self.store(write)

    async def deliver(self, parcel: Parcel) -> None:
        began, body = now_ms(), parcel.body.encode()
        await self.post(self.hook, body, sign([self.secret], parcel.event_id, began // 1000, body))
        ms = now_ms()
        attempt = (parcel.row[0], 1, began, 204, ms - began, None, None, "")

        def write(tables: Tables, _: Row | None) -> None:
            tables[UPSERT_DELIVERY].append(self.ended(parcel, ms))
            tables[INSERT_ATTEMPT].append(attempt)

        await self.store(write)

    async def post(self, url: str, body: bytes, headers: dict[str, str]) -> bytes:
        async with self.session.post(url, data=body, headers={"Content-Type": JSON, **headers}) as answer:
            return await answer.read()

    async def deliver_waiting(self) -> None:
        """What is in the database when it starts, from when it is due."""
        while parcels := await self.claim():
            for parcel in parcels:
                self.begin(self.deliver(parcel))
            self.freed.clear()
            await self.freed.wait()

    async def claim(self) -> list[Parcel]:
        ms = now_ms()
        found = await self.storage.fetch(WAITING, (self.endpoint_id, ms, self.at_once - len(self.running)))
        parcels = [Parcel(row[0], row[1], row[2:]) for row in found]
        begun = [self.begun(parcel, ms) for parcel in parcels]
        await self.store(lambda tables, _: tables[UPSERT_DELIVERY].extend(begun))
        return parcels

    # --- the process --------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        connector, jar = aiohttp.TCPConnector(limit=0), aiohttp.DummyCookieJar()
        async with self.storage, aiohttp.ClientSession(connector=connector, cookie_jar=jar) as self.session:
            gc.set_threshold(*GC_THRESHOLDS)
            tasks = [asyncio.create_task(self.write()), asyncio.create_task(self.take_up())]
            yield
            for task in tasks:
                task.cancel()

    async def take_up(self) -> None:
        """The endpoint that stands in the database, if one does."""
        for row in await self.storage.fetch("select id, doc from endpoints"):
            endpoint = endpoint_from_row(row)
            self.endpoint_id, self.hook, self.at_once = endpoint.id, endpoint.url, endpoint.max_in_flight
            ((due_ms,),) = await self.storage.fetch("select min(due_ms) from deliveries")
            if self.works and due_ms:
                await asyncio.sleep((due_ms - now_ms()) / 1000)
                await self.deliver_waiting()

    async def subscribe(self, request: Request) -> Response:
        self.hook = (await request.json())["url"]
        return Response(b"{}", media_type=JSON)

    async def list_open(self, request: Request) -> Response:
        return Response(encode({"data": [len(self.running)] if self.running else []}), media_type=JSON)

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/tasks", self.create, methods=["POST"]),
                Route(f"/callbacks/{PROVIDER}/{{token}}", self.receive, methods=["POST"]),
                Route("/v1/endpoints", self.subscribe, methods=["POST"]),
                Route("/v1/deliveries", self.list_open),
                Route("/readyz", self.list_open),
            ],
            lifespan=self.lifespan,
        )


if __name__ == "__main__":
    Stock(os.environ["TASKHOOK_DATABASE_URL"]).fill()
    uvicorn.run(
        Prototype(works=sys.argv[1] == "serve").app(),
        port=int(os.environ["TASKHOOK_PORT"]),
        http="httptools",
        loop="uvloop",
        access_log=False,
        log_level="warning",
    )
