"""Playground, providers, keys and faults as pages, on the same functions as the API."""

import json
import re
import shlex
from datetime import date
from typing import Any, ClassVar

import httpx
import msgspec
import pytest

from service.core.breaker import OPENS_AFTER, AccountCall
from service.core.change import Change
from service.core.task import TaskInput
from service.core.views import TaskView
from service.dashboard.charts import draw_days
from service.dashboard.parameters import entered_of, parameters_of, read_request
from service.dashboard.snippets import curl_snippet, python_snippet
from service.dashboard.spending import KEPT_S, Spending
from service.providers.base import Model, Option
from service.store import faults
from service.store.batch import Batch, Keys
from service.web.auth import LOOK_S
from tests.dashboard.conftest import Browser, Door, make_key
from tests.support.factory import picture
from tests.support.registry import PROVIDERS
from tests.web.conftest import MODEL, Site, site

__all__ = ["site"]

MODELS = [(name, model) for name, provider in PROVIDERS.items() for model in provider.capabilities.models]
BODY = {"model": MODEL, "input": {"prompt": 'it\'s a "lighthouse" $HOME `id` \\ 灯塔\n', "n": 2, "translate": True}}


# --- the form of a model ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("provider", "model"), MODELS, ids=lambda one: getattr(one, "name", one))
def test_every_choice_that_the_form_of_a_model_offers_is_taken(provider: str, model: Model) -> None:
    """Each value alone, since some exclude each other."""
    for parameter in parameters_of(model):
        for value in (*parameter.choices, *parameter.suggestions):
            body = read_request(model, model.name, {"input.prompt": "x", parameter.name: value})
            task_input = msgspec.convert(body["input"], type=TaskInput)
            assert PROVIDERS[provider].check(model, task_input) == [], (parameter.name, value)


def test_what_is_left_empty_is_left_out_and_what_is_no_number_stays_text() -> None:
    model = Model(
        name="m",
        max_images=4,
        edits=True,
        options=(Option(name="seed", type="integer", minimum=0, maximum=9), Option(name="raw", type="boolean")),
    )
    form = {"input.prompt": " x ", "input.n": "many", "input.image_url": " ", "input.options.raw": "false"}
    body = read_request(model, "p/m", {**form, "input.options.seed": "7", "input.size": "1x1", "csrf": "s"})
    assert body == {"model": "p/m", "input": {"prompt": " x ", "n": "many", "options": {"seed": 7, "raw": False}}}


async def test_a_task_fills_the_form_that_makes_it_again(site: Site, api: httpx.AsyncClient) -> None:
    given = {"prompt": "x", "aspect_ratio": "16:9", "translate": True, "options": {"promptUpsampling": False}}
    task = msgspec.convert(await site.create(api, input=given), TaskView)
    provider, name = MODEL.split("/")
    model = next(model for known, model in MODELS if (known, model.name) == (provider, name))
    again = read_request(model, MODEL, entered_of(task))
    assert again["model"] == MODEL
    assert {name: again["input"][name] for name in given} == given


def test_a_snippet_is_the_request_whatever_is_in_it() -> None:
    words = shlex.split(curl_snippet("http://taskhook.test", BODY))
    assert json.loads(words[words.index("-d") + 1]) == BODY
    code = python_snippet("http://taskhook.test", BODY)
    compile(code, "snippet", "exec")
    sent: dict[str, Any] = {}
    exec(code.replace("import httpx", "").replace("import os", ""), _stand_ins(sent))
    assert sent["json"] == BODY and sent["url"] == "http://taskhook.test/v1/tasks"


def _stand_ins(sent: dict[str, Any]) -> dict[str, Any]:
    class Reply:
        def raise_for_status(self) -> "Reply":
            return self

        def json(self) -> dict[str, str]:
            return {"id": "task_x", "status": "queued"}

    class Httpx:
        @staticmethod
        def post(url: str, **rest: Any) -> Reply:
            sent.update(rest, url=url)
            return Reply()

    class Os:
        environ: ClassVar = {"TASKHOOK_API_KEY": "k"}

    return {"httpx": Httpx, "os": Os}


# --- playground -------------------------------------------------------------------------------------------------------


async def test_the_playground_asks_for_what_the_model_takes(browser: Browser) -> None:
    page = await browser.page("/playground?model=acedata/flux-dev")
    assert 'name="input.size"' in page and 'name="input.aspect_ratio"' not in page
    page = await browser.page("/playground?model=acedata/flux-kontext-pro")
    assert 'name="input.aspect_ratio"' in page and 'name="input.image_url"' in page
    assert "sandbox:" not in page, "a real provider does not know the magic words"
    assert (await browser.get("/playground?model=no/such<b>")).status_code == 200


async def test_a_preview_says_what_the_api_would_and_makes_nothing(browser: Browser, api: httpx.AsyncClient) -> None:
    await browser.page("/playground")
    fields = {"model": "acedata/flux-dev", "input.prompt": "x", "input.size": "1x1", "input.n": "11"}
    page = (await browser.send("/playground/preview", **fields)).text
    assert 'id="field-input.size-error"' in page and "must be from 1 to 10" in page
    page = (await browser.send("/playground/preview", **fields | {"input.prompt": ""})).text
    assert "field-error" not in page, "nobody is scolded before the first word"
    assert (await api.get("/v1/tasks")).json()["data"] == []


async def test_what_is_sent_is_a_task_and_its_picture_shows_up(
    browser: Browser, site: Site, api: httpx.AsyncClient
) -> None:
    await browser.page("/playground")
    refused = await browser.send("/playground", **{"model": MODEL, "input.prompt": "  "})
    assert refused.status_code == 422 and 'id="field-input.prompt-error"' in refused.text
    reply = await browser.send(
        "/playground", **{"model": MODEL, "input.prompt": "<i>x</i>", "input.aspect_ratio": "16:9"}
    )
    task_id = reply.headers["location"].removeprefix("/playground?task=")
    page = await browser.page(reply.headers["location"])
    assert "queued" in page and "&lt;i&gt;x&lt;/i&gt;" in page and "<i>x</i>" not in page
    await site.learn(task_id, picture('https://cdn.example/"><script>.png'))
    page = await browser.page(reply.headers["location"])
    assert 'src="https://cdn.example/&#34;&gt;&lt;script&gt;.png"' in page and "<script>.png" not in page
    assert "Nothing made yet" in await browser.page(f"/playground?task=task_{'0' * 32}")


# --- providers --------------------------------------------------------------------------------------------------------


async def test_a_provider_that_does_not_answer_says_when_it_is_tried(site: Site, browser: Browser) -> None:
    failed = AccountCall(account="acedata", kind="submit", answered=False)
    for _ in range(OPENS_AFTER):
        await site.writer.change(Keys(), lambda _: Change(calls=(failed,)))
    page = await browser.page("/providers")
    card = page.partition('id="provider-acedata"')[2].partition("</section>")[0]
    assert "not answering" in card and f"{OPENS_AFTER} failures in a row" in card and "next try" in card
    other = page.partition('id="provider-fluxapi-ai"')[2].partition("</section>")[0]
    assert "healthy" in other


async def test_a_provider_that_is_not_configured_names_its_setting(site: Site) -> None:
    providers = {name: msgspec.structs.replace(one, accounts={}) for name, one in site.context.providers.items()}
    site.context = msgspec.structs.replace(site.context, providers=providers)
    browser = Door(site).browser()
    await browser.sign_in()
    assert "TASKHOOK_ACEDATA_API_KEY" in await browser.page("/providers")
    assert "No provider is configured" in await browser.page("/playground")


async def test_what_was_charged_is_shown_by_day(site: Site, api: httpx.AsyncClient, browser: Browser) -> None:
    task = await site.run(api)
    await site.learn(task["id"], picture(cost=2.5), "poll")
    page = await browser.page("/providers")
    assert "credits in 14 days, for 1 task" in page and f"{site.env.now():%Y-%m-%d}: 2.5 credits" in page


async def test_what_was_charged_is_added_up_once_for_all_open_pages(site: Site, api: httpx.AsyncClient) -> None:
    spending, since = Spending(site.reads, site.env.monotonic), site.env.now()
    task = await site.run(api)
    await site.learn(task["id"], picture(cost=2.5), "poll")
    assert (await spending.since(since)).tasks == {"fluxapi-ai": 1}
    another = await site.run(api, provider_task_id="job-2")
    await site.learn(another["id"], picture(cost=1), "poll")
    assert (await spending.since(since)).tasks == {"fluxapi-ai": 1}
    site.env.pass_time(KEPT_S)
    assert (await spending.since(since)).tasks == {"fluxapi-ai": 2}


def test_a_chart_of_days_has_a_bar_for_each() -> None:
    chart = draw_days({date(2026, 1, 2): 4.0, date(2026, 1, 3): 1.0}, date(2026, 1, 3), 3)
    assert [bar.tone for bar in chart.bars] == ["empty", "good", "good"]
    assert chart.bars[1].height == chart.height and chart.bars[2].height < chart.height
    assert chart.summary == "5 credits in 3 days."


# --- keys and faults --------------------------------------------------------------------------------------------------


async def test_a_key_is_made_shown_once_and_revoked(
    browser: Browser, api: httpx.AsyncClient, door: Door, site: Site
) -> None:
    assert "No keys yet" in await browser.page("/keys")
    reply = await browser.send("/keys", name="")
    assert reply.status_code == 422 and "field-error" in reply.text
    reply = await browser.send("/keys", **{"name": "<b>x</b>", "scopes:tasks:read": "on"})
    assert reply.status_code == 201
    (key,) = set(re.findall(r"tk_live_[0-9A-Za-z]{39}", reply.text))
    page = await browser.page("/keys")
    assert key not in page and "&lt;b&gt;x&lt;/b&gt;" in page
    reader = door.browser()
    assert (await reader.sign_in(key)).status_code == 303
    assert (await reader.get("/keys")).status_code == 403
    (made,) = (await api.get("/v1/keys")).json()["data"]
    await browser.send(f"/keys/{made['id']}/revoke")
    site.env.pass_time(LOOK_S)
    assert (await door.browser().send("/sign-in", key=key)).status_code == 401


async def test_keys_and_faults_are_for_the_right_admin(door: Door, api: httpx.AsyncClient) -> None:
    worker = door.browser()
    await worker.sign_in((await make_key(api, "tasks:read", "tasks:write", "endpoints"))["key"])
    assert 'href="/keys"' not in await worker.page("/")
    for path in ("/keys", "/faults"):
        assert (await worker.get(path)).status_code == 403, path
    assert (await worker.send("/keys", **{"name": "x", "scopes:admin": "on"})).status_code == 403


async def test_what_is_parked_is_taken_up_again(site: Site, api: httpx.AsyncClient, browser: Browser) -> None:
    assert "Nothing has failed" in await browser.page("/faults")
    task = await site.run(api)

    async def park(batch: Batch) -> None:
        for _ in range(5):
            await faults.note(batch, task["id"], ValueError("t0p"))

    await site.writer.run(park)
    page = await browser.page("/faults")
    assert "parked" in page and "ValueError" in page and "t0p" not in page
    reply = await browser.send(f"/faults/{task['id']}/retry")
    assert reply.status_code == 303
    assert "The task is taken up again." in await browser.page("/faults")
    assert (await site.reads.get_task(task["id"])).step == "tracking"
    assert (await browser.send("/faults/task_x/retry")).status_code == 404
