"""Subscribers: create, change, remove, rotate their secret, try them, and send again what they missed."""

from functools import partial
from typing import Annotated, Any, ClassVar

import msgspec
import structlog
from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import asdict, replace

from service.core import delivering
from service.core.change import Change
from service.core.delivery import ATTEMPT_S, Endpoint, EndpointFilter, Format, Held
from service.core.env import Env
from service.core.problems import Conflict, invalid
from service.core.task import Metadata
from service.core.views import DeliveryView, EndpointType, EndpointView, NoAuth, view_delivery, view_endpoint
from service.store import upkeep
from service.store.batch import Batch, Keys
from service.web.calls import Answer, Call, json_answer
from service.web.context import Web
from service.web.queries import Cursor, Limit, TimeText, encode_cursor, read_id_cursor, read_time
from service.web.subscribing import Headers, Pattern, check_settings

log = structlog.get_logger()
BY_REQUEST = "by request"
RENAMED = {"providers": "filter.providers"}
FIXED = ("type", "config", "auth")
"""Settings that can have one value only so far."""

NO_MEMBERS = {"maxProperties": 0}
Url = Annotated[str, Meta(max_length=2_083, examples=["https://example.com/hooks/images"])]
Patterns = Annotated[tuple[Pattern, ...], Meta(min_length=1, max_length=20)]
Config = Annotated[dict[str, Any], Meta(description="Of the type; a webhook has none.", extra_json_schema=NO_MEMBERS)]
InFlight = Annotated[int, Meta(ge=1, le=1_000)]
Rate = Annotated[float, Meta(ge=0.001, le=10_000)]
Timeout = Annotated[float, Meta(ge=1, le=30, description="Time for one attempt.")]
Schedule = Annotated[
    tuple[Annotated[float, Meta(ge=1, le=604_800)], ...],
    Meta(max_length=50, description="Seconds before each retry; null is the schedule of the service."),
]
Description = Annotated[str, Meta(max_length=500)]


class CreateEndpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new subscriber. `task.*` leaves out what has to be asked for by name: task.running, task.late_result.

    `filter` selects events, `metadata` is your own and filters nothing.
    """

    example: ClassVar[dict[str, Any]] = {"url": "https://example.com/hooks/images", "events": ["task.*"]}
    renamed: ClassVar[dict[str, str]] = RENAMED

    type: EndpointType = "webhook"
    url: Url
    config: Config = {}
    auth: NoAuth = NoAuth()
    events: Patterns = ("task.*",)
    filter: EndpointFilter = EndpointFilter()
    format: Format = "standard"
    headers: Headers = {}
    max_in_flight: InFlight = 10
    rate_per_s: Rate | None = None
    timeout_s: Timeout = ATTEMPT_S
    retry_schedule_s: Schedule | None = None
    description: Description = ""
    metadata: Metadata = {}
    enabled: bool = True


DEFAULTS = CreateEndpoint(url="")


class ChangeEndpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Missing fields stay as they are; null resets a field to its default. Disabling holds deliveries.

    Another `url` drops `headers`, unless they are given again.
    """

    example: ClassVar[dict[str, Any]] = {"max_in_flight": 5, "description": "the staging system"}
    renamed: ClassVar[dict[str, str]] = RENAMED

    type: EndpointType | UnsetType | None = UNSET
    url: Url | UnsetType = UNSET
    config: Config | UnsetType | None = UNSET
    auth: NoAuth | UnsetType | None = UNSET
    events: Patterns | UnsetType | None = UNSET
    filter: EndpointFilter | UnsetType | None = UNSET
    format: Format | UnsetType | None = UNSET
    headers: Headers | UnsetType | None = UNSET
    max_in_flight: InFlight | UnsetType | None = UNSET
    rate_per_s: Rate | UnsetType | None = UNSET
    timeout_s: Timeout | UnsetType | None = UNSET
    retry_schedule_s: Schedule | UnsetType | None = UNSET
    description: Description | UnsetType | None = UNSET
    metadata: Metadata | UnsetType | None = UNSET
    enabled: bool | UnsetType | None = UNSET


class ListEndpoints(msgspec.Struct, frozen=True, kw_only=True):
    limit: Limit | UnsetType = UNSET
    cursor: Cursor | None = None


class EndpointList(msgspec.Struct, frozen=True, kw_only=True):
    """The subscribers, oldest first; all of them where no limit is given."""

    data: list[EndpointView]
    next_cursor: str | None


class Recover(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which time to look at, from `since` up to and without `until`, which is now by default."""

    example: ClassVar[dict[str, Any]] = {"since": "2026-01-01T00:00:00Z", "dry_run": True}

    since: TimeText
    until: TimeText | None = None
    dry_run: bool = False


class Recovered(msgspec.Struct, frozen=True, kw_only=True):
    """How many events were queued again, or would be."""

    events: int
    dry_run: bool


async def create_endpoint(web: Web, call: Call[None, CreateEndpoint]) -> Answer:
    settings = await _read_settings(web, call.body)
    enabled, secret = settings.pop("enabled"), web.trust.new_secret()
    endpoint = Endpoint(
        id=web.env.new_id("endpoint"),
        secret=web.trust.vault.seal(secret, "secret"),
        created_at=web.env.now(),
        **settings,
    )
    if not enabled:
        endpoint = delivering.disable(endpoint, BY_REQUEST, web.env)
    await web.store.writer.change(Keys(), lambda _: Change(endpoints=(endpoint,)))
    log.info("endpoint.created", endpoint_id=endpoint.id, caller=call.caller.name)
    location = (b"location", b"/v1/endpoints/" + endpoint.id.encode())
    return json_answer(view_endpoint(endpoint, Held(), secret=secret), 201, (location,))


async def list_endpoints(web: Web, call: Call[ListEndpoints, None]) -> Answer:
    after = read_id_cursor(call.query.cursor, "endpoint") or ""
    found = [endpoint for endpoint in await web.store.reads.list_endpoints() if endpoint.id > after]
    page = found[: call.query.limit or len(found)]
    held = await web.store.reads.count_held()
    views = [view_endpoint(endpoint, held.get(endpoint.id, Held())) for endpoint in page]
    following = encode_cursor(page[-1].id) if len(page) < len(found) else None
    return json_answer(EndpointList(data=views, next_cursor=following))


async def get_endpoint(web: Web, call: Call[None, None]) -> Answer:
    endpoint = await web.store.reads.get_endpoint(call.path_id("endpoint"))
    return json_answer(view_endpoint(endpoint, await _held(web, endpoint.id)))


async def change_endpoint(web: Web, call: Call[None, ChangeEndpoint]) -> Answer:
    endpoint_id = call.path_id("endpoint")
    await web.store.reads.get_endpoint(endpoint_id)
    settings = await _read_settings(web, call.body)

    def decide(batch: Batch) -> Change:
        return _change(batch.endpoint(endpoint_id), settings, web.env)

    change = await web.store.writer.change(Keys(endpoints=(endpoint_id,)), decide)
    log.info("endpoint.changed", endpoint_id=endpoint_id, fields=sorted(settings), caller=call.caller.name)
    return json_answer(view_endpoint(change.endpoints[0], await _held(web, endpoint_id)))


def _change(endpoint: Endpoint, settings: dict[str, Any], env: Env) -> Change:
    """Turned on it starts afresh; turned off, what is pending is held. Credentials stay with their destination."""
    enabled = settings.get("enabled", endpoint.enabled)
    if settings.get("url", endpoint.url) != endpoint.url:
        settings = {"headers": {}, **settings}
    changed = replace(endpoint, **{name: value for name, value in settings.items() if name != "enabled"})
    if enabled == endpoint.enabled:
        return Change(endpoints=(changed,))
    if enabled:
        return Change(endpoints=(delivering.enable(changed),))
    return Change(endpoints=(delivering.disable(changed, BY_REQUEST, env),), holds=(endpoint.id,))


async def _read_settings(web: Web, body: CreateEndpoint | ChangeEndpoint) -> dict[str, Any]:
    """The settings that a request names, checked and sealed; null stands for the default. Raises InvalidRequest."""
    given = {name: value for name, value in asdict(body).items() if value is not UNSET}
    settings = {name: getattr(DEFAULTS, name) if value is None else value for name, value in given.items()}
    await check_settings(web, settings)
    if "headers" in settings:
        settings["headers"] = web.trust.vault.seal_headers(settings["headers"])
    return {name: value for name, value in settings.items() if name not in FIXED}


async def _held(web: Web, endpoint_id: str) -> Held:
    return (await web.store.reads.count_held()).get(endpoint_id, Held())


async def delete_endpoint(web: Web, call: Call[None, None]) -> Answer:
    endpoint_id = call.path_id("endpoint")

    def decide(batch: Batch) -> Change:
        return Change(endpoints=(delivering.remove(batch.endpoint(endpoint_id), web.env),), holds=(endpoint_id,))

    await web.store.writer.change(Keys(endpoints=(endpoint_id,)), decide)
    log.info("endpoint.deleted", endpoint_id=endpoint_id, caller=call.caller.name)
    return Answer(204)


async def rotate_secret(web: Web, call: Call[None, None]) -> Answer:
    endpoint_id, rotate = call.path_id("endpoint"), partial(delivering.rotate, env=web.env)
    secret = web.trust.new_secret()
    sealed = web.trust.vault.seal(secret, "secret")

    def decide(batch: Batch) -> Change:
        return Change(endpoints=(rotate(batch.endpoint(endpoint_id), sealed),))

    change = await web.store.writer.change(Keys(endpoints=(endpoint_id,)), decide)
    log.info("endpoint.rotated", endpoint_id=endpoint_id, caller=call.caller.name)
    return json_answer(view_endpoint(change.endpoints[0], await _held(web, endpoint_id), secret=secret))


async def test_endpoint(web: Web, call: Call[None, None]) -> Answer:
    endpoint_id = call.path_id("endpoint")

    def decide(batch: Batch) -> Change:
        return Change(events=(delivering.ping(batch.endpoint(endpoint_id), web.env),))

    change = await web.store.writer.change(Keys(endpoints=(endpoint_id,)), decide)
    delivery = await web.store.reads.get_delivery_of(change.events[0].id, endpoint_id)
    log.info("endpoint.tested", endpoint_id=endpoint_id, delivery_id=delivery.id, caller=call.caller.name)
    view: DeliveryView = view_delivery(delivery, ())
    return json_answer(view, 202)


async def recover(web: Web, call: Call[None, Recover]) -> Answer:
    endpoint_id, dry_run = call.path_id("endpoint"), call.body.dry_run
    until = read_time(call.body.until, "body", "until") or web.env.now()
    since = read_time(call.body.since, "body", "since") or until
    if since >= until:
        raise invalid("since", "must lie before until, which is now by default")
    endpoint = await web.store.reads.get_endpoint(endpoint_id)
    if not (endpoint.enabled or dry_run):
        raise Conflict("The endpoint is disabled; enable it first, or ask with dry_run.")
    count = await upkeep.recover(web.store.writer, endpoint_id, since, until, dry_run=dry_run)
    log.info("events.recovered", endpoint_id=endpoint_id, count=count, dry_run=dry_run, caller=call.caller.name)
    return json_answer(Recovered(events=count, dry_run=dry_run))
