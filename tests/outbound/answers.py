"""Answers that no server should give: by name, with the reason that both clients must find for them."""

import asyncio
import gzip
from dataclasses import dataclass

from tests.support.server import Answer, Connection, Cut, Raw, Reply, Reset


@dataclass(frozen=True)
class Kept:
    """Any bytes, so many at a time; the connection stays open for the next request."""

    data: bytes
    piece: int

    async def play(self, connection: Connection) -> bool:
        for start in range(0, len(self.data), self.piece):
            await connection.send(self.data[start : start + self.piece])
            await asyncio.sleep(0.002)
        return True


OK = b"HTTP/1.1 200 OK\r\n"
EMPTY = b"Content-Length: 0\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
BOMB = gzip.compress(bytes(100_000_000), compresslevel=1)
MALFORMED = "answer is not HTTP: malformed"

UNREADABLE: dict[str, tuple[Answer, str]] = {
    "reset": (Reset(), "connection reset"),
    "closed": (Reset(rst=False), "connection closed without an answer"),
    "reset in the head": (Cut(Reply(200, "hello"), 20), "connection reset"),
    "closed in the head": (Raw(OK + b"Content-Le"), "connection closed without an answer"),
    "10,000 headers": (
        Raw(OK + b"".join(b"X-%d: a\r\n" % i for i in range(10_000)) + EMPTY),
        "answer is not HTTP: too many headers",
    ),
    "a header of 20 kB": (
        Raw(OK + b"X: " + b"a" * 20_000 + b"\r\n" + EMPTY),
        "answer is not HTTP: a header is too long",
    ),
    "a NUL in a name": (Raw(OK + b"X\0Y: a\r\n" + EMPTY), MALFORMED),
    "a NUL in a value": (Raw(OK + b"X: \0\r\n" + EMPTY), MALFORMED),
    "another protocol": (Raw(b"SSH-2.0-OpenSSH_9.6\r\n"), MALFORMED),
    "no head": (Raw(b"<html>fine</html>"), MALFORMED),
    "a long status": (Raw(b"HTTP/1.1 20000 OK\r\n" + EMPTY), MALFORMED),
    "two lengths": (Raw(OK + b"Content-Length: 1\r\n" + EMPTY), MALFORMED),
    "a negative length": (Raw(OK + b"Content-Length: -1\r\n\r\n"), MALFORMED),
    "length and chunks": (Raw(OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), MALFORMED),
    "a chunk size that is none": (Raw(CHUNKED + b"ZZ\r\nabc\r\n0\r\n\r\n"), MALFORMED),
    "early hints and no more": (
        Raw(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
        "connection closed without an answer",
    ),
}

COMPLETE_HEADS = {
    "a NUL in a name",
    "a NUL in a value",
    "two lengths",
    "a negative length",
    "length and chunks",
    "a chunk size that is none",
}
"""Of these, those that said 200 before they broke the rules: enough to be received, too little to be read."""

BAD_2XX: dict[str, tuple[bytes, int]] = {
    "204 in chunks": (b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 204),
    "204 in chunks, the head alone": (b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", 204),
    "204 with a length and a body": (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", 204),
    "204 with a body": (b"HTTP/1.1 204 No Content\r\n\r\nhello", 204),
    "204 after a hint": (
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        204,
    ),
    "205 with a body": (b"HTTP/1.1 205 Reset Content\r\nContent-Length: 2\r\n\r\nok", 205),
    "205 without a length": (b"HTTP/1.1 205 Reset Content\r\n\r\n", 205),
    "206 that nobody asked for": (b"HTTP/1.1 206 Partial Content\r\nContent-Range: x\r\n\r\nab", 206),
    "a length that is none": (OK + b"Content-Length: many\r\n\r\nok", 200),
    "a list of lengths": (OK + b"Content-Length: 2, 2\r\n\r\nok", 200),
    "a huge length": (OK + b"Content-Length: 99999999999999999999999\r\n\r\nok", 200),
    "an unknown coding": (OK + b"Transfer-Encoding: gzip\r\n\r\nok", 200),
    "chunks twice": (OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 200),
    "no line break behind a chunk": (CHUNKED + b"2\r\nok0\r\n\r\n", 200),
    "more than its length": (OK + b"Content-Length: 2\r\n\r\nok and more", 200),
    "lines without a carriage return": (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", 200),
    "HTTP/1.0 without a length": (b"HTTP/1.0 200 OK\r\n\r\nok", 200),
    "no reason": (b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n", 200),
}
"""Heads that say 2xx, with a body that breaks the rules."""
SURPLUS = {"204 with a body", "205 without a length", "more than its length"}
"""Of these, those whose bytes behind the answer can come too late to be seen before the next request."""

CUT_SHORT = {
    "a short body": Raw(OK + b"Content-Length: 10\r\n\r\nabc"),
    "a broken chunk": Raw(CHUNKED + b"3\r\nabc\r\n5\r\nde"),
    "no last chunk": Raw(CHUNKED + b"3\r\nabc\r\n"),
}
