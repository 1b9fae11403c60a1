"""The callbacks of a finished job: which ones its magic prompts ask for, and sending them."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import aiohttp

from service.sandbox.jobs import Job, JobOutcome

ANSWER_WITHIN_S: Final = 15.0
GARBAGE: Final = b"<html><body>upstream connect error or disconnect/reset before headers</body>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The content of one callback; `outcome` is None for a body that is not JSON."""

    names_another: bool = False
    outcome: JobOutcome | None


def reports(job: Job) -> Iterator[Report]:
    """Yield the callbacks of a finished job in order."""
    for _ in range(3 if "duplicate-callback" in job.faults else 1):
        yield from _reports_once(job)


def _reports_once(job: Job) -> Iterator[Report]:
    if "lost-callback" in job.faults:
        return
    if "garbage-callback" in job.faults:
        yield Report(outcome=None)
    elif "contradictory-callback" in job.faults:
        yield Report(outcome=JobOutcome.SUCCEEDED)
        yield Report(outcome=JobOutcome.FAILED)
    else:
        yield Report(outcome=job.outcome, names_another="wrong-id" in job.faults)


class Courier:
    """Sends callbacks over HTTP; the first one opens the session."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def deliver(
        self, url: str, raw_body: bytes, headers: Mapping[str, str], *, tries: int, pause_s: float
    ) -> bool:
        """Return whether a try got a 2xx in time; the pause between tries doubles."""
        for attempt in range(tries):
            if attempt:
                await asyncio.sleep(pause_s * 2 ** (attempt - 1))
            if await self._post(url, raw_body, headers):
                return True
        return False

    async def _post(self, url: str, raw_body: bytes, headers: Mapping[str, str]) -> bool:
        try:
            async with self._open().post(url, data=raw_body, headers=headers, allow_redirects=False) as reply:
                return 200 <= reply.status < 300
        except (aiohttp.ClientError, OSError, ValueError):
            return False

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # Shorter than the usual server's 5 s, so that no callback is sent on a closing connection.
                connector=aiohttp.TCPConnector(limit=256, keepalive_timeout=2),
                timeout=aiohttp.ClientTimeout(total=ANSWER_WITHIN_S),
                headers={"Content-Type": "application/json"},
            )
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
