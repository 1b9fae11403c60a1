"""The same canaries before people: no page of the dashboard, no command and no trace tells a secret."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx
import pytest
import pytest_asyncio

from service.dashboard.routes import PAGES
from tests.cli.conftest import run as run_command
from tests.cli.conftest import started
from tests.flows.conftest import World
from tests.security.test_secrets_stay_secret import (
    API_KEY,
    HEADER,
    PROMPT,
    SHOWN_NOWHERE,
    SHOWN_TO_WHO_SENT_IT,
    SHOWN_WITH_DELIVERIES,
    Run,
    canary,
    drive_callbacks_of,
    drive_deliveries,
    found_in,
    ids_of,
    start,
)
from tests.support.collector import Collector
from tests.support.wait import PATIENCE_S, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("canaries")]

PASSWORD = canary("password")
ELSEWHERE = f"postgresql://canary:{PASSWORD}@127.0.0.1:9/canary"


@dataclass
class Told:
    """Everything that people and the trace collector saw during a whole life of the service."""

    run: Run
    door: str = ""
    pages: dict[str, str] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    log: str = ""
    traces: str = ""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def told(world: World) -> AsyncIterator[Told]:
    async with Collector() as collector:
        made = Told(await start(world, collector.environment))
        await drive_deliveries(world, made.run)
        await drive_callbacks_of(world.fluxapi_ai, made.run)
        await drive_pages(made)
        await drive_commands(world, made)
        await made.run.service.terminate()
        await drive_commands_of_a_stopped_service(made)
        made.log, made.traces = made.run.service.log(), collector.everything.decode("latin-1")
        yield made


async def drive_pages(told: Told) -> None:
    """Every page there is, for every id there is, and those forms whose answer shows what came of them."""
    service, same_site = told.run.service, {"Sec-Fetch-Site": "same-origin"}
    ids = await ids_of(service.api)
    async with httpx.AsyncClient(
        base_url=service.url, headers=same_site, timeout=PATIENCE_S, trust_env=False
    ) as browser:
        told.door = (await browser.get("/")).text + (await browser.post("/sign-in", data={"key": HEADER})).text
        assert (await browser.post("/sign-in", data={"key": API_KEY})).status_code == 303
        for page in PAGES:
            if page.method == "GET" and page.path != "/live":
                for thing in ids[page.path.split("/")[1]] if "{id}" in page.path else [""]:
                    path = page.path.replace("{id}", thing)
                    told.pages[path] = (await browser.get(path)).raise_for_status().text
        csrf = re.findall(r'name="csrf" value="([^"]*)"', told.pages["/playground"])[0]
        tried = {f"/endpoints/{one['id']}/check": {} for one in await refusing(told)}
        tried["/playground/preview"] = {"model": "fluxapi-ai/flux-kontext-pro", "prompt": PROMPT}
        for path, fields in tried.items():
            told.pages[f"POST {path}"] = (await browser.post(path, data={"csrf": csrf, **fields})).text


async def refusing(told: Told) -> list[dict[str, str]]:
    """Endpoints that take no event, so that a check of them ends at once; some of them say why with all they got."""
    endpoints = await told.run.service.api.pages("/v1/endpoints")
    return [one for one in endpoints if not one["url"].endswith("/echoes")]


async def drive_commands(world: World, told: Told) -> None:
    service = told.run.service
    env = {**service.env, "TASKHOOK_URL": service.url, "TASKHOOK_API_KEY": API_KEY}
    echoes = world.receiver.subscribers["/echoes"].url
    called_back = next(task["id"] for task in await service.api.pages("/v1/tasks") if task["tracking"]["callbacks"])
    commands = {
        "doctor": (),
        "check-receiver": (echoes, "--pause-s", "0"),
        "replay --type callback": (called_back, "--to", echoes),
        "show": (called_back,),
    }

    for name, arguments in commands.items():
        ended = await run_command(service.directory, *name.split(), *arguments, env=env)
        told.said[name] = ended.out + ended.err
    for name, arguments in (("listen", ("--forward-to", echoes)), ("watch", ())):
        async with started(service.directory, name, *arguments, env=env) as running:
            await until(lambda: follows(told), what=f"{name} follows the stream")
            task = await service.api.submit("fluxapi-ai/flux-kontext-pro", PROMPT)
            await service.client.post(f"/v1/tasks/{task['id']}/cancel")
            await until(lambda out=running, wanted=task["id"]: wanted in out.out, what=f"an event in {name}")
            ended = await running.interrupt()
            told.said[name] = ended.out + ended.err


async def follows(told: Told) -> bool:
    return "taskhook_stream_clients 1.0" in (await told.run.service.client.get("/metrics")).text


async def drive_commands_of_a_stopped_service(told: Told) -> None:
    service = told.run.service
    for name, env in (
        (f"migrate --from sqlite:///{service.directory}/taskhook.db --to {ELSEWHERE}", {}),
        ("doctor --json", {"TASKHOOK_DATABASE_URL": ELSEWHERE}),
    ):
        ended = await run_command(service.directory, *name.split(), env=service.env | env)
        assert ended.code != 0, name
        told.said[f"{name.split()[0]} of a stopped service: {len(told.said)}"] = ended.out + ended.err


async def test_no_page_holds_a_secret(told: Told) -> None:
    secrets = SHOWN_NOWHERE | {name: told.run.made[name] for name in ("callback tokens", "endpoint secrets")}
    assert any(PROMPT in page for page in told.pages.values()), "the right pages were read"
    assert {path: found for path, page in told.pages.items() if (found := found_in(page, secrets))} == {}


async def test_the_page_before_the_sign_in_holds_nothing_at_all(told: Told) -> None:
    assert "Sign in" in told.door
    assert found_in(told.door, everything(told)) == {}


async def test_tokens_of_a_webhook_url_are_on_the_pages_of_deliveries_alone(told: Told) -> None:
    others = {path: page for path, page in told.pages.items() if not path.startswith(("/deliveries", "/tasks/"))}
    assert {path: found for path, page in others.items() if (found := found_in(page, SHOWN_WITH_DELIVERIES))} == {}


async def test_no_command_prints_a_secret(told: Told) -> None:
    secrets = SHOWN_NOWHERE | told.run.made | {"the database's password": [PASSWORD]}
    assert len(told.said) == 8
    assert all(told.said.values()), "each said something"
    assert {name: found for name, said in told.said.items() if (found := found_in(said, secrets))} == {}


async def test_neither_the_log_nor_a_trace_holds_anything_of_it(told: Told) -> None:
    assert "session.opened" in told.log
    assert "endpoint.checked" in told.log
    assert "POST /callbacks/{provider}/{token}" in told.traces
    assert found_in(told.log, everything(told)) == {}
    assert found_in(told.traces, everything(told)) == {}


def everything(told: Told) -> dict[str, list[str]]:
    return SHOWN_NOWHERE | SHOWN_TO_WHO_SENT_IT | SHOWN_WITH_DELIVERIES | told.run.made
