"""The form of an endpoint: filter, metadata, type, config and auth; and whom its headers belong to."""

from typing import Any

import httpx
import pytest

from tests.web.conftest import Site, errors
from tests.web.test_endpoints import URL, delivery_of, make

WHOLE: dict[str, Any] = {
    "type": "webhook",
    "url": URL,
    "config": {},
    "auth": {"type": "none"},
    "events": ["task.*"],
    "filter": {"providers": [], "models": [], "accounts": [], "metadata": {}},
    "format": "standard",
    "headers": {},
    "max_in_flight": 10,
    "rate_per_s": None,
    "timeout_s": 15,
    "retry_schedule_s": None,
    "description": "",
    "metadata": {},
    "enabled": True,
}


async def test_the_whole_form_is_accepted_and_shown_as_the_defaults(client: httpx.AsyncClient) -> None:
    made, plain = await make(client, **WHOLE), await make(client)
    assert {name: made[name] for name in WHOLE} == WHOLE == {name: plain[name] for name in WHOLE}


async def test_metadata_of_an_endpoint_is_an_annotation_that_filters_nothing(
    site: Site, client: httpx.AsyncClient
) -> None:
    made = await make(client, metadata={"team": "data"})
    await site.succeed(client, metadata={"team": "another"})
    assert made["metadata"] == {"team": "data"}
    assert (await delivery_of(client, made))["event_type"] == "task.succeeded"


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        ({"metadata": {"team": "data"}}, 1),
        ({"metadata": {"team": "other"}}, 0),
        ({"providers": ["fluxapi-ai"]}, 1),
        ({"providers": ["acedata"]}, 0),
        ({"models": ["flux-kontext-pro"]}, 1),
        ({"models": ["fluxapi-ai/flux-kontext-pro"]}, 1),
        ({"models": ["flux-kontext-max"]}, 0),
        ({"accounts": ["default"]}, 1),
        ({"accounts": ["another"]}, 0),
    ],
)
async def test_a_filter_selects_events(
    site: Site, client: httpx.AsyncClient, wanted: dict[str, Any], count: int
) -> None:
    made = await make(client, filter=wanted)
    await site.succeed(client, metadata={"team": "data"})
    assert len((await client.get("/v1/deliveries", params={"endpoint_id": made["id"]})).json()["data"]) == count


async def test_recover_uses_the_same_filter(site: Site, client: httpx.AsyncClient) -> None:
    await site.succeed(client, metadata={"team": "data"})
    period = {"since": "2025-01-01", "until": "2030-01-01", "dry_run": True}
    for wanted, count in (
        ({"models": ["flux-kontext-pro"], "accounts": ["default"], "metadata": {"team": "data"}}, 1),
        ({"models": ["flux-kontext-max"]}, 0),
        ({"accounts": ["another"]}, 0),
    ):
        made = await make(client, filter=wanted)
        found = (await client.post(f"/v1/endpoints/{made['id']}/recover", json=period)).json()
        assert found["events"] == count, wanted


async def test_a_changed_filter_replaces_the_one_before_and_counts_for_the_next_event(
    site: Site, client: httpx.AsyncClient
) -> None:
    made = await make(client, filter={"providers": ["acedata"], "metadata": {"a": "b"}})
    changed = await client.patch(f"/v1/endpoints/{made['id']}", json={"filter": {"models": ["flux-kontext-pro"]}})
    assert changed.json()["filter"] == WHOLE["filter"] | {"models": ["flux-kontext-pro"]}
    await site.succeed(client)
    assert (await delivery_of(client, made))["event_type"] == "task.succeeded"


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "the older providers": ({"providers": ["acedata"]}, "body.providers", "is now filter.providers"),
    "an unknown provider": ({"filter": {"providers": ["x"]}}, "body.filter.providers.0", "must be one of"),
    "an unknown model": ({"filter": {"models": ["flux-kontext-pro", "x"]}}, "body.filter.models.1", "is no model"),
    "an account that is none": ({"filter": {"accounts": ["No!"]}}, "body.filter.accounts.0", "regex"),
    "a number in the filter": ({"filter": {"metadata": {"a": 1}}}, "body.filter.metadata", "expected str"),
    "an unknown filter": ({"filter": {"events": []}}, "body.filter.events", "is not known here"),
    "a filter that is none": ({"filter": ["acedata"]}, "body.filter", "expected"),
    "another type": ({"type": "kafka"}, "body.type", "must be one of webhook"),
    "another auth": ({"auth": {"type": "bearer"}}, "body.auth.type", "must be one of none"),
    "auth with a secret": ({"auth": {"type": "none", "token": "x"}}, "body.auth.token", "is not known here"),
    "a configuration": ({"config": {"topic": "x"}}, "body.config.topic", "has no configuration"),
    "a long time": ({"timeout_s": 31}, "body.timeout_s", "<= 30"),
    "no time": ({"timeout_s": 0}, "body.timeout_s", ">= 1"),
    "a retry at once": ({"retry_schedule_s": [5, 0]}, "body.retry_schedule_s.1", ">= 1"),
}


@pytest.mark.parametrize(("change", "place", "reason"), WRONG.values(), ids=WRONG)
async def test_what_is_no_part_of_the_form_is_refused_with_what_is_allowed(
    client: httpx.AsyncClient, change: dict[str, Any], place: str, reason: str
) -> None:
    made = await make(client)
    created = errors(await client.post("/v1/endpoints", json={"url": URL} | change))
    changed = errors(await client.patch(f"/v1/endpoints/{made['id']}", json=change))
    assert created == changed
    assert set(created) == {place} and reason in created[place]


# Credentials


async def headers_of(site: Site, endpoint: dict[str, Any]) -> dict[str, str]:
    return site.vault.open_headers((await site.reads.get_endpoint(endpoint["id"])).headers)


OTHER = "http://127.0.0.1:9998/hook"


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"url": OTHER}, {}),
        ({"url": URL + "/deeper"}, {}),
        ({"url": OTHER, "headers": {"X-Token": "new"}}, {"X-Token": "new"}),
        ({"url": OTHER, "headers": None}, {}),
        ({"url": URL}, {"X-Token": "t0p"}),
        ({"description": "mine"}, {"X-Token": "t0p"}),
        ({"headers": None}, {}),
        ({"type": None, "config": None, "auth": None}, {"X-Token": "t0p"}),
    ],
)
async def test_header_secrets_do_not_move_to_another_url(
    site: Site, client: httpx.AsyncClient, change: dict[str, Any], kept: dict[str, str]
) -> None:
    made = await make(client, headers={"X-Token": "t0p"})
    changed = await client.patch(f"/v1/endpoints/{made['id']}", json=change)
    assert changed.status_code == 200, changed.text
    assert set(changed.json()["headers"]) == set(kept)
    assert await headers_of(site, made) == kept


async def test_a_hidden_value_is_not_taken_for_a_header_that_is_sent_again(client: httpx.AsyncClient) -> None:
    made = await make(client, headers={"X-Token": "t0p"})
    change = {"url": OTHER, "headers": made["headers"]}
    assert set(errors(await client.patch(f"/v1/endpoints/{made['id']}", json=change))) == {"body.headers.X-Token"}
