"""Cost of a fixed load, counted instead of timed: independent of the machine, sensitive to careless changes."""

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest
from starlette.types import ASGIApp, Message

from service.core import lifecycle
from service.core.account import Account
from service.core.change import Change
from service.outbound.client import Poster, ProviderClient
from service.providers.base import Access
from service.store import batch, claims, rows
from service.store.batch import Keys
from service.store.bus import DELIVERIES, tasks_of
from service.store.gathered import READ_MAX
from service.store.queries import DeliveryFilter, TaskFilter
from service.web.routes import build_app
from service.worker import deliveries
from service.worker.deliveries import DeliveryWork
from service.worker.loop import Lane, Work
from service.worker.tasks import CallbackUrls, TaskWork
from tests.performance.conftest import CountedSite
from tests.performance.counting import calls_of, hops
from tests.store.test_claims import WIDE
from tests.support.factory import CALLS_BACK, SECRET, make_endpoint, make_task
from tests.support.receiver import Receiver
from tests.support.registry import PROVIDERS
from tests.support.server import Connection, Reply
from tests.support.upstream import FakeFluxapiAi
from tests.support.wait import until
from tests.web.conftest import MODEL

LARGE = 400_000


class Together:
    """Answers nobody before all have asked."""

    def __init__(self, count: int) -> None:
        self._barrier = asyncio.Barrier(count)

    async def play(self, connection: Connection) -> bool:
        await self._barrier.wait()
        return await Reply(204).play(connection)


def callback_body(provider_task_id: str, message: str = "ok") -> bytes:
    info = {"resultImageUrl": "https://cdn.example/a.jpg", "originImageUrl": ""}
    return json.dumps({"code": 200, "msg": message, "data": {"taskId": provider_task_id, "info": info}}).encode()


async def start_tasks(site: CountedSite, count: int) -> list[str]:
    """So many that wait for their callback; their provider's id is ours after a p."""
    tasks = [make_task(site.env, step="tracking", status="running", due_at=None) for _ in range(count)]
    running = tuple(msgspec.structs.replace(task, provider_task_id=f"p{task.id}") for task in tasks)
    await site.writer.change(Keys(), lambda _: Change(tasks=running))
    return [task.id for task in running]


def callback_path(site: CountedSite, task_id: str) -> str:
    return f"/callbacks/fluxapi-ai/{site.tokens.sign('fluxapi-ai', task_id)}"


async def call_back(site: CountedSite, client: httpx.AsyncClient, task_id: str, provider_task_id: str = "") -> None:
    body = callback_body(provider_task_id or f"p{task_id}")
    reply = await client.post(callback_path(site, task_id), content=body)
    assert reply.status_code == 200, reply.text


async def create(client: httpx.AsyncClient) -> None:
    body = {"model": MODEL, "input": {"prompt": "a lighthouse"}, "metadata": {"order": "1"}}
    assert (await client.post("/v1/tasks", json=body)).status_code == 202


async def cancel(site: CountedSite, task_ids: list[str]) -> None:
    """All in one commit."""
    tasks = await asyncio.gather(*map(site.reads.get_task, task_ids))
    ended = tuple(lifecycle.cancel(task, site.env).tasks[0] for task in tasks)
    await site.writer.change(Keys(), lambda _: Change(tasks=ended))


async def subscribe(site: CountedSite, url: str, count: int = 1) -> None:
    secret = site.vault.seal(SECRET, "secret")
    made = tuple(make_endpoint(site.env, url=url, secret=secret, max_in_flight=64) for _ in range(count))
    await site.writer.change(Keys(), lambda _: Change(endpoints=made))


def build_lane(site: CountedSite, poster: Poster) -> Lane[Any]:
    work = DeliveryWork(
        site.counts,
        site.writer,
        poster,
        site.env,
        site.metrics,
        vault=site.vault,
        signing_secret=SECRET,
        schedule=[5],
        source="taskhook",
    )
    return lane_of(site, "deliveries", work, DELIVERIES)


def lane_of(site: CountedSite, name: str, work: Work[Any], topic: str) -> Lane[Any]:
    writer, bus, env, metrics = site.writer, site.bus, site.env, site.metrics
    return Lane(name, work, limit=64, topic=topic, writer=writer, bus=bus, env=env, metrics=metrics)


@asynccontextmanager
async def turning(site: CountedSite, *lanes: Lane[Any]) -> AsyncIterator[None]:
    """As in one process that is alone with its database: they claim in the transactions of others."""
    running = [asyncio.create_task(lane.run()) for lane in lanes]
    for lane in lanes:
        site.writer.take_along(lane)
    await until(lambda: site.counts.reads == len(lanes))
    yield
    await asyncio.gather(*(lane.stop(5) for lane in lanes))
    await asyncio.gather(*running)


async def peak_of(work: Coroutine[Any, Any, object]) -> int:
    """Bytes, of all that Python had allocated at one time beyond what it had before."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        await work
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


async def post(app: ASGIApp, path: str, body: bytes) -> int:
    """A request in one piece, without a client's own copies of its body; the status."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    answers: list[Message] = []

    async def receive() -> Message:
        return messages.pop()

    async def send(message: Message) -> None:
        answers.append(message)

    headers = [(b"host", b"taskhook.test"), (b"content-length", str(len(body)).encode())]
    rest = {"query_string": b"", "headers": headers, "client": ("127.0.0.1", 1), "server": None, "scheme": "http"}
    about = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "http_version": "1.1"}
    await app({**about, **rest, "root_path": ""}, receive, send)
    return int(answers[0]["status"])


@pytest.mark.parametrize("count", [16, 64])
async def test_callbacks_at_once_are_one_transaction_whatever_their_number(site: CountedSite, count: int) -> None:
    first, *ids = await start_tasks(site, count + 1)
    async with site.client() as client:
        await call_back(site, client, first)  # what is read once in the life of a process is read here
        site.counts.reset()
        with hops() as answers, calls_of((batch, "render_body")) as calls:
            await asyncio.gather(*(call_back(site, client, task_id) for task_id in ids))
    assert site.counts.transactions == 1
    assert sum(site.counts.statements.values()) <= 6 + site.tells_others, site.counts.statements
    assert site.counts.reads == 0
    assert calls["render_body"] == count
    assert answers() <= 8


async def test_a_delivery_is_written_once_however_often_its_batch_is(site: CountedSite) -> None:
    async def work(one: batch.Batch) -> None:
        one.apply(lifecycle.cancel(make_task(site.env), site.env))
        await one.flush()
        await one.publish()
        await one.flush()

    await site.writer.change(Keys(), lambda _: Change(endpoints=(make_endpoint(site.env),)))
    site.counts.reset()
    await site.writer.run(work)
    assert site.counts.statements["insert into deliveries (id,"] == 1, site.counts.statements


@pytest.mark.parametrize("count", [16, 100])
async def test_tasks_created_at_once_are_one_transaction_whatever_their_number(site: CountedSite, count: int) -> None:
    async with site.client() as client:
        await create(client)
        site.counts.reset()
        with hops() as answers:
            await asyncio.gather(*(create(client) for _ in range(count)))
    assert site.counts.transactions == 1
    assert sum(site.counts.statements.values()) <= 3 + site.tells_others, site.counts.statements
    assert site.counts.reads == 0
    assert answers() <= 5


async def test_deliveries_are_claimed_and_recorded_together(site: CountedSite) -> None:
    count = 64
    async with Receiver() as receiver:
        subscriber = receiver.subscriber("all", then=Together(count))
        await subscribe(site, subscriber.url)
        async with site.client() as client:
            await asyncio.gather(*(call_back(site, client, task_id) for task_id in await start_tasks(site, count)))
        poster = Poster(site.context.trust.guard)
        lane = build_lane(site, poster)
        site.counts.reset()
        with calls_of((batch, "render_body"), (deliveries, "sign")) as calls:
            running = asyncio.create_task(lane.run())
            await until(lambda: site.metrics.registry.get_sample_value(*ATTEMPTS) == count)
            await lane.stop(5)
            await running
        await poster.close()
    assert len(subscriber.received) == count
    assert calls == {"sign": count}
    assert site.counts.transactions <= 8, "one claim, and the records of what was answered together"
    assert sum(site.counts.statements.values()) <= 4 * site.counts.transactions + 8, site.counts.statements


async def test_an_event_is_rendered_once_for_all_its_endpoints(site: CountedSite) -> None:
    await subscribe(site, "http://example.com/hook", 20)
    (task_id,) = await start_tasks(site, 1)
    site.counts.reset()
    async with site.client() as client:
        with calls_of((batch, "render_body")) as calls:
            await call_back(site, client, task_id)
    assert len((await site.reads.list_deliveries(DeliveryFilter(task_id=task_id), 50, None)).items) == 20
    assert calls == {"render_body": 1}
    assert site.counts.transactions == 1


@pytest.mark.parametrize("count", [READ_MAX, 300])
async def test_long_polls_at_once_cost_few_reads_whatever_their_number(site: CountedSite, count: int) -> None:
    """They begin together, hear together of a commit that ends none of their tasks, and end together."""
    reads, ids = count // READ_MAX, await start_tasks(site, count)
    async with site.client() as client:
        site.counts.reset()
        polls = [asyncio.create_task(client.get(f"/v1/tasks/{task_id}", params={"wait": 60})) for task_id in ids]
        await until(lambda: len(site.bus._told) == count and site.reads._tasks._reading is None)
        assert site.counts.reads <= reads + 1
        site.counts.reset()
        site.bus.ring_all()
        await until(lambda: site.reads.ends._reading is None)
        assert (site.counts.reads, any(poll.done() for poll in polls)) == (reads, False)
        site.counts.reset()
        await cancel(site, ids)
        replies = await asyncio.gather(*polls)
    assert [reply.json()["status"] for reply in replies] == ["canceled"] * count
    assert site.counts.reads <= 3 * reads, "the tasks to be canceled, which of them ended, and how they ended"


async def test_a_lane_with_nothing_due_writes_nothing(site: CountedSite) -> None:
    lane = build_lane(site, Poster(site.context.trust.guard))
    site.counts.reset()
    running = asyncio.create_task(lane.run())
    await until(lambda: site.counts.reads)
    await lane.stop(5)
    await running
    assert (site.counts.transactions, site.counts.reads) == (0, 1)


async def test_a_task_is_four_transactions_from_end_to_end_and_no_look(
    site: CountedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accepted and claimed, the provider's answer, its callback with the claim of its delivery, the subscriber's."""
    monkeypatch.setattr(claims, "REST_S", 60)  # on a slow machine the look after it would come before the end
    async with Receiver() as receiver, FakeFluxapiAi() as fake, site.client() as client:
        await subscribe(site, receiver.subscriber("one").url)
        account = Account(provider=fake.provider, base_url=fake.server.url, secrets={"key": fake.key}, limits=WIDE)
        access = Access(provider=PROVIDERS[fake.provider], accounts={account.id: account}, policy=CALLS_BACK)
        provider, poster = ProviderClient(site.env), Poster(site.context.trust.guard)
        urls = CallbackUrls("http://127.0.0.1", site.tokens)
        work = TaskWork(access, account, site.counts, site.writer, provider, urls, site.env, site.metrics)
        site.counts.reset()
        async with turning(site, lane_of(site, "tasks", work, tasks_of(fake.provider)), build_lane(site, poster)):
            site.counts.reset()
            with calls_of((rows, "task_from_row"), (rows, "delivery_from_row")) as parsed:
                await create(client)
                await until(lambda: site.metrics.registry.get_sample_value(*RECORDED) == 1)
                (task,) = (await site.reads.list_tasks(TaskFilter(), 1, None)).items
                await call_back(site, client, task.id, task.provider_task_id or "")
                await until(lambda: site.metrics.registry.get_sample_value(*ATTEMPTS) == 1)
        await poster.close()
        await provider.close()
    assert site.counts.transactions == 4
    assert sum(site.counts.statements.values()) <= 32 + 6 * site.tells_others, site.counts.statements
    assert site.counts.reads == 1, "that of this test"
    assert parsed == {"task_from_row": 2 + 1, "delivery_from_row": 1}, "what was claimed where it was made is known"


async def test_a_large_callback_is_copied_a_few_times_only(site: CountedSite) -> None:
    (task_id,) = await start_tasks(site, 1)
    body, app = callback_body(f"p{task_id}", "x" * LARGE), build_app(site.context)
    statuses: list[int] = []

    async def work() -> None:
        statuses.append(await post(app, callback_path(site, task_id), body))

    peak = await peak_of(work())
    assert statuses == [200]
    assert peak <= 6 * len(body), f"{peak / len(body):.1f} times its size"


RECORDED = ("taskhook_submit_window_seconds_count", {"provider": "fluxapi-ai", "account": "default"})
"""Observed when the answer to a submit is stored."""
ATTEMPTS = ("taskhook_delivery_attempts_total", {"outcome": "received"})
