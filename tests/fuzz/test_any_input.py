"""Any bytes and texts from outside are understood, or refused with an error of the API."""

import asyncio
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.core.observation import Accepted, Succeeded
from service.core.problems import Forbidden, InvalidRequest, Malformed
from service.core.task import Image
from service.core.times import to_ms
from service.core.tokens import CallbackTokens
from service.store.migrate import migrate
from service.store.reads import StoredEvent
from service.store.sqlite import SqliteDriver
from service.web.bodies import decode_body
from service.web.creating import check_key
from service.web.deliveries import ListDeliveries
from service.web.endpoints import ChangeEndpoint, CreateEndpoint, Recover
from service.web.queries import decode_query, encode_cursor, read_id_cursor, read_number_cursor, read_time
from service.web.stream import render_frame
from service.web.tasks import CreateTask, ListTasks
from tests.providers.material import fixtures
from tests.providers.test_any_bytes import JSON, changed, places
from tests.support.env import FakeEnv
from tests.support.fuzz import examples
from tests.support.registry import PROVIDERS
from tests.web.conftest import Site

ODD = st.sampled_from(
    [
        "",
        "\x00",
        "\ud800",
        "\U0001f600",
        "9" * 400,
        "`",
        " - at `$.input`",
        "key` in `$...`",
        10**30,
        -(10**400),
        1e308,
        True,
        None,
        [],
        {},
        {"": 1},
        [[[[[]]]]],
    ]
)
VALUES = st.recursive(
    ODD | JSON, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2)
)
BODIES: dict[type[Any], Any] = {
    CreateTask: {
        "model": "fluxapi-ai/flux-kontext-pro",
        "input": {"prompt": "x", "n": 1, "size": "1x1", "image_url": "https://x.example/", "options": {"seed": 7}},
        "webhook_url": "https://example.com/",
        "metadata": {"order": "1"},
        "timeout_s": 9.5,
        "on_unconfirmed": "wait",
    },
    CreateEndpoint: {
        "url": "https://example.com/",
        "events": ["task.*"],
        "providers": ["acedata"],
        "metadata": {"a": "b"},
        "format": "standard",
        "headers": {"X-Key": "v"},
        "rate_per_s": 2.5,
        "enabled": True,
    },
    ChangeEndpoint: {"url": "https://example.com/", "events": ["task.failed"], "rate_per_s": None},
    Recover: {"since": "2026-01-01T00:00:00Z", "until": None, "dry_run": True},
}
each_body = pytest.mark.parametrize("kind", BODIES, ids=lambda kind: kind.__name__)


# --- bodies -----------------------------------------------------------------------------------------------------------


def judge_body(body: bytes, kind: type[Any]) -> None:
    try:
        assert isinstance(decode_body(body, msgspec.json.Decoder(kind)), kind)
    except Malformed as problem:
        assert problem.detail
    except InvalidRequest as problem:
        assert problem.errors
        for error in problem.errors:
            assert error.loc[0] == "body" and error.msg
        json.dumps(msgspec.to_builtins(problem.errors)).encode()
        msgspec.json.encode(problem.errors)


@each_body
@given(body=st.binary(max_size=80) | JSON.map(msgspec.json.encode))
@example(body=b"\xef\xbb\xbf{}")
@example(body=b"[" * 100_000)
@example(body=b'{"model":' * 5_000)
@example(body=b'{"model": NaN}')
@example(body=b'{"\\ud800": 1}')
@example(body=b'{"model": 1, "model": 2}')
@example(body=b"9" * 5_000)
@examples(100)
def test_any_bytes_are_a_request_or_refused_with_a_reason(kind: type[Any], body: bytes) -> None:
    judge_body(body, kind)


@each_body
@given(drawn=st.data())
@examples(200)
def test_any_json_is_a_request_or_refused_by_the_place_of_the_mistake(kind: type[Any], drawn: st.DataObject) -> None:
    body: Any = BODIES[kind]
    for _ in range(drawn.draw(st.integers(1, 3))):
        body = altered(body, drawn)
    judge_body(json.dumps(body, ensure_ascii=drawn.draw(st.booleans())).encode("utf-8", "surrogatepass"), kind)


def altered(body: Any, drawn: st.DataObject) -> Any:
    """With one value replaced, or one field more."""
    paths = list(places(body))
    if not paths:
        return body
    path, value = drawn.draw(st.sampled_from(paths)), drawn.draw(VALUES)
    if drawn.draw(st.booleans()) or not isinstance(path[-1], str):
        return changed(body, path, value)
    around = body
    for step in path[:-1]:
        around = around[step]
    return changed(body, path[:-1], {**around, drawn.draw(st.text(max_size=5)): value})


@pytest.mark.parametrize("rate", [0, -1, 1e-13, 5e-324, 0.0009, 10_001, 1e300])
def test_a_rate_that_no_clock_can_keep_is_refused(rate: float) -> None:
    body = json.dumps({"url": "https://example.com/", "rate_per_s": rate}).encode()
    with pytest.raises(InvalidRequest) as caught:
        decode_body(body, msgspec.json.Decoder(CreateEndpoint))
    assert caught.value.errors[0].loc == ["body", "rate_per_s"]


# --- queries, cursors, keys and tokens --------------------------------------------------------------------------------

NAMES = st.sampled_from(
    ["status", "limit", "cursor", "created_after", "metadata.a", "metadata.", "provider", "%00", "x"]
)
PAIRS = st.lists(st.tuples(NAMES, st.text(st.characters(max_codepoint=255), max_size=8)), max_size=4)


@pytest.mark.parametrize("kind", [ListTasks, ListDeliveries])
@given(query=st.binary(max_size=60) | PAIRS.map(lambda pairs: "&".join("=".join(p) for p in pairs).encode("latin-1")))
@examples(200)
def test_any_query_is_read_or_refused_by_its_parameter(kind: type[Any], query: bytes) -> None:
    try:
        assert isinstance(decode_query(query, kind), kind)
    except InvalidRequest as problem:
        assert all(error.loc[0] == "query" and error.msg for error in problem.errors)


@given(text=st.text(max_size=60) | st.from_regex(r"\A[A-Za-z0-9_=-]{0,60}\Z"))
@examples(200)
def test_a_cursor_is_one_of_ours_or_refused(text: str) -> None:
    for read in (read_number_cursor, lambda cursor: read_id_cursor(cursor, "task")):
        try:
            found = read(text)
        except InvalidRequest:
            continue
        assert int(found).bit_length() < 64 if isinstance(found, int) else re.fullmatch("task_[0-9a-f]{32}", found)


@given(number=st.integers(0, 10**18 - 1), bits=st.integers(0, 2**128 - 1))
@examples(100)
def test_a_cursor_that_was_given_is_taken_back(number: int, bits: int) -> None:
    assert read_number_cursor(encode_cursor(number)) == number
    assert read_id_cursor(encode_cursor(f"task_{bits:032x}"), "task") == f"task_{bits:032x}"


DAY = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
CLOCK = r"[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,12})?)?"
TIMES = st.from_regex(rf"\A{DAY}({CLOCK}([Zz]|[+ -][0-9]{{2}}:[0-9]{{2}})?)?\Z")


@given(text=st.text(max_size=30) | TIMES)
@example(text="0001-01-01T00:00:00+23:59")
@example(text="9999-12-31T23:59:59-23:59")
@example(text="9999-12-31T23:59:59.9999999")
@examples(300)
def test_a_time_is_one_that_a_database_can_hold_or_refused(text: str) -> None:
    try:
        at = read_time(text, "query", "since")
    except InvalidRequest as problem:
        assert problem.errors[0].loc == ["query", "since"]
        return
    assert at is not None and at.utcoffset() is not None
    assert 0 <= to_ms(at) < 2**48, "an id's time has 48 bits"


@given(key=st.text(max_size=300))
@examples(100)
def test_an_idempotency_key_is_printable_or_refused(key: str) -> None:
    try:
        assert check_key(key) == key
        assert 1 <= len(key) <= 255 and re.fullmatch("[ -~]+", key)
    except InvalidRequest as problem:
        assert problem.errors[0].loc == ["header", "Idempotency-Key"]


TOKENS = CallbackTokens(["a secret key", "an older one"], list(PROVIDERS))
TASK = "task_" + "0" * 31 + "1"


@given(
    provider=st.sampled_from(list(PROVIDERS)),
    token=st.text(max_size=120) | st.from_regex(r"\Atask_[0-9a-f]{32}\.[A-Za-z0-9_-]{64}\Z"),
)
@examples(200)
def test_no_token_but_ours_names_a_task(provider: str, token: str) -> None:
    with pytest.raises(Forbidden) as caught:
        TOKENS.verify(provider, token)
    assert len(token) < 3 or token not in caught.value.detail


@given(bits=st.integers(0, 2**128 - 1), place=st.integers(0, 200), how=st.sampled_from(["cut", "double", "swap"]))
@examples(200)
def test_a_token_has_one_spelling(bits: int, place: int, how: str) -> None:
    good = TOKENS.sign("acedata", f"task_{bits:032x}")
    assert TOKENS.verify("acedata", good) == f"task_{bits:032x}"
    place %= len(good)
    bad = {
        "cut": good[:place],
        "double": good[: place + 1] + good[place:],
        "swap": good[:place] + good[place].swapcase() + good[place + 1 :],
    }[how]
    if bad != good:
        with pytest.raises(Forbidden):
            TOKENS.verify("acedata", bad)
    with pytest.raises(Forbidden):
        TOKENS.verify("fluxapi-ai", good)


# --- callbacks --------------------------------------------------------------------------------------------------------


class CallbackSite:
    """The application behind one event loop that a synchronous test can turn."""

    def __init__(self, directory: Path, runner: asyncio.Runner) -> None:
        self.runner = runner
        self.directory = directory

    async def open(self) -> None:
        env = FakeEnv()
        driver = SqliteDriver(str(self.directory / "taskhook.db"))
        await driver.open()
        await migrate(driver, to_ms(env.now()))
        self.site = Site(driver, env)
        self.site.writer.start()
        self.client = self.site.client()

    async def close(self) -> None:
        await self.client.aclose()
        await self.site.writer.stop()
        await self.site.driver.close()

    async def call_back(self, provider: str, state: str, body: bytes, headers: dict[str, str]) -> int:
        """The status; a task of its own in that state."""
        model = f"{provider}/{PROVIDERS[provider].capabilities.models[0].name}"
        task = await self.site.create(self.client, model=model)
        if state == "final":
            await self.client.post(f"/v1/tasks/{task['id']}/cancel")
        elif state == "running":
            await self.site.learn(task["id"], Accepted(provider_task_id="p"))
        token = self.site.tokens.sign(provider, task["id"])
        reply = await self.client.post(f"/callbacks/{provider}/{token}", content=body, headers=headers)
        after = (await self.client.get(f"/v1/tasks/{task['id']}")).json()
        assert after["status"] in ("queued", "running", "succeeded", "failed", "canceled")
        if state == "final":
            assert after["status"] == "canceled"
        for path in ("timeline", "why"):
            told = await self.client.get(f"/v1/tasks/{task['id']}/{path}")
            assert told.status_code == 200 and token.split(".")[1] not in told.text
        events = (await self.client.get("/v1/events", params={"task_id": task["id"]})).json()["data"]
        finals = [event for event in events if event["type"] != "task.late_result"]
        assert len(finals) == (1 if after["status"] in ("succeeded", "failed", "canceled") else 0)
        return reply.status_code


@pytest.fixture(scope="module")
def callbacks() -> Iterator[CallbackSite]:
    with tempfile.TemporaryDirectory() as directory, asyncio.Runner() as runner:
        site = CallbackSite(Path(directory), runner)
        runner.run(site.open())
        try:
            yield site
        finally:
            runner.run(site.close())


CALLED = [name for name, provider in PROVIDERS.items() if provider.capabilities.callbacks]
DOCUMENTED = [(name, fixture) for name, fixture in fixtures() if fixture.call == "callback"]
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "content-type": st.sampled_from(["application/json", "text/html", ""]),
        "x-webhook-signature": st.just("x"),
    },
)
STATES = st.sampled_from(["queued", "running", "final"])


@given(drawn=st.data(), state=STATES, headers=HEADERS)
@examples(60)
def test_any_callback_with_a_good_token_is_answered_as_the_table_says(
    callbacks: CallbackSite, drawn: st.DataObject, state: str, headers: dict[str, str]
) -> None:
    provider, fixture = drawn.draw(st.sampled_from([(p, f) for p, f in DOCUMENTED if p in CALLED]))
    documented = fixture.body if isinstance(fixture.body, dict) else {}
    body: bytes
    match drawn.draw(st.sampled_from(["bytes", "json", "documented", "altered", "altered"])):
        case "bytes":
            body = drawn.draw(st.binary(max_size=300))
        case "json":
            body = msgspec.json.encode(drawn.draw(JSON))
        case "documented":
            body = json.dumps(documented, indent=drawn.draw(st.sampled_from([None, 1]))).encode()
        case _:
            body = json.dumps(altered(documented, drawn)).encode("utf-8", "surrogatepass")
    status = callbacks.runner.run(callbacks.call_back(provider, state, body, headers))
    assert status in (200, 400, 409)


@given(provider=st.sampled_from([*PROVIDERS, "nobody", "%2e%2e", "fluxapi-ai%00"]), token=st.text(max_size=40))
@example(provider="fluxapi-ai", token="../../v1/tasks")
@example(provider="fluxapi-ai", token="\x00")
@examples(60)
def test_any_callback_without_a_good_token_is_refused(callbacks: CallbackSite, provider: str, token: str) -> None:
    async def call() -> int:
        path = "".join(f"%{byte:02x}" for byte in token.encode("utf-8", "surrogatepass"))
        return (await callbacks.client.post(f"/callbacks/{provider}/{path}", content=b"{}")).status_code

    assert callbacks.runner.run(call()) == (403 if provider in PROVIDERS else 404)


# --- the event stream -------------------------------------------------------------------------------------------------

BLANKS = st.text(st.sampled_from(" \t\n\r"), max_size=3)
TEXTS = st.text(st.sampled_from('ab"\\\n\r\x85\u2028\u2029\x00: \U0001f600'), max_size=8)
PAYLOADS = st.recursive(
    TEXTS.map(json.dumps) | st.sampled_from(["1", "null", "-0.5e10"]),
    lambda inner: (
        st.lists(st.tuples(BLANKS, inner, BLANKS).map("".join), max_size=3).map(lambda parts: f"[{','.join(parts)}]")
        | st.lists(st.tuples(BLANKS, TEXTS.map(json.dumps), st.just(":"), inner).map("".join), max_size=3).map(
            lambda parts: "{" + ",".join(parts) + "}"
        )
    ),
)


def read_frames(stream: bytes) -> list[dict[str, str]]:
    """As the HTML standard tells a client to (9.2.6)."""
    frames: list[dict[str, str]] = []
    fields: dict[str, list[str]] = {}
    for line in re.split("\r\n|\n|\r", stream.decode()):
        if not line:
            if "data" in fields:
                frames.append({name: "\n".join(values) for name, values in fields.items()})
            fields = {}
        else:
            name, _, value = line.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))
    return frames


@given(payload=PAYLOADS)
@example(payload='{\r\n "a":\n\n 1,\r "b": "data: x\\n\\nid: 7"}')
@examples(200)
def test_whatever_a_provider_sent_is_one_frame_of_the_stream(payload: str) -> None:
    body = b'{"id":"evt_1","data":%b}' % payload.encode()
    stream = render_frame(StoredEvent(seq=1, id="evt_1", type="task.succeeded", task_id="task_1", body=body))
    (frame,) = read_frames(stream)
    assert frame.keys() == {"id", "event", "data"} and frame["id"] == "evt_1"
    assert json.loads(frame["data"]) == json.loads(body)


def test_a_payload_with_line_breaks_reaches_a_subscriber_as_it_came_and_the_stream_in_one_frame(
    callbacks: CallbackSite,
) -> None:
    raw = b'{\r\n  "picture":\n\n  "https://cdn.example/x.png"\r}'

    async def end() -> StoredEvent:
        task = await callbacks.site.run(callbacks.client)
        image = Image(url="https://cdn.example/x.png")
        await callbacks.site.learn(task["id"], Succeeded(images=(image,), raw=msgspec.Raw(raw)), "poll")
        return (await callbacks.site.reads.events_after(0, 500, task_id=task["id"]))[-1]

    event = callbacks.runner.run(end())
    assert raw in event.body
    (frame,) = read_frames(render_frame(event))
    assert json.loads(frame["data"])["data"]["result"]["raw"] == json.loads(raw)
