"""Runs the conformance test of an endpoint: sends each case and judges the answer."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import msgspec

from service.core.delivering import Outcome
from service.core.delivery import MEDIA_TYPES, Format
from service.core.env import Env
from service.core.masking import mask, secrets_in_url
from service.core.receiver_plan import (
    Finding,
    Probe,
    Report,
    build_plan,
    judge,
    judge_transport,
    skip,
    summarize,
)
from service.core.signing import render_secret, sign
from service.core.times import after
from service.outbound.client import Poster
from service.outbound.guard import LOCALHOST, forbidden_reason

PAUSE_S = 6.0
"""Longer than the 5 s after which many servers close an idle connection."""


class Receiver(msgspec.Struct, frozen=True, kw_only=True):
    """The endpoint under test, addressed as by a delivery. Its repr shows no secret and no header."""

    url: str
    secret: str
    format: Format = "standard"
    headers: dict[str, str] = {}

    def __repr__(self) -> str:
        return "Receiver()"

    def mask(self, text: str) -> str:
        """Mask the secrets, which an endpoint may echo."""
        return mask(text, [self.secret, *self.headers.values(), *secrets_in_url(self.url)])


async def check_receiver(
    poster: Poster,
    receiver: Receiver,
    env: Env,
    *,
    source: str = "taskhook",
    pause_s: float = PAUSE_S,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    on_finding: Callable[[Finding], None] = lambda _: None,
) -> Report:
    """Run all cases in order, calling `on_finding` after each. The guard of `poster` judges the addresses."""
    findings: list[Finding] = []

    def found(finding: Finding) -> None:
        findings.append(finding)
        on_finding(finding)

    found(judge_transport(receiver.url, is_public=_is_public(receiver.url)))
    first, *others = build_plan(env, receiver.format, source)
    found(good := judge(first.case, await _send(poster, receiver, first, env)))
    for probe in others:
        if good.grade == "fail":
            found(skip(probe.case))
            continue
        if probe.idle:
            await sleep(pause_s)
        found(judge(probe.case, await _send(poster, receiver, probe, env)))
    return summarize(receiver.mask(receiver.url), findings)


def _is_public(url: str) -> bool:
    """Return whether the URL may be public; a host name may resolve to anything."""
    host = urlsplit(url).hostname or ""
    return host != LOCALHOST and forbidden_reason(host) in (None, "not an IP address")


async def _send(poster: Poster, receiver: Receiver, probe: Probe, env: Env) -> Outcome:
    at = env.now()
    kind = {"Content-Type": MEDIA_TYPES[receiver.format]}
    signed = _sign(receiver.secret, probe, int(after(at, probe.shift_s).timestamp()))
    attempted = await poster.post(receiver.url, {**receiver.headers, **kind, **signed}, probe.body)
    error = attempted.error and receiver.mask(attempted.error)
    return Outcome(
        at=at,
        received=attempted.received,
        status_code=attempted.status_code,
        duration_ms=attempted.duration_ms,
        error=error,
        excerpt=receiver.mask(attempted.excerpt),
    )


def _sign(secret: str, probe: Probe, timestamp: int) -> dict[str, str]:
    another = render_secret(secrets.token_bytes(32))
    keys = {"secret": [secret], "another": [another], "both": [another, secret], "nobody": []}[probe.signer]
    body = probe.body if probe.signed_body is None else probe.signed_body
    return sign(keys, probe.webhook_id, timestamp, body) if keys else {}
