"""Figures of the overview: read from the database, which all replicas share, and kept as long as they can't change."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from statistics import quantiles

import msgspec

from service.core.account import Limits
from service.core.times import from_ms
from service.dashboard.drawing import Column
from service.providers.base import Access
from service.store.figures import Load
from service.store.pulse import MINUTE_MS, Waiting
from service.store.reads import Reads

DAY_MIN, HOUR_MIN = 1_440, 60
SETTLED_MIN = 2
"""Nothing ends that long ago any more: a commit is late by seconds at most."""
SAMPLE = 200
FRESH_S = 1.5


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds from creation to result, of the newest results."""

    middle: float
    slow: float
    slowest: float
    count: int


class ProviderFigures(msgspec.Struct, frozen=True, kw_only=True):
    provider: str
    ended: int
    succeeded: int
    failed: int
    speed: Speed | None


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Of one time up to now: `columns` are its parts for a chart.

    `open` is how many tasks were not final at the end of each, `late_since` since when work is due that nobody takes.
    """

    minutes: int
    columns: tuple[Column, ...]
    open: tuple[int, ...]
    loads: Mapping[str, Load]
    late_since: datetime | None
    providers: dict[str, ProviderFigures]
    waiting: Waiting
    deliveries: dict[str, int]

    def total(self, status: str) -> int:
        return sum(column.counts.get(status, 0) for column in self.columns)

    @property
    def ended(self) -> int:
        return sum(sum(column.counts.values()) for column in self.columns)

    @property
    def success(self) -> float | None:
        """The success rate of tasks that were not canceled."""
        judged = self.total("succeeded") + self.total("failed")
        return self.total("succeeded") / judged if judged else None


class Statistics:
    """Cached figures of this process: however many pages are open, each figure is read once per interval."""

    def __init__(self, reads: Reads, providers: Mapping[str, Access], clock: Callable[[], float]) -> None:
        self._reads = reads
        self._clock = clock
        self._providers = tuple(providers)
        self._limits: dict[str, Limits] = {
            one.key: one.limits for access in providers.values() for one in access.accounts.values()
        }
        self._minutes: dict[str, dict[int, Counter[str]]] = {name: {} for name in self._providers}
        self._created = Counter[int]()
        self._settled_until = 0
        self._reading = asyncio.Lock()
        self._kept: dict[int, tuple[float, Figures]] = {}

    async def read(self, minutes: int, now: datetime) -> Figures:
        """Not older than a moment. Raises Unavailable."""
        async with self._reading:
            asked_at = self._clock()
            kept = self._kept.get(minutes)
            if kept is None or asked_at - kept[0] >= FRESH_S:
                kept = self._kept[minutes] = (asked_at, await self._read(minutes, now))
            return kept[1]

    async def _read(self, minutes: int, now: datetime) -> Figures:
        last = int(now.timestamp()) // 60
        await self._count(last, now)
        since = from_ms((last - minutes + 1) * MINUTE_MS)
        columns, waiting = self._columns(last, minutes), await self._reads.count_waiting()
        return Figures(
            minutes=minutes,
            columns=columns,
            open=self._open(columns, waiting.queued + waiting.running),
            loads=await self._reads.account_loads(self._limits, now),
            late_since=await self._reads.find_overdue(self._limits, now),
            providers={name: await self._provider(name, last - minutes + 1, since) for name in self._providers},
            waiting=waiting,
            deliveries=await self._reads.count_deliveries(now - timedelta(minutes=minutes)),
        )

    async def _count(self, last: int, now: datetime) -> None:
        """Minutes that are over are read once; only what may still grow is read again."""
        first = last - DAY_MIN + 1
        start, until = max(first, self._settled_until), now + timedelta(minutes=1)
        self._created = Counter({minute: count for minute, count in self._created.items() if first <= minute < start})
        for minute, count in await self._reads.count_created(from_ms(start * MINUTE_MS), until):
            self._created[minute] += count
        for name in self._providers:
            known = {minute: counts for minute, counts in self._minutes[name].items() if first <= minute < start}
            for minute, status, count in await self._reads.count_endings(name, from_ms(start * MINUTE_MS), until):
                known.setdefault(minute, Counter())[status] += count
            self._minutes[name] = known
        self._settled_until = last - SETTLED_MIN + 1

    def _columns(self, last: int, minutes: int) -> tuple[Column, ...]:
        width = max(1, minutes // 48) if minutes > HOUR_MIN else 1
        first = last - minutes + 1
        columns = [Counter[str]() for _ in range(minutes // width)]
        for counted in self._minutes.values():
            for minute, counts in counted.items():
                if first <= minute <= last:
                    columns[(minute - first) // width].update(counts)
        return tuple(
            Column(at=from_ms((first + index * width) * MINUTE_MS), minutes=width, counts=dict(counts))
            for index, counts in enumerate(columns)
        )

    def _open(self, columns: tuple[Column, ...], now_open: int) -> tuple[int, ...]:
        """Backwards from how many there are: what ended after a time was open then, what came after it was not."""
        found, count = [], now_open
        for column in reversed(columns):
            found.append(max(0, count))
            first = int(column.at.timestamp()) // 60
            came = sum(self._created[minute] for minute in range(first, first + column.minutes))
            count += column.total - came
        return tuple(reversed(found))

    async def _provider(self, name: str, first: int, since: datetime) -> ProviderFigures:
        total = Counter[str]()
        for minute, counts in self._minutes[name].items():
            if minute >= first:
                total.update(counts)
        times = await self._reads.times_to_result(name, since, SAMPLE) if total["succeeded"] else ()
        return ProviderFigures(
            provider=name,
            ended=total.total(),
            succeeded=total["succeeded"],
            failed=total["failed"],
            speed=_speed(list(times)),
        )


def _speed(times: list[float]) -> Speed | None:
    if not times:
        return None
    cuts = quantiles(times, n=20, method="inclusive") if len(times) > 1 else times * 19
    return Speed(middle=cuts[9], slow=cuts[18], slowest=max(times), count=len(times))
