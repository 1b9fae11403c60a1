"""Lanes of deliveries, and the places that webhook_urls may hold: no origin and no number of them holds up endpoints.

A lane groups deliveries that share limits: an endpoint, or a webhook_url without its query. Whoever may create tasks
may name any number of webhook_urls, so these share a part of the places, and each look takes in a bounded number.
"""

from collections import Counter
from datetime import datetime
from urllib.parse import urlsplit

import msgspec

from service.core.times import from_ms, to_ms
from service.store.driver import ReadSession
from service.store.queries import OPEN

URL_PART = 4
"""webhook_urls hold one place in so many; half of these at most are for URLs that failed before."""
ORIGIN_PART = 8
"""One origin (scheme, host and port) holds one of the places of webhook_urls in so many."""
WALK_MAX = 1_000
WALK_S = 0.1
"""Until the next look, where one did not take in the lanes of all webhook_urls."""
_URLS, _AFTER_URLS = "url:", "url;"
_ALL = 1 << 30


def _walk(name: str, limit: str = "") -> str:
    return f"""
    {name} (lane, number) as (
      select (select f.lane from deliveries f where f.{OPEN} and f.lane > ? and f.lane < ? order by f.lane limit 1), 1
      union all
      select (
          select n.lane from deliveries n where n.{OPEN} and n.lane > {name}.lane and n.lane < ? order by n.lane limit 1
        ), number + 1
      from {name} where {name}.lane is not null {limit}
    )
    """


_EARLIEST = f"from deliveries d where d.lane = lanes.lane and d.{OPEN} order by d.due_ms limit 1"
_LANES = f"""
with recursive {_walk("endpoints")}, {_walk("urls", "and number < ?")}
select lane, (select d.due_ms {_EARLIEST}), (select d.failures {_EARLIEST})
from (select lane from endpoints union all select lane from urls) as lanes where lane is not null
"""
"""Each lane with its earliest delivery, one step in the index a lane: what waits in one lane costs no other."""
_URLS_IN_FLIGHT = """
select lane, count(*), sum(case when failures > 0 then 1 else 0 end) from deliveries
where status = 'sending' and lane > ? and lane < ? and due_ms > ? group by lane
"""


class Lane(msgspec.Struct, frozen=True, kw_only=True):
    """A lane with open deliveries: when the earliest is due, and whether an attempt of it failed."""

    name: str
    due_at: datetime
    failed: bool

    @property
    def is_url(self) -> bool:
        return self.name.startswith(_URLS)


class Lanes(msgspec.Struct, frozen=True, kw_only=True):
    """Due queues, each kind by due time; `is_whole`: these are all there are."""

    endpoints: list[Lane]
    urls: list[Lane]
    is_whole: bool


class UrlWalk:
    """The lane behind which the next look at the lanes of webhook_urls begins."""

    def __init__(self) -> None:
        self.after = _URLS

    async def look(self, session: ReadSession) -> "Lanes":
        return await _fetch(session, self.after, WALK_MAX)

    def go_on(self, seen: list[Lane]) -> None:
        """Begin the next look behind these, or at the start again."""
        self.after = max(lane.name for lane in seen) if len(seen) == WALK_MAX else _URLS


class UrlShares:
    """The places of webhook_urls that are free, all together and by origin."""

    def __init__(self, places: int, in_flight: list[tuple[str, int, int]]) -> None:
        self._places = max(1, places)
        self._of_origin = max(1, places // ORIGIN_PART)
        self._by_lane = {name: int(count) for name, count, _ in in_flight}
        self._by_origin = Counter[str]()
        for name, count, _ in in_flight:
            self._by_origin[_origin(name)] += int(count)
        self._failed = sum(int(failed) for _, _, failed in in_flight)

    def in_flight(self, lane: Lane) -> int:
        return self._by_lane.get(lane.name, 0)

    def room(self, lane: Lane) -> int:
        free = min(self._places - self._by_origin.total(), self._of_origin - self._by_origin[_origin(lane.name)])
        return min(free, max(1, self._places // 2) - self._failed) if lane.failed else free

    def take(self, lane: Lane, count: int) -> None:
        self._by_origin[_origin(lane.name)] += count
        self._failed += count if lane.failed else 0


async def find_lanes(session: ReadSession) -> list[Lane]:
    """Return all lanes with open deliveries, those due longest first."""
    found = await _fetch(session, _URLS, _ALL)
    return sorted([*found.endpoints, *found.urls], key=lambda lane: lane.due_at)


async def read_url_shares(session: ReadSession, places: int, now: datetime) -> UrlShares:
    return UrlShares(places, await session.fetch(_URLS_IN_FLIGHT, (_URLS, _AFTER_URLS, to_ms(now))))


async def has_urls_in_flight(session: ReadSession, now: datetime) -> bool:
    return bool(await session.fetch(f"{_URLS_IN_FLIGHT} limit 1", (_URLS, _AFTER_URLS, to_ms(now))))


async def _fetch(session: ReadSession, after: str, limit: int) -> Lanes:
    found = await session.fetch(_LANES, ("", _URLS, _URLS, after, _AFTER_URLS, _AFTER_URLS, limit))
    lanes = [Lane(name=name, due_at=from_ms(due_ms), failed=failures > 0) for name, due_ms, failures in found]
    lanes.sort(key=lambda lane: lane.due_at)
    urls = [lane for lane in lanes if lane.is_url]
    endpoints = [lane for lane in lanes if not lane.is_url]
    return Lanes(endpoints=endpoints, urls=urls, is_whole=after == _URLS and len(urls) < limit)


def _origin(name: str) -> str:
    url = urlsplit(name.removeprefix(_URLS))
    return f"{url.scheme}://{url.netloc}"
