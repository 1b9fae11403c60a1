"""Official readers of server-sent events resume our stream without a gap or a repeat."""

import json
from pathlib import Path

import pytest

from tests.interop.conftest import MODEL, given, python, run_beside
from tests.support.service import Service

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.xdist_group("interop")]
COUNT = 3


async def published(service: Service) -> tuple[str, list[str]]:
    """The id of an event, and those of the events after it."""
    for _ in range(COUNT + 1):
        task = await service.api.submit(MODEL, "a lighthouse")
        await service.api.finished(task["id"])
    first, *rest = [event["id"] for event in await service.api.events()][-COUNT - 1 :]
    return first, rest


async def test_httpx_sse(service: Service, python_tools: Path, tmp_path: Path) -> None:
    after, expected = await published(service)
    env = given(service) | {"AFTER": after, "COUNT": str(COUNT)}
    assert json.loads(await run_beside(*python(python_tools, "resume.py"), cwd=tmp_path, **env)) == expected


async def test_eventsource(service: Service, node_project: Path) -> None:
    after, expected = await published(service)
    env = given(service) | {"AFTER": after, "COUNT": str(COUNT)}
    assert json.loads(await run_beside("node", "resume.mjs", cwd=node_project, **env)) == expected
