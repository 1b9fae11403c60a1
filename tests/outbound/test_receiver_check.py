"""A receiver is sent all that it must bear, and is told exactly where it fails."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from service.client import utc_now
from service.core.receiver_plan import LARGE_BYTES, METADATA, UNKNOWN_TYPE, Report
from service.outbound.client import Poster
from service.outbound.guard import Guard
from service.outbound.receiver_check import Receiver, check_receiver
from tests.support.env import FakeEnv
from tests.support.factory import SECRET
from tests.support.server import Answer, Hang, Reply, Request, Reset, ScriptedServer

NEGATIVE = {"wrong signature", "no signature", "tampered body", "old timestamp", "future timestamp"}
Rules = Callable[[Request], Answer]


def is_valid(request: Request) -> bool:
    """As the reference library judges."""
    try:
        Webhook(SECRET).verify(request.raw_body, request.headers)
    except WebhookVerificationError:
        return False
    return True


def careful(request: Request) -> Answer:
    return Reply(204 if is_valid(request) else 401)


class Site:
    """A receiver under test, and the check of it."""

    def __init__(self, rules: Rules) -> None:
        self.paused: list[float] = []
        self.server = ScriptedServer(self._answer)
        self._rules = rules

    async def _answer(self, request: Request) -> Answer:
        return self._rules(request)

    async def pause(self, seconds: float) -> None:
        self.paused.append(seconds)

    async def check(self, *, public_only: bool = False, **more: Any) -> Report:
        poster = Poster(Guard(allow_private=not public_only), timeout_s=0.5)
        receiver = Receiver(url=f"{self.server.url}/hook", secret=SECRET, **more)
        try:
            return await check_receiver(poster, receiver, FakeEnv(utc_now()), sleep=self.pause, pause_s=6.0)
        finally:
            await poster.close()


@asynccontextmanager
async def serving(rules: Rules) -> AsyncIterator[Site]:
    site = Site(rules)
    await site.server.listen()
    try:
        yield site
    finally:
        await site.server.close()


def graded(report: Report, *grades: str) -> set[str]:
    return {finding.check for finding in report.findings if finding.grade in grades}


async def test_a_receiver_that_does_all_well_passes_all() -> None:
    async with serving(careful) as site:
        report = await site.check()
    assert (report.grade, graded(report, "warn", "fail", "skip")) == ("pass", set())
    assert len(report.findings) == 14
    assert all(not finding.fix for finding in report.findings)
    assert site.paused == [6.0]


async def test_what_is_sent_is_what_each_finding_says() -> None:
    async with serving(careful) as site:
        await site.check(headers={"X-Own": "a header of the endpoint"})
    good, again, _, bare, _, old, future, two, later, earlier, unknown, large, _ = site.server.requests
    assert again.headers["webhook-id"] == good.headers["webhook-id"]
    assert again.raw_body == good.raw_body
    assert len({request.headers.get("webhook-id") for request in site.server.requests}) == 12
    assert not any(name.startswith("webhook-") for name in bare.headers)
    apart = [int(one.headers["webhook-timestamp"]) - int(good.headers["webhook-timestamp"]) for one in (old, future)]
    assert apart == [-600, 600]
    assert [is_valid(one) for one in (good, again, two, later, earlier, unknown, large)] == [True] * 7
    assert len(two.headers["webhook-signature"].split()) == 2
    assert later.json["data"]["id"] == earlier.json["data"]["id"]
    assert (later.json["type"], earlier.json["type"]) == ("task.succeeded", "task.running")
    assert later.json["sequence"] > earlier.json["sequence"]
    assert unknown.json["type"] == UNKNOWN_TYPE
    assert len(large.raw_body) > LARGE_BYTES
    assert all(one.json["data"]["metadata"] == METADATA for one in site.server.requests)
    assert all(one.headers["x-own"] == "a header of the endpoint" for one in site.server.requests)


async def test_a_receiver_that_verifies_nothing_fails_where_it_matters() -> None:
    async with serving(lambda _: Reply(200)) as site:
        report = await site.check()
    assert report.grade == "fail"
    assert graded(report, "fail") == NEGATIVE - {"future timestamp"}
    assert graded(report, "warn") == {"future timestamp"}
    assert all(finding.fix and finding.why for finding in report.findings if finding.check in NEGATIVE)


def forgets_the_body(request: Request) -> Answer:
    """Parses and writes again before it verifies, which mends what was altered in form alone: here it trusts the id."""
    return Reply(204 if "webhook-signature" in request.headers else 401)


def reads_one_signature(request: Request) -> Answer:
    first = request.headers.get("webhook-signature", "").split(" ")[0]
    return careful(msgspec_replaced(request, first))


def msgspec_replaced(request: Request, signature: str) -> Request:
    headers = {**request.headers, "webhook-signature": signature}
    return Request(request.method, request.target, headers, request.raw_body, request.at)


def takes_100_kib(request: Request) -> Answer:
    return Reply(413) if len(request.raw_body) > 100 * 1024 else careful(request)


def knows_its_types(request: Request) -> Answer:
    return Reply(400) if request.json["type"] == UNKNOWN_TYPE else careful(request)


def wants_order() -> Rules:
    highest: dict[str, int] = {}

    def rules(request: Request) -> Answer:
        task, sequence = request.json["data"]["id"], request.json["sequence"]
        if highest.get(task, 0) > sequence:
            return Reply(409)
        if is_valid(request):
            highest[task] = sequence
        return careful(request)

    return rules


def refuses_what_it_knows() -> Rules:
    known: set[str] = set()

    def rules(request: Request) -> Answer:
        if request.headers.get("webhook-id", "") in known:
            return Reply(409, {"error": "seen before"})
        if is_valid(request):
            known.add(request.headers["webhook-id"])
        return careful(request)

    return rules


def refuses_by_crashing(request: Request) -> Answer:
    return Reply(204) if is_valid(request) else Reply(500, "KeyError: 'webhook-signature'")


@pytest.mark.parametrize(
    ("rules", "grade", "checks"),
    [
        (forgets_the_body, "fail", NEGATIVE - {"no signature", "future timestamp"}),
        (reads_one_signature, "fail", {"two signatures"}),
        (takes_100_kib, "warn", {"large event"}),
        (knows_its_types, "warn", {"unknown type and fields"}),
        (wants_order(), "fail", {"earlier event"}),
        (refuses_what_it_knows(), "fail", {"duplicate"}),
        (refuses_by_crashing, "warn", NEGATIVE),
    ],
)
async def test_each_fault_is_found_and_no_other(rules: Rules, grade: str, checks: set[str]) -> None:
    async with serving(rules) as site:
        report = await site.check()
    assert report.grade == grade
    assert graded(report, grade) == checks
    assert not graded(report, "skip")


@pytest.mark.parametrize(
    ("answer", "got", "fix"),
    [
        (Reply(302, "", {"Location": "https://example.com/"}), "redirect to https://example.com/", "redirects are not"),
        (Reply(410), "status 410", "disables the endpoint"),
        (Reply(401, "who are you?"), "status 401", "has this endpoint's secret"),
        (Reply(500), "status 500", "Answer a valid event with a 2xx"),
        (Hang(), "no answer: timed out after 0.5 s", "Answer first and work afterwards"),
        (Reset(), "no answer: connection", "Make the URL reachable"),
    ],
)
async def test_where_the_good_event_is_refused_the_rest_is_not_tried(answer: Answer, got: str, fix: str) -> None:
    async with serving(lambda _: answer) as site:
        report = await site.check()
    good = report.findings[1]
    assert (good.check, good.grade) == ("good event", "fail")
    assert good.got.startswith(got)
    assert fix in good.fix
    assert len(graded(report, "skip")) == 12
    assert len(site.server.requests) == 1
    assert report.grade == "fail"


async def test_cloudevents_are_checked_as_they_are_sent() -> None:
    async with serving(careful) as site:
        report = await site.check(format="cloudevents")
    assert report.grade == "pass"
    first = site.server.requests[0]
    assert first.headers["content-type"] == "application/cloudevents+json"
    assert (first.json["specversion"], first.json["source"]) == ("1.0", "taskhook")


async def test_a_private_address_is_out_of_reach_where_the_guard_says_so() -> None:
    async with serving(careful) as site:
        report = await site.check(public_only=True)
    assert report.findings[1].got == "no answer: refused: address not public"
    assert not site.server.requests


async def test_nothing_secret_comes_back_in_a_finding() -> None:
    async with serving(lambda request: Reply(400, json.dumps([SECRET, request.headers["x-own"]]))) as site:
        report = await site.check(headers={"X-Own": "a-secret-header-value"})
    told = msgspec.json.encode(report).decode()
    assert SECRET not in told
    assert "a-secret-header-value" not in told
    assert report.findings[1].response == '["***", "***"]'
