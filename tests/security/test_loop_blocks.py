"""No request of a hostile client holds the event loop for more than 10 ms, whether its sender is known or not.

Measured is the longest turn of the loop, in processor time of its thread, which is the same on a busy machine. The
best of three counts, since the kernel and the garbage collector add to single ones.
"""

import gzip
import json
import mmap
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio

from service.core.tokens import CallbackTokens
from tests.flows.conftest import World
from tests.support.api import new_prompt
from tests.support.blocks import DOUBLE
from tests.support.service import API_KEY, SECRET_KEY, Service

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("loop blocks")]

BLOCK_MAX_S = 0.010
MIB = 1 << 20
PARTS = {
    "a": b"a",
    "spaces": b" ",
    "line ends": b"\r\n",
    "NUL": b"\0",
    "bytes that are not UTF-8": b"\xff",
    "digits": b"9",
    "open lists": b"[",
    "open objects": b'{"a":',
    "empty lists": b"[],",
    "empty objects": b"{},",
    "numbers": b"1,",
    "tiny floats": b"1e-310,",
    "huge floats": b"1e309,",
    "NaN": b"NaN,",
    "quotes": b'"',
    "backslashes": b"\\\\",
    "escapes": b"\\u0041",
    "escaped slashes": b"\\/",
    "lone surrogates": b"\\ud800",
    "percent escapes": b"%41",
    "ampersands": b"a&",
    "equals signs": b"a=b&",
    "begun ids": b"task_",
    "begun tokens": b"task_0.a.",
    "begun keys": b"tk_live_",
    "begun secrets": b"whsec_",
    "begun links": b"https://",
    "links": b"https://a.b/c?d ",
    "bearers": b"Bearer ",
    "Chinese": "图".encode(),
    "emoji": "🎉".encode(),
    "tags": b"<p>",
    "commas that end a list": b",]",
}


@dataclass(frozen=True)
class Hostile:
    """A request; `body` is sent as it is."""

    name: str
    path: str
    body: bytes
    headers: dict[str, str]
    method: str = "POST"

    def __str__(self) -> str:
        return self.name


async def callback_path(service: Service, provider: str, model: str) -> str:
    task = await service.api.submit(f"{provider}/{model}", new_prompt())
    await service.api.accepted(task["id"])
    return f"/callbacks/{provider}/{CallbackTokens([SECRET_KEY], [provider]).sign(provider, task['id'])}"


def fill(part: bytes) -> bytes:
    return part * (MIB // len(part))


def in_json(part: bytes) -> bytes:
    """The same as text of a reply that is well formed, where texts are shortened, searched and masked."""
    text = json.dumps(part.decode("utf-8", "replace")).encode()[1:-1]
    inner = text * ((MIB - 1_000) // len(text))
    return b'{"code":400,"msg":"' + inner + b'","data":{"taskId":"x","error":{"message":"no"}},"success":false}'


def requests(callbacks: list[str]) -> list[Hostile]:
    json_type = {"Content-Type": "application/json"}
    known = json_type | {"Authorization": f"Bearer {API_KEY}"}
    form = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
    found = []
    for name, part in PARTS.items():
        for callback in callbacks:
            provider = callback.split("/")[2]
            found.append(Hostile(f"{provider} calls back with {name}", callback, fill(part), json_type))
            found.append(Hostile(f"{provider} calls back with {name} as text", callback, in_json(part), json_type))
        found.append(Hostile(f"a forged callback with {name}", "/callbacks/acedata/forged", fill(part), json_type))
        found.append(Hostile(f"a caller with {name}", "/v1/tasks", fill(part), known))
        body = b'{"model":"acedata/flux-dev","input":{"prompt":"p","options":{"a":"%b"}}}'
        found.append(
            Hostile(f"a caller with {name} as text", "/v1/tasks", body.replace(b"%b", in_json(part)[19:-80]), known)
        )
        found.append(Hostile(f"a stranger with {name}", "/v1/tasks", fill(part), json_type))
        found.append(Hostile(f"a sign-in with {name}", "/sign-in", b"key=" + fill(part)[:4_000], form))
        text = quote(fill(part)[:6_000], safe="")[:20_000]
        many = "&".join(f"metadata.{number}=1" for number in range(1_000))
        for query in (f"cursor={text}", f"metadata.k={text}", f"{text}=1", many):
            found.append(Hostile(f"a query of {name}: {query[:12]}", f"/v1/tasks?{query}", b"", known, "GET"))
        header = known | {"Idempotency-Key": text[:9_000], "Cookie": text[:9_000], "traceparent": text[:500]}
        found.append(Hostile(f"headers of {name}", "/v1/tasks", body, header))
        bomb = gzip.compress(fill(part) * 20)
        found.append(Hostile(f"a bomb of {name}", "/v1/tasks", bomb, known | {"Content-Encoding": "gzip"}))
        found.append(
            Hostile(f"a bomb of {name} called back", callbacks[0], bomb, json_type | {"Content-Encoding": "gzip"})
        )
    return found


class Watched:
    """A service whose longest block of the loop can be read."""

    def __init__(self, service: Service, path: Path) -> None:
        self.service = service
        path.write_bytes(bytes(DOUBLE.size))
        self._file = path.open("r+b")
        self._shared = mmap.mmap(self._file.fileno(), DOUBLE.size)

    async def block_s(self, hostile: Hostile) -> float:
        """The longest block while the request is read, worked on and answered."""
        return await self._block_s(hostile.method, hostile.path, content=hostile.body, headers=hostile.headers)

    async def read_s(self, path: str) -> float:
        """The longest block while a page or listing is read."""
        return await self._block_s("GET", path)

    async def _block_s(self, method: str, path: str, **rest: Any) -> float:
        DOUBLE.pack_into(self._shared, 0, 0.0)
        client = self.service.client
        await client.request(method, path, **rest)
        await client.get("/healthz")  # what was to be done after the answer is done
        found: float = DOUBLE.unpack_from(self._shared)[0]
        return found

    def close(self) -> None:
        self._shared.close()
        self._file.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watched(world: World, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watched]:
    path = tmp_path_factory.mktemp("blocks") / "longest"
    service = world.service({"TASKHOOK_CALLBACK_GRACE_S": "600", "TEST_BLOCKS": str(path)}, command="serve")
    service.module = "tests.support.blocks"
    made = Watched(service, path)
    await service.start()
    yield made
    made.close()


async def test_no_hostile_request_holds_the_loop_for_10_ms(watched: Watched) -> None:
    service = watched.service
    callbacks = [
        await callback_path(service, "acedata", "flux-dev"),
        await callback_path(service, "fluxapi-ai", "flux-kontext-pro"),
    ]
    made = requests(callbacks)
    assert len(made) > 100
    blocks = {hostile.name: await watched.block_s(hostile) for hostile in made}
    by_name = {hostile.name: hostile for hostile in made}
    for _ in range(2):
        for name, seconds in blocks.items():
            if seconds > BLOCK_MAX_S:
                blocks[name] = min(seconds, await watched.block_s(by_name[name]))
    worst = sorted(blocks.items(), key=lambda item: -item[1])
    print("\n".join(f"{seconds * 1000:6.1f} ms  {name}" for name, seconds in worst[:40]))
    assert [(name, round(seconds * 1000, 1)) for name, seconds in worst if seconds > BLOCK_MAX_S] == []
