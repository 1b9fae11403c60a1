"""Certificates: each fault has a name of its own, and a provider call that failed at it was not sent."""

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from service.core.observation import NotSent
from service.outbound.client import Poster, ProviderClient
from service.outbound.guard import Guard
from service.providers.base import HttpReply
from tests.outbound.conftest import FakeEnv, FakeNames, submit
from tests.support.authority import Authority

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")

HOST = "good.example"
FAULTS = {
    "expired": "tls: certificate expired",
    "other": "tls: certificate is for another host",
    "alone": "tls: self-signed certificate",
    "unknown": "tls: certificate of an unknown issuer",
}

Serve = Callable[[str], AbstractAsyncContextManager[str]]


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    authority = Authority(tmp_path_factory.mktemp("ca"))
    authority.issue("good", HOST, 2)
    authority.issue("expired", HOST, -1)
    authority.issue("other", "other.example", 2)
    authority.self_sign("alone", HOST)
    stranger = Authority(tmp_path_factory.mktemp("stranger"))
    stranger.issue("unknown", HOST, 2)
    for file in ("unknown.pem", "unknown.key"):
        shutil.copy(stranger.folder / file, authority.folder)
    return authority.folder


@pytest.fixture
def trust(certificates: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificates / "ca.pem"))


@pytest.fixture
def serve(certificates: Path) -> Serve:
    """A server with the certificate of that name; gives its URL."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        await writer.drain()
        writer.close()

    @asynccontextmanager
    async def serve(name: str) -> AsyncIterator[str]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
        async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
            yield f"https://{HOST}:{server.sockets[0].getsockname()[1]}/"

    return serve


@pytest.fixture
async def poster(trust: ssl.SSLContext) -> AsyncIterator[Poster]:
    names = FakeNames(good_example=[["127.0.0.1"]])
    poster = Poster(Guard(allow_private=True, resolver=names), tls=trust)
    yield poster
    await poster.close()


@pytest.fixture
async def client(trust: ssl.SSLContext) -> AsyncIterator[ProviderClient]:
    client = ProviderClient(FakeEnv(), resolver=FakeNames(good_example=[["127.0.0.1"]]), tls=trust)
    yield client
    await client.close()


async def test_a_good_certificate_is_taken(serve: Serve, poster: Poster, client: ProviderClient) -> None:
    async with serve("good") as url:
        assert (await poster.post(url, {}, b"{}")).received
        assert isinstance(await client.send(submit(url)), HttpReply)


@pytest.mark.parametrize("name", FAULTS)
async def test_a_bad_certificate_is_named_and_nothing_is_sent(
    serve: Serve, poster: Poster, client: ProviderClient, name: str
) -> None:
    async with serve(name) as url:
        attempted = await poster.post(url, {}, b"{}")
        assert (attempted.status_code, attempted.error) == (None, FAULTS[name])
        assert await client.send(submit(url)) == NotSent(reason=FAULTS[name])


async def test_a_server_without_tls_is_named(poster: Poster, client: ProviderClient) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"https://{HOST}:{server.sockets[0].getsockname()[1]}/"
        attempted = await poster.post(url, {}, b"{}")
        assert str(attempted.error).startswith("tls: handshake failed (")
        outcome = await client.send(submit(url))
        assert isinstance(outcome, NotSent)
        assert outcome.reason.startswith("tls: handshake failed (")


async def test_a_server_that_ends_the_handshake_is_named(poster: Poster, client: ProviderClient) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.transport.abort()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"https://{HOST}:{server.sockets[0].getsockname()[1]}/"
        assert (await poster.post(url, {}, b"{}")).error == "connection reset"
        assert await client.send(submit(url)) == NotSent(reason="connection reset")
