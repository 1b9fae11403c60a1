"""Bytes on a socket, and what comes back: no HTTP client of good manners stands between."""

import asyncio
import re
from dataclasses import dataclass

from tests.support.wait import PATIENCE_S

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


@dataclass(frozen=True)
class Heard:
    """Everything received until the end of the connection, or until silence."""

    data: bytes
    closed: bool

    @property
    def statuses(self) -> list[int]:
        return [int(status) for status in _STATUS.findall(self.data)]


async def send(port: int, *parts: bytes, quiet_s: float = 0.5, pause_s: float = 0.0, answers: int = 0) -> Heard:
    """Sends the parts, with a pause before each but the first, and listens until the end or `quiet_s` of silence.

    The silence counts only when there were so many answers: a busy machine takes its time.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for number, part in enumerate(parts):
            if number:
                await asyncio.sleep(pause_s)
            writer.write(part)
            await writer.drain()
        return await hear(reader, quiet_s, answers)
    except ConnectionError:
        return Heard(b"", closed=True)
    finally:
        writer.transport.abort()


async def hear(reader: asyncio.StreamReader, quiet_s: float, answers: int = 0) -> Heard:
    data = b""
    while True:
        try:
            async with asyncio.timeout(quiet_s if len(_STATUS.findall(data)) >= answers else PATIENCE_S):
                part = await reader.read(65_536)
        except TimeoutError:
            return Heard(data, closed=False)
        except ConnectionError:
            return Heard(data, closed=True)
        if not part:
            return Heard(data, closed=True)
        data += part
