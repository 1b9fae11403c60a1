"""Reasons of failed outgoing calls, in a few words for the timeline, without URLs, addresses or secrets."""

import errno
import socket
import ssl
import zlib
from collections.abc import Callable
from typing import Any

import aiohttp

from service.outbound.guard import ForbiddenAddress

_TEXT_MAX = 100

_BEFORE_SENDING = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
)

_OS = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset",
    errno.ECONNABORTED: "connection reset",
    errno.EPIPE: "connection reset",
    errno.ENETUNREACH: "network unreachable",
    errno.EHOSTUNREACH: "host unreachable",
    errno.ETIMEDOUT: "connection timed out",
    errno.EADDRNOTAVAIL: "no local address for this destination",
    errno.EMFILE: "too many open files",
}

# OpenSSL's X509_V_ERR_* numbers; all others have a text from OpenSSL.
_CERTIFICATE = {9: "certificate not yet valid", 10: "certificate expired", 62: "certificate is for another host"}
_CERTIFICATE |= {18: "self-signed certificate", 19: "self-signed certificate", 20: "certificate of an unknown issuer"}

_ANSWER = {"too many headers": "too many headers", "got more than": "a header is too long"}


def surely_not_sent(exc: BaseException) -> bool:
    """Return whether the call failed before its first byte could be sent."""
    return isinstance(exc, _BEFORE_SENDING)


def reason_of(exc: BaseException, *, connect_s: float, total_s: float) -> str:
    """Return the failure in a few words; the times are the limits that were in force, in seconds."""
    if isinstance(exc, aiohttp.ConnectionTimeoutError):
        return f"connect timed out after {connect_s:g} s"
    if isinstance(exc, TimeoutError) and exc.errno is None:
        return f"timed out after {total_s:g} s"
    return next((words(exc) for kind, words in _WORDS if isinstance(exc, kind)), type(exc).__name__)


def kind_of(reason: str) -> str:
    """Return the class of a reason, as a metric label."""
    if "timed out" in reason:
        return "timeout"
    start = reason.partition(":")[0]
    return start if start in ("dns", "tls", "refused") else "connection_error"


def clean(text: str, limit: int = _TEXT_MAX) -> str:
    """Make foreign text safe to store and show: printable, valid Unicode, and short."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:limit])


def _dns(exc: aiohttp.ClientConnectorDNSError) -> str:
    fault = exc.os_error
    if isinstance(fault, socket.gaierror) and fault.errno == socket.EAI_AGAIN:
        return f"dns: {clean(fault.strerror or 'no answer').lower()}"
    return "dns: name does not resolve"


def _certificate(exc: aiohttp.ClientConnectorCertificateError) -> str:
    fault = exc.certificate_error
    if not isinstance(fault, ssl.SSLCertVerificationError):
        return "tls: certificate refused"
    return f"tls: {_CERTIFICATE.get(fault.verify_code) or clean(fault.verify_message)}"


def _tls(exc: aiohttp.ClientConnectorError) -> str:
    words = (getattr(exc.os_error, "reason", None) or "no detail").replace("_", " ").lower()
    return f"tls: handshake failed ({clean(words)})"


def _connect(exc: aiohttp.ClientConnectorError) -> str:
    fault = exc.os_error
    return "refused: address not public" if isinstance(fault, ForbiddenAddress) else _os(fault)


def _os(exc: OSError) -> str:
    if isinstance(exc, ConnectionError) and exc.errno is None:
        return "connection reset"
    return _OS.get(exc.errno or 0) or clean((exc.strerror or "connection failed").lower())


def _unreadable(exc: aiohttp.ClientResponseError) -> str:
    message = exc.message.lower()
    detail = next((words for start, words in _ANSWER.items() if message.startswith(start)), "malformed")
    return f"answer is not HTTP: {detail}"


def _payload(exc: aiohttp.ClientPayloadError) -> str:
    cut = "not completed" in str(exc) or "not enough data" in str(exc).lower()
    return "answer was cut short" if cut else "answer is not HTTP: malformed body"


# The first match wins, so subclasses come before their base class.
_WORDS: tuple[tuple[type[BaseException], Callable[[Any], str]], ...] = (
    (aiohttp.ClientConnectorDNSError, _dns),
    (aiohttp.ClientConnectorCertificateError, _certificate),
    (aiohttp.ClientConnectorSSLError, _tls),
    (aiohttp.ClientConnectorError, _connect),
    (aiohttp.ServerDisconnectedError, lambda _: "connection closed without an answer"),
    (aiohttp.ClientPayloadError, _payload),
    (aiohttp.ClientResponseError, _unreadable),
    (aiohttp.InvalidURL, lambda _: "invalid URL"),
    (zlib.error, lambda _: "answer is not gzip"),
    (OSError, _os),
    (ValueError, lambda _: "invalid URL or header"),
)
