"""Name look-ups on threads of their own, so that one subscriber's slow name servers hold up nobody else's names."""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor

from aiohttp.abc import AbstractResolver, ResolveResult


class Resolver(AbstractResolver):
    """The system's resolver, bounded in time and in look-ups at once; a loop's own has as few as four threads.

    Its threads end with the process, so that several clients can share one.
    """

    def __init__(self, *, timeout_s: float = 5.0, threads: int = 64) -> None:
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="dns")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Raises socket.gaierror, also when time is over or the host is no name."""
        lookup = asyncio.get_running_loop().run_in_executor(self._threads, _lookup, host, port, family)
        try:
            return await asyncio.wait_for(lookup, self._timeout_s)
        except TimeoutError:
            raise socket.gaierror(socket.EAI_AGAIN, f"no answer within {self._timeout_s:g} s") from None

    async def close(self) -> None:
        """Nothing: whoever shares it may still ask."""


def _lookup(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    try:
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    except UnicodeError:
        raise socket.gaierror(socket.EAI_NONAME, "no name") from None
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
    """The address with its zone, if it has one."""
    zone = address[3] if len(address) == 4 else 0
    return f"{address[0]}%{zone}" if zone else str(address[0])
