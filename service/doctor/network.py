"""Network checks: the public URL and its certificate, the providers, the clocks."""

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from statistics import median_low
from urllib.parse import urlsplit

import httpx
import msgspec

from service.core.account import Account, setting_name
from service.core.observation import NotFound, Pending, Throttled
from service.core.task import Task, TaskInput
from service.doctor.configuration import callback_providers, forged_and_unknown
from service.doctor.finding import Finding, fail, ok, skipped, warn
from service.providers.base import CallError, HttpReply, HttpRequest, Provider
from service.providers.replies import decode_object
from service.settings import Settings

TIMEOUT_S = 10.0
BODY_MAX = 64 * 1024
EXPIRES_FAIL_DAYS, EXPIRES_WARN_DAYS = 3, 14
SKEW_WARN_S, SKEW_FAIL_S = 5.0, 120.0
"""Signatures hold for 300 s; the time they travel must fit in what is left."""
NO_TASK = "taskhook-doctor"
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
NOT_CHECKED = "Not checked: it has no call that costs nothing."


class Clock(msgspec.Struct, frozen=True, kw_only=True):
    """By how much this machine's clock is ahead of another's."""

    whose: str
    ahead_s: float


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of an address, or why there was none."""

    at: datetime
    status: int = 0
    body: bytes = b""
    location: str = ""
    headers: dict[str, str] = {}
    error: str = ""


class Caller:
    """Call without following redirects, and read the clock of the server."""

    def __init__(self, clocks: list[Clock], now: Callable[[], datetime]) -> None:
        self._clocks = clocks
        self._now = now
        self._http = httpx.Client(verify=ssl.create_default_context(), timeout=TIMEOUT_S, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def send(self, request: HttpRequest, whose: str) -> Said:
        body = bytearray()
        started = self._now()
        try:
            with self._http.stream(
                request.method, request.url, headers=request.headers, content=request.body
            ) as response:
                self._read_clock(response.headers.get("date", ""), whose, started)
                for chunk in response.iter_bytes(4096):
                    body += chunk
                    if len(body) > BODY_MAX:
                        break
        except (httpx.TransportError, httpx.InvalidURL, httpx.DecodingError) as error:
            return Said(at=self._now(), error=describe(error))
        headers = {name.lower(): value for name, value in response.headers.items()}
        location = headers.get("location", "")
        return Said(status=response.status_code, body=bytes(body), location=location, headers=headers, at=self._now())

    def _read_clock(self, date: str, whose: str, started: datetime) -> None:
        """A Date is cut to the second: half of one is its middle."""
        try:
            at = parsedate_to_datetime(date).replace(tzinfo=UTC)
        except ValueError:
            return
        middle = started + (self._now() - started) / 2
        self._clocks.append(Clock(whose=whose, ahead_s=(middle - at).total_seconds() - 0.5))


def describe(error: Exception) -> str:
    """The plain cause, from the bottom of what wraps it."""
    text = str(error)
    if isinstance(error, httpx.TimeoutException):
        return f"no answer within {TIMEOUT_S:g} s"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return (
            "its certificate is not valid: " + text.partition("certificate verify failed: ")[2].partition(" (_ssl")[0]
        )
    if any(sign in text for sign in ("Name or service not known", "No address", "getaddrinfo", "name resolution")):
        return "its name does not resolve"
    return text.partition("] ")[2].lower() if text.startswith("[Errno") else text.lower() or type(error).__name__


def check_network(settings: Settings, clocks: list[Clock], now: Callable[[], datetime]) -> Iterator[Finding]:
    with closing(Caller(clocks, now)) as caller:
        for provider in settings.registry.values():
            yield from _check_provider(settings, provider, caller)
        yield _check_way_back(settings, caller)
    yield _check_certificate(settings.public_url, now)


# --- the way back: is what providers call this installation? ----------------------------------------------------------


def _check_way_back(settings: Settings, caller: Caller) -> Finding:
    """Two callbacks through the public URL: an installation with our keys distinguishes our token from a forged one.

    Nobody else can, and neither can change anything: the task of the genuine one can't exist.
    """
    check, names = "way back", callback_providers(settings)
    if settings.public_url is None or not names or not settings.secret_keys:
        return skipped(check, "There is no public URL, or nobody who would call it.")
    forged, genuine = forged_and_unknown(settings, names[0])
    base = f"{settings.public_url}/callbacks/{names[0]}"
    first = caller.send(_callback(f"{base}/{forged}"), "")
    if first.error or first.status != 403:
        return _judge_stranger(first)
    return judge_way_back(first, caller.send(_callback(f"{base}/{genuine}"), "the public URL's"))


def _callback(url: str) -> HttpRequest:
    headers = {"content-type": "application/json"}
    return HttpRequest(method="POST", url=url, headers=headers, body=b"{}", timeout_s=TIMEOUT_S)


def _judge_stranger(said: Said) -> Finding:
    check = "way back"
    if said.error:
        advice = "Is the service running? Check the name, the proxy and the firewall."
        return fail(check, f"The public URL does not answer ({said.error}).", advice)
    if 300 <= said.status < 400:
        target = urlsplit(said.location)
        says = f"The public URL redirects to {target.scheme}://{target.hostname}: providers do not follow."
        return fail(check, says, "Set TASKHOOK_PUBLIC_URL to the URL that it leads to.")
    if said.status >= 500:
        says = f"Before the service something answers with {said.status}."
        return fail(check, says, "Is the service running, and does the proxy lead to its port?")
    says = f"At the public URL something else answers ({said.status} to a forged callback, where we say 403)."
    return fail(check, says, "Let the proxy pass /callbacks on unchanged: path, method and body.")


def judge_way_back(forged: Said, genuine: Said) -> Finding:
    """Both are refused, but differently, which needs our keys."""
    check = "way back"
    if genuine.error:
        return warn(check, f"The public URL answered once and then no more ({genuine.error}).", "Run this again.")
    told_apart = _detail(genuine) != _detail(forged) and _detail(forged) != ""
    if told_apart and genuine.status in (403, 404):
        return ok(check, "A callback through the public URL arrives here.")
    says = "The public URL leads to a Taskhook with other secret keys, or to something like one."
    return fail(check, says, "Give it this TASKHOOK_SECRET_KEYS, or correct TASKHOOK_PUBLIC_URL.")


def _detail(said: Said) -> str:
    return str((decode_object(said.body) or {}).get("detail") or "")


# --- the certificate --------------------------------------------------------------------------------------------------


def _check_certificate(public_url: str | None, now: Callable[[], datetime]) -> Finding:
    parts = urlsplit(public_url or "")
    if parts.scheme != "https" or not parts.hostname:
        return skipped("certificate", "The public URL is not https.")
    try:
        with (
            socket.create_connection((parts.hostname, parts.port or 443), TIMEOUT_S) as plain,
            ssl.create_default_context().wrap_socket(plain, server_hostname=parts.hostname) as sealed,
        ):
            found = sealed.getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        return fail("certificate", f"It is not valid: {error.verify_message}.", "Renew it, with all of its chain.")
    except OSError as error:
        return fail("certificate", f"It can't be read ({error.strerror or error}).", "Is the public URL served?")
    expires = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(found["notAfter"])), UTC)
    return judge_certificate((expires - now()).total_seconds() / 86_400)


def judge_certificate(days: float) -> Finding:
    check, advice = "certificate", "Renew it; is the renewal by itself still running?"
    if days < EXPIRES_FAIL_DAYS:
        return fail(check, f"It expires in {days:.1f} days.", advice)
    if days < EXPIRES_WARN_DAYS:
        return warn(check, f"It expires in {days:.0f} days.", advice)
    return ok(check, f"It holds for {days:.0f} more days.")


# --- the providers ----------------------------------------------------------------------------------------------------


def _check_provider(settings: Settings, provider: Provider, caller: Caller) -> Iterator[Finding]:
    accounts = settings.usable_accounts(provider.id)
    if settings.sandbox:
        yield skipped(provider.id, "Simulated by the sandbox.")
    elif not accounts:
        yield skipped(provider.id, "Not configured.")
    elif not provider.capabilities.polling:
        yield skipped(provider.id, NOT_CHECKED)
    else:
        for account in accounts.values():
            yield _check_account(provider, account, caller)


def _check_account(provider: Provider, account: Account, caller: Caller) -> Finding:
    try:
        request = provider.build_poll(_no_task(provider.id), account)
    except CallError:
        return skipped(account.key, NOT_CHECKED)
    return judge_provider(provider, account, caller.send(request, f"{provider.id}'s"))


def _no_task(provider: str) -> Task:
    """A task that the provider does not have."""
    return Task(
        id=NO_TASK,
        provider=provider,
        model="",
        input=TaskInput(prompt="-"),
        metadata={},
        webhook_url=None,
        on_unconfirmed="wait",
        created_at=LONG_AGO,
        deadline_at=LONG_AGO,
        provider_task_id=NO_TASK,
    )


def judge_provider(provider: Provider, account: Account, said: Said) -> Finding:
    """The answer to a question for a task that is not there, which costs nothing and needs the key."""
    name = account.key
    if said.error:
        advice = "Check this machine's way out, its name servers and firewall."
        return fail(name, f"{account.base_url} can't be reached ({said.error}).", advice)
    if said.status == 401 or (decode_object(said.body) or {}).get("code") == 401:
        setting = setting_name(account.provider, account.id, "API_KEY")
        return fail(name, "It refuses the key.", f"Correct {setting}.")
    if said.status == 403:
        says = "It answers 403: the key lacks a right, the account is disabled or has no balance."
        return warn(name, says, "Look into the account at the provider.")
    reply = HttpReply(status=said.status, headers=said.headers, body=said.body, received_at=said.at)
    match provider.parse_poll(reply, account):
        case NotFound() | Pending():
            return ok(name, "It answers, and takes the key.")
        case Throttled():
            return warn(name, "It answers, and limits us at the moment.", "Is somebody else using this account?")
    return warn(name, f"It answers {said.status}, which tells nothing of the key.", "Try again later.")


# --- the clocks -------------------------------------------------------------------------------------------------------


def judge_clocks(clocks: list[Clock]) -> Finding:
    """The middle one of all: one clock that is wrong is not ours yet."""
    if not clocks:
        return skipped("clock", "Nobody told the time.")
    ahead_s = median_low(clock.ahead_s for clock in clocks)
    whose = next(clock.whose for clock in clocks if clock.ahead_s == ahead_s)
    way = "ahead of" if ahead_s > 0 else "behind"
    says = f"This machine's clock is {abs(ahead_s):.0f} s {way} {whose}."
    advice = "Let the machine set its clock by NTP."
    if abs(ahead_s) > SKEW_FAIL_S:
        return fail("clock", f"{says} Signatures will be refused.", advice)
    if abs(ahead_s) > SKEW_WARN_S:
        return warn("clock", says, advice)
    return ok("clock", f"Within {max(1.0, abs(ahead_s)):.0f} s of {whose}.")
