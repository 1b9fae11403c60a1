"""Stored events, as they were published: their bodies are passed on byte for byte."""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from service.core.event import EVENT_TYPES, Envelope, EventType
from service.core.problems import NotFound
from service.web.auth import Caller
from service.web.calls import ID_SHAPES, Answer, Call, page_answer
from service.web.context import Web
from service.web.queries import Limit, encode_cursor, read_number_cursor

TaskId = Annotated[str, Meta(pattern="^task_[0-9a-f]{32}$", description="Only events about this task.")]


EventCursor = Annotated[
    str,
    Meta(
        description="`next_cursor` of the page before, or an event's id: the page starts behind that event.",
        extra_json_schema={"pattern": "^[A-Za-z0-9_-]+$"},
    ),
]


class ListEvents(msgspec.Struct, frozen=True, kw_only=True):
    task_id: TaskId | UnsetType = UNSET
    type: EventType | UnsetType = UNSET
    limit: Limit = 50
    cursor: EventCursor | None = None


class EventList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of events, oldest first. Their `data` is the task or the endpoint they are about."""

    data: list[Envelope]
    next_cursor: str | None


NOTHING = ("",)


def types_for(caller: Caller, asked: tuple[str, ...]) -> tuple[str, ...]:
    """Which types to look for, empty for all: events about endpoints are for those who may see endpoints."""
    if caller.may("endpoints"):
        return asked
    return tuple(name for name in asked or EVENT_TYPES if not name.startswith("endpoint.")) or NOTHING


async def list_events(web: Web, call: Call[ListEvents, None]) -> Answer:
    query = call.query
    page = await web.store.reads.events_after(
        await _place_of(web, query.cursor),
        query.limit,
        task_id=query.task_id or None,
        types=types_for(call.caller, (query.type,) if query.type else ()),
    )
    last = page[-1].seq if page.has_more else None
    return page_answer([msgspec.Raw(event.body) for event in page], encode_cursor(last))


async def _place_of(web: Web, cursor: str | None) -> int:
    """Of an event that was deleted, as the stream has it: nothing that came later is left out."""
    if cursor is not None and ID_SHAPES["event"].fullmatch(cursor):
        return await web.store.reads.position_of(cursor)
    return read_number_cursor(cursor)


async def get_event(web: Web, call: Call[None, None]) -> Answer:
    event = await web.store.reads.get_event(call.path_id("event"))
    if event.type not in (types_for(call.caller, ()) or EVENT_TYPES):
        raise NotFound("There is no such event.")
    return Answer(200, event.body)
