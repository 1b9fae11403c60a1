"""DNS look-ups on own threads, so that one endpoint's slow name server delays no other look-up."""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor

from aiohttp.abc import AbstractResolver, ResolveResult


class Resolver(AbstractResolver):
    """The system's resolver with a time limit and 64 threads; asyncio's own may have as few as four.

    Its threads end with the process, so several clients can share it.
    """

    def __init__(self, *, timeout_s: float = 5.0, threads: int = 64) -> None:
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="dns")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Resolve the host. Raises socket.gaierror, also after the time limit and for an invalid name."""
        lookup = asyncio.get_running_loop().run_in_executor(self._threads, _lookup, host, port, family)
        try:
            return await asyncio.wait_for(lookup, self._timeout_s)
        except TimeoutError:
            raise socket.gaierror(socket.EAI_AGAIN, f"no answer within {self._timeout_s:g} s") from None

    async def close(self) -> None:
        """Do nothing, since other clients may share it."""


def _lookup(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    try:
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    except UnicodeError:
        raise socket.gaierror(socket.EAI_NONAME, "not a valid name") from None
    return [
        ResolveResult(
            hostname=host,
            host=_text(address),
            port=port,
            family=kind,
            proto=protocol,
            flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        )
        for kind, _, protocol, _, address in found
    ]


def _text(address: tuple[object, ...]) -> str:
    """Return the address, with its zone if it has one."""
    zone = address[3] if len(address) == 4 else 0
    return f"{address[0]}%{zone}" if zone else str(address[0])
