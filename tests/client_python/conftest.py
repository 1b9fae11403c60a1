"""The service with its sandbox, one for the module's tests, and the two clients of it."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from taskhook import AsyncTaskhook, Taskhook

from tests.support.service import API_KEY, Service

SANDBOX = {"TASKHOOK_SANDBOX": "true"}
MODEL = "fluxapi-ai/flux-kontext-pro"


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """Made and closed in a loop of its own; tests only use its URL."""
    made = Service(tmp_path_factory.mktemp("client"), env=SANDBOX)
    try:
        yield await made.start()
    finally:
        await made.close()


@pytest.fixture
def client(service: Service) -> Iterator[Taskhook]:
    with Taskhook(API_KEY, base_url=service.url) as client:
        yield client


@pytest_asyncio.fixture
async def async_client(service: Service) -> AsyncIterator[AsyncTaskhook]:
    async with AsyncTaskhook(API_KEY, base_url=service.url) as client:
        yield client
