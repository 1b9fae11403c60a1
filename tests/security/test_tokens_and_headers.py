"""Tokens have one spelling, and what callers give for headers ends where it was meant to."""

import base64
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest
import pytest_asyncio

from tests.flows.conftest import World
from tests.security.raw import send
from tests.support.api import new_prompt, problem
from tests.support.service import Service
from tests.support.wait import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("tokens")]

HEADERS_MAX = 20
CONTROLS = [chr(code) for code in (*range(0x20), 0x7F, *range(0x80, 0xA0), 0x2028, 0x2029, 0xFF0D)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(world: World) -> AsyncIterator[Service]:
    yield await world.start({"TASKHOOK_CALLBACK_GRACE_S": "60"})


async def test_a_stranger_that_names_another_address_each_time_is_throttled_all_the_same(service: Service) -> None:
    """No proxy is trusted that is not listed, one on this machine included."""
    given = [{"Authorization": "Bearer x", "X-Forwarded-For": f"192.0.2.{number}"} for number in range(70)]
    statuses = [(await service.client.get("/v1/tasks", headers=headers)).status_code for headers in given]
    assert statuses.count(429) >= 10


async def test_a_token_in_another_encoding_is_no_token(world: World, service: Service) -> None:
    """The same bytes once decoded, and still refused: a token that was written down or cached under it is of no use."""
    fake, prompt = world.fluxapi_ai, new_prompt()
    plan = fake.script(prompt)
    task = await service.api.submit("fluxapi-ai/flux-kontext-pro", prompt)
    await service.api.accepted(task["id"])
    body = fake.callback_body(plan.job, "success")
    token, base = plan.job.token, plan.job.callback_url.rsplit("/", 1)[0]
    spellings = {
        token.replace(".", "%2E"),
        token.replace("task_", "task%5F"),
        "".join(f"%{byte:02X}" for byte in token.encode()),
        quote(quote(token.replace(".", "%2E"))),
        token.upper(),
        f"{token}/",
        f"{token}%00",
        f"{token}%0A",
        f"./{token}",
        f"x/../{token}",
        f"{token};a=b",
        base64.urlsafe_b64encode(token.encode()).decode(),
    }
    statuses = {}
    for spelled in spellings:
        content = b'{"code": 200}'
        head = (
            f"POST {base.split(str(service.port))[1]}/{spelled} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}"
        )
        heard = await send(service.port, f"{head}\r\nConnection: close\r\n\r\n".encode() + content, quiet_s=2)
        statuses[spelled] = heard.statuses
    assert {tuple(status) for status in statuses.values()} <= {(403,), (404,)}, statuses
    after = await service.api.task(task["id"])
    assert (after["status"], after["tracking"]["callbacks"]) == ("running", 0)
    assert (await fake.callback(plan.job, body=body)).status == 200


async def test_the_token_of_another_task_moves_neither(world: World, service: Service) -> None:
    fake = world.fluxapi_ai
    plans = [fake.script(prompt := new_prompt()) for _ in range(2)]
    tasks = [await service.api.submit("fluxapi-ai/flux-kontext-pro", plan.prompt or prompt) for plan in plans]
    for task in tasks:
        await service.api.accepted(task["id"])
    mine, other = plans
    answer = await fake.callback(other.job, body=fake.callback_body(mine.job, "success"))
    assert answer.status == 409
    assert [(await service.api.task(task["id"]))["status"] for task in tasks] == ["running", "running"]


async def test_no_control_character_gets_into_a_header(service: Service) -> None:
    """In a value and in a name, at each end and in the middle; at registration and at a change."""
    good = {"url": f"{service.url}/nowhere"}
    endpoint = await service.api.endpoint("http://127.0.0.1:9999/")

    async def refuse(headers: dict[str, str]) -> None:
        for method, path in (("POST", "/v1/endpoints"), ("PATCH", f"/v1/endpoints/{endpoint['id']}")):
            reply = problem(await service.client.request(method, path, json=good | {"headers": headers}), 422)
            named = [["body", "headers", name.replace("\0", "?")] for name in headers]
            assert [error["loc"] for error in reply["errors"]] == named, method

    inner = [char for char in CONTROLS if char != "\t"]
    values = [f"{char}a" for char in CONTROLS] + [f"a{char}" for char in CONTROLS] + [f"a{char}b" for char in inner]
    tried = [(f"X-{number}", value) for number, value in enumerate(values)] + [(f"X{char}A", "a") for char in CONTROLS]
    no_body = [header for header in tried if "\0" in "".join(header)]  # refused before any header is looked at
    tried = [header for header in tried if header not in no_body]
    for start in range(0, len(tried), HEADERS_MAX):
        await refuse(dict(tried[start : start + HEADERS_MAX]))
    for header in no_body:
        await refuse(dict([header]))


async def test_what_is_taken_for_a_header_arrives_as_one_header(world: World, service: Service) -> None:
    subscriber = world.receiver.subscriber("headers")
    value = "a\tb: c, ;=\"'%0d%0aX-Injected: yes \\r\\n"
    endpoint = await service.api.endpoint(subscriber.url, headers={"X-A": value, "X-Empty": ""})
    await service.client.post(f"/v1/endpoints/{endpoint['id']}/test")
    await until(lambda: subscriber.received)
    headers = subscriber.received[0].request.headers
    assert headers["x-a"] == value
    assert headers["x-empty"] == ""
    assert "x-injected" not in headers


async def test_a_request_id_from_outside_is_taken_only_as_a_plain_word(service: Service) -> None:
    for given, is_taken in (("abc-1.2:3", True), ("a b", False), ("a" * 129, False), ("é", False), ("a;b", False)):
        reply = await service.client.get("/healthz", headers={b"X-Request-ID": given.encode()})
        assert (reply.headers["x-request-id"] == given) == is_taken, given
