"""The head of an answer whose body breaks the rules: its status stands, although the parser gave up.

aiohttp parses a segment as a whole. A 204 with `Transfer-Encoding: chunked` and a last chunk, two lengths, or a broken
chunk in the same segment cost it the head as well. So the first bytes of each answer are kept until the head is read.
"""

import re
from collections.abc import Iterable
from functools import partial
from typing import Any

import aiohttp
import msgspec
from aiohttp.client_proto import ResponseHandler
from aiohttp.helpers import EMPTY_BODY_STATUS_CODES
from aiohttp.http import RawResponseMessage

HEAD_MAX = 16 * 1024
_PROTOCOL = b"HTTP/"
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})(?: [^\r\n]*)?\r?\n")
_END = re.compile(rb"\r?\n\r?\n")


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """Status and headers of an answer: names in lower case, the first value of each."""

    status: int
    headers: dict[str, str]


class BrokenAnswer(aiohttp.ClientError):
    """An answer with a complete head that can't be parsed any further."""

    def __init__(self, head: Head) -> None:
        super().__init__(f"status {head.status}")
        self.head = head


def read_head(data: bytes) -> Head | None:
    """Return the head of the final answer that the bytes begin with; None if it is not complete or no HTTP."""
    place = 0
    while status_line := _STATUS.match(data, place):
        end = _END.search(data, status_line.end() - len(b"\r\n"))
        if end is None:
            return None
        if not _is_interim(status_line):
            return Head(status=int(status_line[1]), headers=_read_headers(data[status_line.end() : end.start()]))
        place = end.end()
    return None


def _is_interim(status_line: re.Match[bytes] | None) -> bool:
    """Return whether another head follows this one: a 1xx, but for the switch of protocols."""
    return status_line is not None and status_line[1].startswith(b"1") and status_line[1] != b"101"


def _read_headers(block: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in block.decode("utf-8", "surrogateescape").split("\n"))
    return first_values((name.strip(), value.strip()) for name, colon, value in lines if colon)


def first_values(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers:
        found.setdefault(name.lower(), value)
    return found


class _HeadKeeper(ResponseHandler):
    """A connection that gives the parser the head of an answer as a whole, and keeps it until it is read."""

    def __init__(self, loop: Any) -> None:
        super().__init__(loop)
        self.kept = bytearray()
        self._begin = self._searched = 0
        self._in_head = False

    def set_response_params(self, **params: Any) -> None:
        """Expect a new answer: called before each request on the connection is sent."""
        self.kept.clear()
        self._begin = self._searched = 0
        self._in_head = True
        super().set_response_params(**params)

    def feed_data(self, data: tuple[RawResponseMessage, Any], size: int = 0) -> None:
        """Close the connection behind a status without a body that announces one: it may come all the same."""
        message, _ = data
        announced = message.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in message.headers
        if announced and message.code in EMPTY_BODY_STATUS_CODES:
            self.force_close()
        super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self.kept += data
            if self._waits_for_head():
                return
            data, self._in_head = bytes(self.kept), False
            del self.kept[HEAD_MAX:]
        super().data_received(data)

    def _waits_for_head(self) -> bool:
        """Search each byte once, however small the pieces are in which they come."""
        if len(self.kept) >= HEAD_MAX or not self.kept.startswith(_PROTOCOL[: len(self.kept)]):
            return False
        while end := _END.search(self.kept, self._searched):
            if not _is_interim(_STATUS.match(self.kept, self._begin)):
                return False
            self._begin = self._searched = end.end()
        self._searched = max(self._searched, len(self.kept) - len(b"\r\n\r"))
        return True


class HeadResponse(aiohttp.ClientResponse):
    """Raises BrokenAnswer where the head of an answer is complete and the parser failed."""

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        keeper: _HeadKeeper = connection.protocol
        try:
            return await super().start(connection)
        except Exception as error:
            head = read_head(bytes(keeper.kept))
            if head is None:
                raise
            raise BrokenAnswer(head) from error
        finally:
            keeper.kept.clear()


def keep_heads(connector: aiohttp.TCPConnector) -> None:
    """Make every new connection of the connector keep the head of its answers, for `HeadResponse`."""
    connector._factory = partial(_HeadKeeper, loop=connector._loop)  # type: ignore[assignment]
