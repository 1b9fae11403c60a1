"""The timeline of a task for people: its items in words, and their positions in the chart."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any, Literal

import msgspec

from service.core.views import TimelineItem
from service.dashboard.pages import duration, read_time

Lane = Literal["state", "provider", "delivery"]
Tone = Literal["ok", "bad", "wait", "busy", "off"]

WORDS: Mapping[str, tuple[str, Tone]] = {
    "task.created": ("Task stored", "off"),
    "task.running": ("Running at the provider", "busy"),
    "task.succeeded": ("Succeeded", "ok"),
    "task.failed": ("Failed", "bad"),
    "task.canceled": ("Canceled", "off"),
    "submit.accepted": ("Submitted: the provider accepted it", "busy"),
    "submit.overtaken": ("A submit's answer came too late to count", "off"),
    "submit.not_sent": ("Submit did not get through", "wait"),
    "submit.throttled": ("Submit refused by the rate limit", "wait"),
    "submit.unconfirmed": ("Submitted, outcome unknown", "wait"),
    "submit.succeeded": ("Submitted: the answer was the result", "ok"),
    "submit.failed": ("Submitted: the provider refused it", "bad"),
    "poll.requested": ("Poll asked for by hand", "off"),
    "poll.pending": ("Polled: still working", "busy"),
    "poll.succeeded": ("Polled: done", "ok"),
    "poll.failed": ("Polled: failed", "bad"),
    "poll.not_found": ("Polled: the provider does not know it", "wait"),
    "poll.throttled": ("Poll refused by the rate limit", "wait"),
    "poll.unreadable": ("Poll brought nothing readable", "wait"),
    "poll.late": ("Polled: a result after the end", "wait"),
    "callback.pending": ("Called back: still working", "busy"),
    "callback.succeeded": ("Called back: done", "ok"),
    "callback.failed": ("Called back: failed", "bad"),
    "callback.hinted": ("Called back; the poll decides", "busy"),
    "callback.unreadable": ("Callback could not be read", "wait"),
    "callback.mismatched": ("Callback named another task", "wait"),
    "callback.duplicate": ("Called back again", "off"),
    "callback.late": ("Called back after the end, with a result", "wait"),
}
SHORT: Mapping[str, str] = {"submit": "submit", "poll": "poll", "callback": "callback", "delivery": "attempt"}
LONG_TEXT = ("raw", "body")
"""Details that are payloads."""
HIDDEN = (*LONG_TEXT, "delivery_id", "endpoint_id", "event_type", "status_code", "number")
"""Details that the line itself shows, or links to."""


class Happening(msgspec.Struct, frozen=True, kw_only=True):
    """A line: `offset` is the time since the task's creation, `times` how often it was repeated in a row."""

    at: str
    offset: str
    type: str
    title: str
    tone: Tone
    facts: dict[str, Any]
    payloads: dict[str, Any]
    delivery_id: str | None
    endpoint_id: str | None
    times: int = 1


def tell(items: Sequence[TimelineItem]) -> list[Happening]:
    told: list[Happening] = []
    for item in items:
        one = _happening(item, items[0].at)
        last = told[-1] if told else None
        if last and last.type == one.type == "poll.pending" and last.facts == one.facts:
            told[-1] = msgspec.structs.replace(one, times=last.times + 1)
        else:
            told.append(one)
    return told


def _happening(item: TimelineItem, start: str) -> Happening:
    title, tone = _attempt_words(item) if item.type == "delivery.attempted" else _words(item.type)
    payloads = {name: value for name, value in item.detail.items() if name in LONG_TEXT}
    facts = {name: value for name, value in item.detail.items() if name not in HIDDEN and value not in (None, "")}
    if "duration_ms" in facts:
        facts = {"took": duration(facts["duration_ms"] / 1000), **facts}
        facts.pop("duration_ms")
    if facts.get("error") == f"status {item.detail.get('status_code')}":
        facts.pop("error")
    return Happening(
        at=item.at,
        offset=f"+{duration(_seconds(start, item.at))}",
        type=item.type,
        title=title,
        tone=tone,
        facts=facts,
        payloads=payloads,
        delivery_id=item.detail.get("delivery_id"),
        endpoint_id=item.detail.get("endpoint_id"),
    )


def _words(kind: str) -> tuple[str, Tone]:
    return WORDS.get(kind) or (kind.replace(".", ": ").replace("_", " ").capitalize(), "off")


def _attempt_words(item: TimelineItem) -> tuple[str, Tone]:
    status, number = item.detail.get("status_code"), item.detail.get("number")
    received = item.detail.get("error") is None
    answer = f"answered {status}" if status else "no answer"
    return f"{item.detail.get('event_type')} attempt {number}: {answer}", "ok" if received else "bad"


# --- the picture ------------------------------------------------------------------------------------------------------

WIDTH, LEFT, RIGHT = 680, 76, 22
LANES: Mapping[Lane, int] = {"state": 22, "provider": 62, "delivery": 102}
LABEL_ROOM = 58
CLOSEST = 3.0
"""Two alike that stand closer would be one dot to the eye."""
GRAIN_S = 0.25
"""Shorter gaps are drawn to scale, longer ones shrink: a task of minutes and its deliveries of days fit one line."""


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    x: float
    y: int
    tone: Tone
    label: str
    title: str


class Band(msgspec.Struct, frozen=True, kw_only=True):
    """The time in one state."""

    x: float
    width: float
    status: str


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    x: float
    label: str


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    marks: tuple[Mark, ...]
    bands: tuple[Band, ...]
    moments: tuple[Moment, ...]
    lanes: dict[Lane, int]
    height: int
    width: int = WIDTH


def draw(items: Sequence[TimelineItem], now: datetime, *, is_final: bool) -> Picture:
    """Times from left to right; where nothing happened for long the line is shorter than the time was."""
    times = [read_time(item.at) for item in items]
    ends = times if is_final else [*times, max(now, times[-1])]
    places = _places(ends)
    has_deliveries = any(item.type == "delivery.attempted" for item in items)
    lanes = {name: y for name, y in LANES.items() if name != "delivery" or has_deliveries}
    height = max(lanes.values()) + 44
    return Picture(
        marks=tuple(_marks(items, places)),
        bands=tuple(_bands(items, places, is_final=is_final)),
        moments=tuple(_moments(ends, places, is_final=is_final)),
        lanes=lanes,
        height=height,
    )


def _places(times: Sequence[datetime]) -> list[float]:
    gaps = [0.0, *((later - earlier).total_seconds() for earlier, later in pairwise(times))]
    steps = [math.log1p(max(gap, 0.0) / GRAIN_S) for gap in gaps]
    total, room, found, reached = sum(steps) or 1.0, WIDTH - LEFT - RIGHT, [], 0.0
    for step in steps:
        reached += step
        found.append(round(LEFT + reached / total * room, 1))
    return found


def _lane(kind: str) -> Lane:
    return "delivery" if kind.startswith("delivery.") else "state" if kind.startswith("task.") else "provider"


def _marks(items: Sequence[TimelineItem], places: Sequence[float]) -> list[Mark]:
    marks: list[Mark] = []
    labelled: dict[str, float] = {}
    newest: dict[str, Mark] = {}
    for item, x in zip(items, places, strict=False):
        lane = _lane(item.type)
        if lane == "state":
            continue
        one = _happening(item, items[0].at)
        before = newest.get(lane)
        if before is not None and before.tone == one.tone and x - before.x < CLOSEST:
            continue
        has_room = x - labelled.get(lane, -LABEL_ROOM) >= LABEL_ROOM
        if has_room:
            labelled[lane] = x
        label = SHORT.get(item.type.partition(".")[0], "") if has_room else ""
        newest[lane] = Mark(x=x, y=LANES[lane], tone=one.tone, label=label, title=f"{one.offset} {one.title}")
        marks.append(newest[lane])
    return marks


def _bands(items: Sequence[TimelineItem], places: Sequence[float], *, is_final: bool) -> list[Band]:
    bands, status, start = [], "queued", places[0]
    for item, x in zip(items, places, strict=False):
        following = item.type.partition(".")[2] if _lane(item.type) == "state" else "created"
        if following != "created":
            bands.append(Band(x=start, width=round(x - start, 1), status=status))
            status, start = following, x
    end = places[-1] if not is_final else max(places[-1], start)
    bands.append(Band(x=start, width=round(max(end - start, 6 if is_final else 0), 1), status=status))
    return bands


def _moments(times: Sequence[datetime], places: Sequence[float], *, is_final: bool) -> list[Moment]:
    found: list[Moment] = []
    last = len(times) - 1
    for index, (at, x) in enumerate(zip(times, places, strict=True)):
        is_end = index == last and not is_final
        if not found or x - found[-1].x >= LABEL_ROOM + 8:
            label = "now" if is_end else f"+{duration((at - times[0]).total_seconds())}"
            found.append(Moment(x=x, label=label if index else "0"))
    return found


def _seconds(start: str, end: str) -> float:
    return max(0.0, (read_time(end) - read_time(start)).total_seconds())
