"""A due task: what a worker does between its claim and its call."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from service.core import lifecycle
from service.core.account import Account, Limits
from service.core.schedule import SUBMIT_BACKOFF_FIRST_S
from service.core.task import Task
from service.core.tokens import CallbackTokens
from service.outbound.client import ProviderClient
from service.providers.base import Access
from service.store.batch import Keys
from service.telemetry import Metrics
from service.worker.tasks import FROZEN_S, CallbackUrls, TaskWork
from tests.store.conftest import Store, open_store
from tests.support.factory import CALLS_BACK, make_task
from tests.support.registry import PROVIDERS
from tests.support.server import Reply
from tests.support.upstream import FakeFluxapiAi, answer, refuse

LIMITS = Limits(submits=100, window_s=1.0, max_in_flight=100)


@asynccontextmanager
async def a_worker(path: Path, fake: FakeFluxapiAi) -> AsyncIterator[tuple[TaskWork, Store]]:
    """For the tasks of one provider, on a database of its own."""
    async with open_store(str(path / "taskhook.db")) as store:
        account = Account(provider=fake.provider, base_url=fake.server.url, secrets={"key": fake.key}, limits=LIMITS)
        access = Access(provider=PROVIDERS[fake.provider], accounts={account.id: account}, policy=CALLS_BACK)
        client, urls = (
            ProviderClient(store.env),
            CallbackUrls("http://127.0.0.1", CallbackTokens(["key"], [fake.provider])),
        )
        try:
            yield TaskWork(access, account, store.driver, store.writer, client, urls, store.env, Metrics()), store
        finally:
            await client.close()


async def queued(store: Store) -> Task:
    task = make_task(store.env)
    await store.writer.change(Keys(), lambda _: lifecycle.create(task, store.env))
    return task


async def claim(work: TaskWork, store: Store) -> list[tuple[Task, float]]:
    return (await store.writer.run(partial(work.claim, free=1))).items


async def test_a_submit_that_came_too_late_to_be_sent_is_sent_later_and_not_called_unknown(tmp_path: Path) -> None:
    async with FakeFluxapiAi() as fake, a_worker(tmp_path, fake) as (work, store):
        task = await queued(store)
        ((claimed, at),) = await claim(work, store)
        due_at = await work.run((claimed, at - FROZEN_S - 1))  # as if the process had stood still since
        assert fake.server.requests == []
        assert (await store.reads.get_task(task.id)).step == "submit"
        assert due_at == store.env.pass_time(SUBMIT_BACKOFF_FIRST_S)
        (again,) = await claim(work, store)
        await work.run(again)
        assert len(fake.server.requests) == 1
        assert (await store.reads.get_task(task.id)).step == "tracking"


async def test_a_submit_that_came_too_late_and_was_taken_over_changes_nothing(tmp_path: Path) -> None:
    async with FakeFluxapiAi() as fake, a_worker(tmp_path, fake) as (work, store):
        task = await queued(store)
        ((claimed, at),) = await claim(work, store)
        store.env.pass_time(CALLS_BACK.submit_lease_s)
        assert await claim(work, store) == []
        await work.run((claimed, at - FROZEN_S - 1))
        assert fake.server.requests == []
        assert (await store.reads.get_task(task.id)).step == "unconfirmed"


async def test_a_redirect_to_the_callback_url_tells_nobody_its_token(tmp_path: Path) -> None:
    async with FakeFluxapiAi() as fake, a_worker(tmp_path, fake) as (work, store):
        task = await queued(store)
        token = CallbackTokens(["key"], [fake.provider]).sign(fake.provider, task.id)
        fake.script(
            task.input.prompt, submit=[answer(Reply(307, b"", {"Location": f"http://elsewhere.example/{token}"}))]
        )
        (claimed,) = await claim(work, store)
        await work.run(claimed)
        error = (await store.reads.get_task(task.id)).error
        assert error is not None
        assert "elsewhere.example/(token)" in error.message


async def test_a_refused_key_fails_its_task_and_disables_the_account(tmp_path: Path) -> None:
    async with FakeFluxapiAi() as fake, a_worker(tmp_path, fake) as (work, store):
        task = await queued(store)
        fake.script(task.input.prompt, submit=[refuse("bad_key")])
        (claimed,) = await claim(work, store)
        await work.run(claimed)
        error = (await store.reads.get_task(task.id)).error
        assert error is not None and error.code == "authentication"
        refusal = (await store.reads.refusals())["fluxapi-ai"]
        assert refusal.reason == error.message and fake.key not in refusal.key
