"""Events and callbacks on their way to a developer's server: signed as Taskhook signs, again when nobody is there."""

import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

import click
import httpx
import msgspec

from service.cli.local import read_environment
from service.cli.options import check_secret, check_url, make_secret
from service.cli.root import EXIT_FAILED, Failure
from service.client import LOOPBACK, utc_now
from service.core.signing import sign

TIMEOUT_S = 15.0
RESPONSE_MAX = 1024
AWAY = frozenset({502, 503, 504})
"""What a proxy says while the server behind it starts."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A server's answer: a status code and the beginning of the body, or why there is none."""

    status: int | None
    error: str | None
    duration_ms: int
    response: str = ""

    @property
    def received(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def is_away(self) -> bool:
        """Whether the server may be there in a moment."""
        return self.status is None or self.status in AWAY

    def __str__(self) -> str:
        return f"{self.status or self.error} ({self.duration_ms} ms)"


class Forwarder:
    """Posts to one URL as Taskhook itself would: signed afresh, no redirects."""

    def __init__(self, url: str, secret: str) -> None:
        self.url = url
        self._secret = secret
        trust_env = httpx.URL(url).host not in LOOPBACK  # a proxy can't reach this machine's own ports
        self._http = httpx.Client(timeout=TIMEOUT_S, headers={"User-Agent": "taskhook"}, trust_env=trust_env)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def post_event(self, event_id: str, body: bytes, content_type: str = "application/json") -> Answer:
        signed = sign([self._secret], event_id, int(utc_now().timestamp()), body)
        return self.post(body, {"Content-Type": content_type, **signed})

    def post(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        started = time.monotonic()
        status, error, response = self._send(headers, body)
        duration_ms = round((time.monotonic() - started) * 1000)
        return Answer(status=status, error=error, duration_ms=duration_ms, response=response)

    def _send(self, headers: Mapping[str, str], body: bytes) -> tuple[int | None, str | None, str]:
        try:
            with self._http.stream("POST", self.url, headers=headers, content=body) as response:
                return response.status_code, None, _read_start(response).decode("utf-8", "replace")
        except httpx.TimeoutException:
            return None, f"no answer within {TIMEOUT_S:g} s", ""
        except (httpx.TransportError, httpx.DecodingError) as error:
            return None, re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__, ""


def _read_start(response: httpx.Response) -> bytes:
    """Return what can be read of the body's beginning: the status counts, whatever the body does."""
    try:
        return next(response.iter_bytes(RESPONSE_MAX), b"")
    except (httpx.TransportError, httpx.DecodingError):
        return b""


def post_patiently(
    post: Callable[[], Answer], retries: int, tell: Callable[[Answer, float, int], None], sleep: Callable[[float], None]
) -> Answer:
    """Again, after 0.5 s and then twice as long, while nobody is there; an answer that refuses is an answer."""
    for number in range(retries):
        answer = post()
        if not answer.is_away:
            return answer
        pause_s = min(0.5 * 2.0**number, 30.0)
        tell(answer, pause_s, retries - number)
        sleep(pause_s)
    return post()


def make_forwarder(url: str, secret: str | None, option: str) -> Forwarder:
    """Signed with the secret given, else with the one that signs `webhook_url`, else with one that is made up."""
    check_url(url, option)
    chosen = secret or read_environment().get("TASKHOOK_SIGNING_SECRET") or make_secret()
    check_secret(chosen)
    if not secret and not read_environment().get("TASKHOOK_SIGNING_SECRET"):
        click.echo(f"Signing secret for {url}: {chosen}", err=True)
    return Forwarder(url, chosen)


class PlaceFile:
    """The last event that was dealt with, kept in a file for the next start."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def read(self) -> str | None:
        if self._path is None or not self._path.exists():
            return None
        try:
            return self._path.read_text("utf-8").strip() or None
        except (OSError, ValueError) as error:
            raise Failure(f"{self._path}: {error}", EXIT_FAILED) from error

    def write(self, event_id: str) -> None:
        """Whole or not at all."""
        if self._path is None:
            return
        part = self._path.with_name(f".{self._path.name}.part")
        try:
            part.write_text(event_id + "\n", "utf-8")
            os.replace(part, self._path)
        except OSError as error:
            raise Failure(f"{self._path}: {error.strerror}", EXIT_FAILED) from error
