"""Answers that no server should give: by name, with the reason that both clients must find for them."""

import gzip

from tests.support.server import Answer, Cut, Raw, Reply, Reset

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

CUT_SHORT = {
    "a short body": Raw(OK + b"Content-Length: 10\r\n\r\nabc"),
    "a broken chunk": Raw(CHUNKED + b"3\r\nabc\r\n5\r\nde"),
    "no last chunk": Raw(CHUNKED + b"3\r\nabc\r\n"),
}
