"""The service is killed and started again while a client waits and others follow the stream: nobody notices."""

import asyncio
from pathlib import Path

from taskhook import AsyncTaskhook, EventStream, Taskhook

from tests.client_python.conftest import MODEL, SANDBOX
from tests.support.service import API_KEY, Service
from tests.support.wait import PATIENCE_S, patience, until


async def test_a_wait_and_streams_outlive_a_kill(tmp_path: Path) -> None:
    service = await Service(tmp_path, env=SANDBOX).start()
    with Taskhook(API_KEY, base_url=service.url) as client:
        async with AsyncTaskhook(API_KEY, base_url=service.url) as async_client:
            try:
                await outlive(service, client, async_client)
            finally:
                await service.close()


async def outlive(service: Service, client: Taskhook, async_client: AsyncTaskhook) -> None:
    task = await async_client.tasks.create(model=MODEL, prompt="a sandbox:stuck cat")
    async with async_client.events.stream(types=["task.canceled"]) as followed, patience():
        stream = client.events.stream(types=["task.canceled"])
        told = asyncio.create_task(anext(aiter(followed)))
        told_too = asyncio.create_task(asyncio.to_thread(next, stream))
        waited = asyncio.create_task(asyncio.to_thread(client.tasks.wait, task.id, timeout=PATIENCE_S))
        waited_too = asyncio.create_task(async_client.tasks.wait(task.id, timeout=PATIENCE_S))
        await until(lambda: followed.last_event_id and stream.last_event_id, what="both streams are open")
        await service.restart()
        assert (await async_client.tasks.cancel(task.id)).status == "canceled"
        assert (await told).data.id == (await told_too).data.id == task.id
        assert (await waited).status == (await waited_too).status == "canceled"
    close(stream)


def close(stream: EventStream) -> None:
    stream.close()
    assert next(stream, None) is None
