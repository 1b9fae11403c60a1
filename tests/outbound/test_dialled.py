"""The address really dialled is judged: whatever the name said before, and however it is written."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from service.outbound import guard as guard_module
from service.outbound.client import Poster
from service.outbound.guard import Guard, forbidden_reason
from service.outbound.resolver import Resolver
from tests.outbound.conftest import FakeNames, Script
from tests.support.wait import PATIENCE_S

PUBLIC = "93.184.215.14"
REFUSED = "refused: address not public"


@pytest.fixture
async def guarded() -> AsyncIterator[Callable[[FakeNames], Poster]]:
    opened: list[Poster] = []

    def make(names: FakeNames) -> Poster:
        opened.append(Poster(Guard(allow_private=False, resolver=names), timeout_s=PATIENCE_S))
        return opened[-1]

    yield make
    for poster in opened:
        await poster.close()


@pytest.mark.parametrize(
    "later",
    [["127.0.0.1"], ["::ffff:127.0.0.1"], ["127.0.0.1", "10.0.0.1", "::1"], ["64:ff9b::127.0.0.1"], ["0.0.0.0"]],
    ids=str,
)
async def test_a_name_that_turns_private_after_registration_is_not_dialled(
    script: Script, guarded: Callable[[FakeNames], Poster], later: list[str]
) -> None:
    names = FakeNames(rebind_example=[[PUBLIC], later])
    url = f"http://rebind.example:{script.server.port}/"
    assert await Guard(allow_private=False, resolver=names).resolve_public(url) is None
    poster = guarded(names)
    for _ in range(2):
        assert (await poster.post(url, {}, b"{}")).error == REFUSED
    assert script.server.connections == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "[::ffff:127.0.0.1]", "[::1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::1]"])
async def test_a_literal_address_skips_the_names_but_not_the_guard(
    script: Script, guarded: Callable[[FakeNames], Poster], host: str
) -> None:
    attempted = await guarded(FakeNames()).post(f"http://{host}:{script.server.port}/", {}, b"{}")
    assert (attempted.status_code, attempted.error) == (None, REFUSED)
    assert script.server.connections == 0


@pytest.mark.parametrize(
    "url", ["http://127.1:{}/", "http://2130706433:{}/", "http://0x7f.1:{}/", "ftp://localhost:{}/"]
)
async def test_a_url_that_would_not_be_registered_is_not_posted_to(script: Script, poster: Poster, url: str) -> None:
    attempted = await poster.post(url.format(script.server.port), {}, b"{}")
    assert str(attempted.error).startswith("refused: URL ")
    assert script.server.connections == 0


async def test_of_mixed_addresses_only_a_public_one_is_dialled(
    script: Script, guarded: Callable[[FakeNames], Poster], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        guard_module, "forbidden_reason", lambda ip: None if ip == "127.0.0.2" else forbidden_reason(ip)
    )
    names = FakeNames(mixed_example=[["127.0.0.1", "127.0.0.2", "::1"]])
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npublic"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.2", script.server.port):
        attempted = await guarded(names).post(f"http://mixed.example:{script.server.port}/", {}, b"{}")
    assert attempted.excerpt == "public"
    assert script.server.connections == 0


async def test_the_real_resolver_finds_localhost_and_no_invalid_name() -> None:
    resolver = Resolver()
    found = await resolver.resolve("localhost", 80)
    assert {address["host"] for address in found} <= {"127.0.0.1", "::1"}
    for name in ("gone.invalid", "a..b", "a" * 64):
        with pytest.raises(socket.gaierror):
            await resolver.resolve(name, 80)


async def test_a_look_up_without_an_answer_ends(monkeypatch: pytest.MonkeyPatch, script: Script) -> None:
    loop = asyncio.get_running_loop()
    resolver = Resolver(timeout_s=0.05, threads=1)
    blocked = asyncio.Event()
    release = socket.socketpair()

    def hang(*_: object) -> list[object]:
        loop.call_soon_threadsafe(blocked.set)
        release[0].recv(1)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    poster = Poster(Guard(allow_private=True, resolver=resolver))
    attempted = await poster.post("http://slow.example/", {}, b"{}")
    assert attempted.error == "dns: no answer within 0.05 s"
    await blocked.wait()
    release[1].send(b"x")
    await poster.close()
    for end in release:
        end.close()
