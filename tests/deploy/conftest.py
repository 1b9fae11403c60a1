"""Metrics and logs of a service that has done some work of each kind."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest_asyncio

from tests.support.receiver import Receiver
from tests.support.service import Service
from tests.support.wait import until


@pytest_asyncio.fixture
async def scraped(tmp_path: Path) -> AsyncIterator[str]:
    async with AsyncExitStack() as stack:
        receiver = (await stack.enter_async_context(Receiver())).subscriber("hook")
        service = Service(tmp_path, env={"TASKHOOK_SANDBOX": "true"})
        stack.push_async_callback(service.close)
        await service.start()
        for model in ("fluxapi-ai/flux-kontext-pro", "flux-context/flux-kontext-pro"):
            await service.api.submit(model, "a lighthouse", webhook_url=receiver.url)
        await until(lambda: len(receiver.received) == 2, what="both events received")
        yield (await service.client.get("/metrics")).text
