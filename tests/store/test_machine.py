"""The store as a state machine: whatever is written at the same time as what, its promises hold.

Each step writes one thing, or several at once that share a transaction; after it the whole database is read and held
against what it was. Now and then the database is closed and opened again.
"""

import asyncio
import contextlib
import os
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import msgspec
import pytest
from msgspec.structs import replace

from service.core import delivering, lifecycle
from service.core.account import Limits
from service.core.breaker import OPENS_AFTER, AccountCall, Breaker
from service.core.change import Change
from service.core.delivery import Endpoint, EndpointFilter
from service.core.event import OPT_IN
from service.core.fault import PARK_AFTER
from service.core.observation import Accepted, NotSent, Pending, Unconfirmed, Unreadable
from service.core.problems import Conflict, NotFound, Unavailable
from service.core.task import FINAL, Task, TaskInput
from service.core.times import after, from_ms, to_ms
from service.store import claims, faults, rows, upkeep
from service.store.batch import Batch, Keys
from service.store.bus import Bus
from service.store.claims import DeliveryClaim, Parcel, TaskClaim
from service.store.driver import Session
from service.store.endpoint_rows import endpoint_from_row
from service.store.migrate import migrate
from service.store.reads import Reads
from service.store.sqlite import SqliteDriver
from service.store.writer import Writer
from service.web import creating
from tests.support.env import FakeEnv
from tests.support.factory import CALLS_BACK, make_endpoint, make_task, picture, refusal
from tests.support.fuzz import Choose, by_dice

PROVIDER, MODEL = "fluxapi-ai", "flux-kontext-pro"
LIMITS = Limits(submits=3, window_s=10, max_in_flight=4)
FINAL_TYPES = {f"task.{status}" for status in FINAL}
LEASE_S = 40.0
SCHEDULE = (5.0, 60.0, 600.0)
RETENTION_DAYS = 30
STEPS = 40
ROUNDS_TO_THE_END = 300
Ask = Callable[[], Awaitable[Any]]


class Picture(msgspec.Struct, kw_only=True):
    """The content of the database, as rows by id."""

    tasks: dict[str, dict[str, Any]]
    events: dict[str, dict[str, Any]]
    deliveries: dict[str, dict[str, Any]]
    endpoints: dict[str, Endpoint]
    attempts: list[dict[str, Any]]
    timeline: list[dict[str, Any]]
    keys: dict[str, dict[str, Any]]
    sequence: int
    faults: list[dict[str, Any]]
    breaker: Breaker


T = TypeVar("T")


class FailingDriver(SqliteDriver):
    """Some commits do not come about, and nothing of their transaction is left."""

    fails = 0

    async def write(self, work: Callable[[Session], Coroutine[Any, Any, T]]) -> T:
        async def failing(session: Session) -> T:
            answer = await work(session)
            if self.fails:
                self.fails -= 1
                raise Unavailable("The disk is full.")
            return answer

        return await super().write(failing)


class World:
    """A database and everything that writes to it."""

    def __init__(self, path: Path, choose: Choose) -> None:
        self.path = path
        self.choose = choose
        self.env = FakeEnv()
        self.flying: list[Any] = []
        self.parcels: list[Parcel] = []
        self.answered: dict[str, tuple[str, str]] = {}
        """By idempotency key: the fingerprint and the task that was answered first."""
        self.sent: list[datetime] = []
        self.erased: set[str] = set()
        self.put_aside: set[str] = set()
        self.told = 0
        self.sequence = 0

    async def open(self) -> None:
        self.driver = FailingDriver(str(self.path))
        await self.driver.open()
        await migrate(self.driver, to_ms(self.env.now()))
        self.writer = Writer(self.driver, Bus(), self.env)
        self.writer.start()
        self.web: Any = SimpleNamespace(
            env=self.env, store=SimpleNamespace(writer=self.writer, reads=Reads(self.driver))
        )

    async def close(self) -> None:
        await self.writer.stop()
        await self.driver.close()

    def look(self) -> Picture:
        with contextlib.closing(sqlite3.connect(self.path)) as database:
            database.row_factory = sqlite3.Row

            def table(name: str, order: str) -> list[dict[str, Any]]:
                return [dict(row) for row in database.execute(f"select * from {name} order by {order}")]

            return Picture(
                tasks={row["id"]: row for row in table("tasks", "id")},
                events={row["id"]: row for row in table("events", "seq")},
                deliveries={row["id"]: row for row in table("deliveries", "id")},
                endpoints={
                    row["id"]: endpoint_from_row((row["id"], row["doc"], row["settings"]))
                    for row in table("endpoints", "id")
                },
                attempts=table("attempts", "delivery_id, number"),
                timeline=table("timeline", "task_id, number"),
                keys={row["key"]: row for row in table("idempotency_keys", "key")},
                sequence=next(row["value"] for row in table("counters", "name") if row["name"] == "events"),
                faults=table("faults", "id"),
                breaker=next((rows.breaker_from_text(row["breaker"]) for row in table("limits", "name")), Breaker()),
            )

    # --- a step -------------------------------------------------------------------------------------------------------

    async def live(self) -> None:
        await self.open()
        try:
            for _ in range(STEPS):
                await self.step()
            await self.everything_ends()
        finally:
            await self.close()

    async def step(self) -> None:
        alone = {
            self.time_passes: 4,
            self.tasks_are_claimed: 5,
            self.deliveries_are_claimed: 5,
            self.it_starts_again: 1,
            self.a_dry_recovery_counts_what_a_recovery_sends: 2,
            self.old_things_are_deleted: 1,
            self.workers_die: 1,
        }
        asks = {
            self.create: 4,
            self.create_with_key: 3,
            self.learn: 6,
            self.cancel: 2,
            self.erase: 2,
            self.subscribe: 2,
            self.change_endpoint: 3,
            self.remove_endpoint: 1,
            self.ping: 1,
            self.attempt: 8,
            self.retry: 3,
            self.recover: 1,
            self.blunder: 1,
            self.work_fails: 3,
            self.take_up: 2,
            self.provider_is_down: 2,
        }
        self.before = self.look()
        steps = [*asks, *alone]
        name = self.choose([way.__name__ for way in steps for _ in range((asks | alone)[way])])
        chosen = {way.__name__: way for way in steps}[name]
        self.deleting = chosen == self.old_things_are_deleted
        if chosen in alone:
            await chosen()
        else:
            more = self.choose([0, 0, 0, 1, 2, 4])
            names = [way.__name__ for way in asks for _ in range(asks[way])]
            together = [chosen, *({way.__name__: way for way in asks}[self.choose(names)] for _ in range(more))]
            made = [ask for way in together if (ask := way()) is not None]
            self.driver.fails = self.choose([0] * 12 + [1])
            await asyncio.gather(*(self.tolerant(ask) for ask in made))
            self.driver.fails = 0
        self.holds()

    async def tolerant(self, ask: Ask) -> None:
        """Ignore refusals that a caller gets for a reason."""
        with contextlib.suppress(Conflict, NotFound, Unavailable, ZeroDivisionError):
            await ask()

    def one_of(self, known: dict[str, Any] | list[Any]) -> Any:
        options = list(known)
        return self.choose(options) if options else None

    # --- what is asked for --------------------------------------------------------------------------------------------

    def new_task(self, **more: Any) -> Any:
        self.told += 1
        metadata = self.choose([{}, {"team": "a"}, {"team": "b"}])
        return make_task(
            self.env,
            input=TaskInput(prompt=f"unmistakable-{self.told}-word"),
            metadata=metadata,
            webhook_url=self.choose([None, None, "http://example.com/own"]),
            on_unconfirmed=self.choose(["wait", "wait", "resubmit"]),
            deadline_at=after(self.env.now(), self.choose([5, 120, 900])),
            **more,
        )

    def create(self) -> Ask:
        return partial(creating.create, self.web, self.new_task(), {}, None, "")

    def create_with_key(self) -> Ask:
        key, fingerprint, task = (
            self.choose(["k1", "k2", "k3"]),
            self.choose(["same", "same", "other"]),
            self.new_task(),
        )

        async def ask() -> None:
            known = self.answered.get(key)
            try:
                stored, is_new = await creating.create(self.web, task, {}, key, fingerprint)
            except Conflict:
                assert (self.answered.get(key) or known or ("", ""))[0] != fingerprint
                return
            first = self.answered.setdefault(key, (fingerprint, stored.id))
            assert first == (fingerprint, stored.id), "one key, one request, one task"
            assert is_new == (stored.id == task.id)

        return ask

    def learn(self) -> Ask | None:
        """From a worker that called, or from a callback about any task."""
        if self.flying and self.choose([True, True, False]):
            task = self.flying.pop(self.choose(range(len(self.flying))))
            via, lease = ("submit", task.lease) if task.step == "sending" else ("poll", None)
            task_id = task.id
        else:
            task_id, via, lease = (
                self.one_of([key for key, row in self.before.tasks.items() if row["lease"]]),
                "callback",
                None,
            )
        if task_id is None:
            return None
        answers = {
            "submit": [Accepted(provider_task_id="p"), Accepted(provider_task_id="p"), Unconfirmed(reason="reset")],
            "poll": [Pending(), Pending(), Unreadable(reason="HTTP 502")],
            "callback": [Pending(provider_task_id="p"), picture(provider_task_id="q")],
        }[via]
        answers += [NotSent(reason="refused")] * 4 if via == "submit" else []
        observation = self.choose([*answers, picture("https://cdn.example/unmistakable.png"), refusal()])
        return self.told_of(task_id, observation, via, lease)

    def told_of(self, task_id: str, observation: Any, via: Any, lease: int | None) -> Ask:
        """Return the change of a call, about its task and its account; a callback is only about the task."""
        answered = not isinstance(observation, NotSent | Unconfirmed | Unreadable)
        calls = () if via == "callback" else (AccountCall(account=PROVIDER, kind=via, answered=answered),)

        def decide(task: Task) -> Change:
            return replace(lifecycle.advance(task, observation, via, self.env, CALLS_BACK, lease), calls=calls)

        return partial(self.writer.change_task, task_id, decide)

    def cancel(self) -> Ask | None:
        task_id = self.one_of(self.before.tasks)
        return task_id and partial(self.writer.change_task, task_id, partial(lifecycle.cancel, env=self.env))

    def erase(self) -> Ask | None:
        task_id = self.one_of(self.before.tasks)

        async def ask() -> None:
            await upkeep.erase_task(self.writer, task_id)
            self.erased.add(task_id)

        return ask if task_id else None

    def subscribe(self) -> Ask | None:
        if len(self.before.endpoints) >= 5:
            return None
        endpoint = make_endpoint(self.env, **self.settings())
        return partial(self.writer.change, Keys(), lambda batch: Change(endpoints=(endpoint,)))

    def settings(self) -> dict[str, Any]:
        return {
            "events": self.choose([("task.*",), ("task.*", "endpoint.*"), ("task.running", "task.failed")]),
            "filter": EndpointFilter(
                metadata=self.choose([{}, {}, {"team": "a"}]),
                providers=self.choose([(), (), (PROVIDER,), ("acedata",)]),
                models=self.choose([(), (), (MODEL,), (f"{PROVIDER}/{MODEL}",), ("another-model",)]),
            ),
            "max_in_flight": self.choose([1, 3, 10]),
            "rate_per_s": self.choose([None, None, 2.0, 0.1]),
        }

    def change_endpoint(self) -> Ask | None:
        endpoint_id = self.one_of(self.before.endpoints)
        if endpoint_id is None:
            return None
        how, settings = self.choose(["disable", "enable", "change"]), self.settings()

        def decide(batch: Batch) -> Change:
            endpoint = batch.endpoint(endpoint_id)
            if how == "disable" and endpoint.enabled:
                disabled = delivering.disable(endpoint, "by request", self.env)
                return Change(endpoints=(disabled,), holds=(endpoint_id,))
            if how == "enable" and not endpoint.enabled:
                return Change(endpoints=(delivering.enable(endpoint),))
            return Change(endpoints=(replace(endpoint, **settings),))

        return partial(self.writer.change, Keys(endpoints=(endpoint_id,)), decide)

    def remove_endpoint(self) -> Ask | None:
        endpoint_id = self.one_of(self.before.endpoints)
        if endpoint_id is None:
            return None

        def decide(batch: Batch) -> Change:
            removed = delivering.remove(batch.endpoint(endpoint_id), self.env)
            return Change(endpoints=(removed,), holds=(endpoint_id,))

        return partial(self.writer.change, Keys(endpoints=(endpoint_id,)), decide)

    def ping(self) -> Ask | None:
        endpoint_id = self.one_of(self.before.endpoints)
        if endpoint_id is None:
            return None

        def decide(batch: Batch) -> Change:
            return Change(events=(delivering.ping(batch.endpoint(endpoint_id), self.env),))

        return partial(self.writer.change, Keys(endpoints=(endpoint_id,)), decide)

    def attempt(self) -> Ask | None:
        """An attempt ends, by the worker that made it, whether its lease holds or not."""
        if not self.parcels:
            return None
        parcel = self.parcels.pop(self.choose(range(len(self.parcels))))
        status = self.choose([200, 200, 200, 500, 500, 410, None])
        retry_after = self.choose([None, None, "30", "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"])
        return partial(self.record, parcel, status, retry_after)

    async def record(self, parcel: Parcel, status: int | None, retry_after: str | None = None) -> None:
        outcome = delivering.Outcome(
            at=self.env.now(),
            received=status == 200,
            status_code=status,
            duration_ms=1,
            error=None if status == 200 else f"HTTP {status}",
            retry_after=retry_after,
        )
        delivery_id, endpoint_id = parcel.delivery.id, parcel.delivery.endpoint_id

        def decide(batch: Batch) -> Change:
            delivery, endpoint = batch.delivery(delivery_id), batch.find_endpoint(endpoint_id)
            return delivering.after_attempt(delivery, endpoint, outcome, parcel.delivery.lease, self.env, SCHEDULE)

        keys = Keys(deliveries=(delivery_id,), endpoints=(endpoint_id,) if endpoint_id else ())
        await self.writer.change(keys, decide)

    def retry(self) -> Ask | None:
        delivery_id = self.one_of(self.before.deliveries)
        if delivery_id is None:
            return None
        endpoint_id = self.before.deliveries[delivery_id]["endpoint_id"]

        def decide(batch: Batch) -> Change:
            endpoint = batch.find_endpoint(endpoint_id)
            if endpoint is not None and endpoint.deleted_at is not None:
                raise Conflict("The endpoint of this delivery is deleted.")
            return delivering.retry(batch.delivery(delivery_id), self.env)

        async def ask() -> None:
            await self.writer.change(keys, decide)

        keys = Keys(deliveries=(delivery_id,), endpoints=(endpoint_id,) if endpoint_id else ())
        return ask

    def blunder(self) -> Ask:
        """A mistake of the program's own, which must fail alone."""

        def decide(batch: Batch) -> Change:
            raise ZeroDivisionError

        return partial(self.writer.change, Keys(), decide)

    def work_fails(self) -> Ask | None:
        """On a row, by a mistake of the program's own: it is put aside, and parked at the fifth time."""
        subject_id = self.one_of([task.id for task in self.flying] + [parcel.delivery.id for parcel in self.parcels])
        times = self.choose([1, 1, PARK_AFTER])

        async def work(batch: Batch) -> None:
            for _ in range(times):
                await faults.note(batch, subject_id, ZeroDivisionError())

        async def ask() -> None:
            self.put_aside.add(subject_id)
            await self.writer.run(work)

        return ask if subject_id else None

    def provider_is_down(self) -> Ask:
        """So many calls in a row that its circuit opens."""
        call = AccountCall(account=PROVIDER, kind=self.choose(["submit", "poll"]), answered=False)
        return partial(self.writer.change, Keys(), lambda batch: Change(calls=(call,) * OPENS_AFTER))

    def take_up(self) -> Ask | None:
        subject_id = self.one_of([row["id"] for row in self.before.faults if row["parked_ms"]])
        return subject_id and partial(self.writer.run, partial(faults.retry, subject_id=subject_id))

    def recover(self) -> Ask | None:
        endpoint_id = self.one_of(self.before.endpoints)
        since, until = self.env.now() - timedelta(days=1), after(self.env.now(), 1)
        return endpoint_id and partial(
            upkeep.recover, self.writer, endpoint_id, since, until, dry_run=self.choose([True, False])
        )

    # --- what happens alone -------------------------------------------------------------------------------------------

    async def time_passes(self) -> None:
        self.env.pass_time(self.choose([0.5, 2, 11, 41, 100, 1000, 86_400]))

    async def workers_die(self) -> None:
        self.flying.clear()
        self.parcels.clear()

    async def it_starts_again(self) -> None:
        await self.close()
        await self.open()
        assert self.look() == self.before

    async def tasks_are_claimed(self, free: int | None = None) -> TaskClaim:
        free = free or self.choose([1, 3, 100])
        self.before_claim = self.look()
        steps = [row["step"] for row in self.before_claim.tasks.values()]
        room = LIMITS.max_in_flight - sum(step in ("sending", "tracking") for step in steps)

        async def work(batch: Batch) -> TaskClaim:
            return await claims.claim_due_tasks(batch, PROVIDER, CALLS_BACK, LIMITS, free)

        claim = await self.writer.run(work)
        sending = [task for task in claim.tasks if task.step == "sending"]
        assert len({task.id for task in claim.tasks}) == len(claim.tasks) <= free
        ended = sum(row["step"] == "done" for row in self.look().tasks.values()) - steps.count("done")
        assert len(sending) <= max(0, room + ended)
        now = self.env.now()
        self.sent = [at for at in self.sent if (now - at).total_seconds() < LIMITS.window_s] + [now] * len(sending)
        assert len(self.sent) <= LIMITS.submits, "in any window"
        shut, tried = self.before_claim.breaker, [task for task in claim.tasks if now < task.deadline_at]
        if shut.shuts("submit"):
            assert len(sending) <= shut.is_due(now), "one call at a time tries an account that does not answer"
        if shut.shuts("poll"):
            assert len(tried) <= shut.is_due(now), "last polls alone are made besides"
        self.flying += claim.tasks
        return claim

    async def deliveries_are_claimed(self, free: int | None = None) -> DeliveryClaim:
        free, now, before = free or self.choose([1, 3, 100]), self.env.now(), self.look()
        flying = Counter(
            row["lane"]
            for row in before.deliveries.values()
            if row["status"] == "sending" and row["due_ms"] > to_ms(now)
        )

        async def work(batch: Batch) -> DeliveryClaim:
            return await claims.claim_due_deliveries(batch, free, LEASE_S, 1_000)

        claim = await self.writer.run(work)
        taken = [parcel.delivery for parcel in claim.parcels]
        assert len({delivery.id for delivery in taken}) == len(taken) <= free
        for lane, count in Counter(delivery.lane for delivery in taken).items():
            endpoint = before.endpoints.get(lane)
            limit = endpoint.max_in_flight if endpoint else claims.WEBHOOK_MAX_IN_FLIGHT
            assert flying[lane] + count <= limit or count == 0
            if endpoint and endpoint.rate_per_s:
                assert count <= max(1, endpoint.rate_per_s)
        for delivery in taken:
            row, endpoint = before.deliveries[delivery.id], before.endpoints.get(delivery.lane)
            assert row["status"] in ("pending", "sending") and row["due_ms"] <= to_ms(now)
            assert endpoint is None or endpoint.deleted_at is None, "nothing goes to an endpoint that is deleted"
            by_hand = row["resume_status"] is not None
            assert endpoint is None or endpoint.enabled or by_hand, "nothing goes to an endpoint that is disabled"
        self.parcels += claim.parcels
        return claim

    async def a_dry_recovery_counts_what_a_recovery_sends(self) -> None:
        endpoint_id = self.one_of(self.before.endpoints)
        if endpoint_id is None or self.before.endpoints[endpoint_id].deleted_at:
            return
        endpoint = self.before.endpoints[endpoint_id]
        since, until = from_ms(0), after(self.env.now(), 1)
        received = {
            row["event_id"]
            for row in self.before.deliveries.values()
            if row["endpoint_id"] == endpoint_id
            and (
                row["status"] in ("sending", "succeeded")
                or (row["status"] == "pending" and (not row["failures"] or row["resume_status"] == "succeeded"))
            )
        }
        had = {row["event_id"] for row in self.before.deliveries.values() if row["endpoint_id"] == endpoint_id}
        wanted = {
            event_id
            for event_id, row in self.before.events.items()
            if row["audience_id"] is None and (event_id in had or wants(endpoint, row)) and event_id not in received
        }
        recover = partial(upkeep.recover, self.writer, endpoint_id, since, until)
        assert await recover(dry_run=True) == len(wanted)
        if not endpoint.enabled:
            with pytest.raises(Conflict):
                await recover(dry_run=False)
            return
        assert await recover(dry_run=False) == len(wanted)
        assert await recover(dry_run=True) == 0
        now_there = {
            row["event_id"]: row["status"]
            for row in self.look().deliveries.values()
            if row["endpoint_id"] == endpoint_id
        }
        assert all(now_there[event_id] == "pending" for event_id in wanted)

    async def old_things_are_deleted(self) -> None:
        if self.choose([True, False]):
            self.env.pass_time((RETENTION_DAYS + 1) * 86_400)
        until_ms = to_ms(self.env.now() - timedelta(days=RETENTION_DAYS))
        await upkeep.delete_old(self.writer, self.env.now(), RETENTION_DAYS)
        now = self.look()
        unsettled = [row for row in self.before.deliveries.values() if row["status"] not in ("succeeded", "failed")]
        for task_id in self.before.tasks.keys() - now.tasks.keys():
            row = self.before.tasks[task_id]
            assert row["status"] in FINAL and row["finished_ms"] < until_ms
            assert not [delivery for delivery in unsettled if delivery["task_id"] == task_id]
        for event_id in self.before.events.keys() - now.events.keys():
            assert not [delivery for delivery in unsettled if delivery["event_id"] == event_id]
        self.answered = {key: told for key, told in self.answered.items() if told[1] in now.tasks}

    # --- what must hold -----------------------------------------------------------------------------------------------

    def holds(self) -> None:
        now = self.look()
        self.what_is_parked_can_be_taken_up(now)
        self.events_are_numbered_in_the_order_of_commits_and_never_change(now)
        self.deliveries_are_the_matching_endpoints_of_each_event(now)
        self.a_final_state_is_never_left_and_has_one_event(now)
        self.timelines_and_attempts_have_no_gap(now)
        self.what_is_open_will_be_found(now)
        self.an_erased_task_leaves_no_word(now)
        for key, (_, task_id) in self.answered.items():
            assert now.keys[key]["task_id"] == task_id

    def what_is_parked_can_be_taken_up(self, now: Picture) -> None:
        assert {row["id"] for row in now.faults} <= self.put_aside, "a row made a loop fail"
        parked = {row["id"] for row in now.faults if row["parked_ms"]}
        assert {key for key, row in now.tasks.items() if row["step"] == "parked"} <= parked
        assert {key for key, row in now.deliveries.items() if row["status"] == "parked"} <= parked
        for row in now.faults:
            task = now.tasks.get(row["id"])
            assert task is None or task["step"] != "parked" or row["step"] is not None, "the step to go on with is lost"

    def events_are_numbered_in_the_order_of_commits_and_never_change(self, now: Picture) -> None:
        fresh = [row["seq"] for key, row in now.events.items() if key not in self.before.events]
        assert fresh == list(range(self.sequence + 1, self.sequence + 1 + len(fresh)))
        self.sequence += len(fresh)
        assert now.sequence == self.sequence
        for key, row in self.before.events.items():
            if not self.deleting:
                assert key in now.events
            if key in now.events and row["task_id"] not in self.erased:
                assert now.events[key] == row
            elif key in now.events:
                assert states_in(now.events[key]) == states_in(row), "what is erased is text"

    def deliveries_are_the_matching_endpoints_of_each_event(self, now: Picture) -> None:
        pairs = Counter((row["event_id"], row["endpoint_id"]) for row in now.deliveries.values())
        assert not [pair for pair, count in pairs.items() if count > 1], "an event goes to an endpoint once"
        for event_id, event in now.events.items():
            if event_id in self.before.events:
                continue
            for endpoint_id, endpoint in now.endpoints.items():
                before = self.before.endpoints.get(endpoint_id)
                labels = self.labels_before(event)
                judged = {wants(endpoint, event, labels), before is not None and wants(before, event, labels)}
                assert ((event_id, endpoint_id) in pairs) in judged, "as it was or as it became in this step"
            is_end = event["type"] in FINAL_TYPES
            url = is_end and '"webhook_url":"http' in self.before_or(now, event["task_id"])
            assert ((event_id, None) in pairs) == bool(url)

    def labels_before(self, event: dict[str, Any]) -> dict[str, str] | None:
        """Return the labels that the task had, if it was erased in this step."""
        row = self.before.tasks.get(event["task_id"])
        return msgspec.json.decode(row["doc"]).get("metadata", {}) if row and event["task_id"] in self.erased else None

    def before_or(self, now: Picture, task_id: str) -> str:
        """The task's document, also where it was erased in this step."""
        row = self.before.tasks.get(task_id) or now.tasks[task_id]
        doc: str = row["doc"]
        return doc

    def a_final_state_is_never_left_and_has_one_event(self, now: Picture) -> None:
        ends = Counter(row["task_id"] for row in now.events.values() if row["type"] in FINAL_TYPES)
        for task_id, row in now.tasks.items():
            assert ends[task_id] == (1 if row["status"] in FINAL else 0)
            before = self.before.tasks.get(task_id)
            if before and before["status"] in FINAL:
                assert (row["status"], row["finished_ms"]) == (before["status"], before["finished_ms"])

    def timelines_and_attempts_have_no_gap(self, now: Picture) -> None:
        numbers = Counter(entry["task_id"] for entry in now.timeline)
        last = {entry["task_id"]: entry["number"] for entry in now.timeline}
        assert last == numbers
        assert numbers.keys() == now.tasks.keys()
        tries = Counter(attempt["delivery_id"] for attempt in now.attempts)
        for delivery_id, row in now.deliveries.items():
            assert row["attempts"] == tries[delivery_id]
        assert {a["delivery_id"]: a["number"] for a in now.attempts} == tries

    def what_is_open_will_be_found(self, now: Picture) -> None:
        for row in now.tasks.values():
            assert (row["due_ms"] is None) == (row["status"] in FINAL) or row["step"] == "parked"
        for row in now.deliveries.values():
            assert (row["due_ms"] is not None) == (row["status"] in ("pending", "sending"))
            if row["status"] in ("held", "failed", "succeeded"):
                assert row["resume_status"] is None, "a retry by hand could never be asked for again"
            endpoint = now.endpoints.get(row["lane"])
            if row["id"] in self.put_aside:
                continue  # its next claim finds out
            if endpoint and not endpoint.enabled and row["resume_status"] is None:
                assert row["status"] != "pending", "what an endpoint misses while it is disabled is held"
            if endpoint and endpoint.deleted_at:
                assert row["status"] not in ("pending", "held")

    def an_erased_task_leaves_no_word(self, now: Picture) -> None:
        for task_id in self.erased & now.tasks.keys():
            texts = [now.tasks[task_id]["doc"]]
            texts += [row["body"] for row in now.events.values() if row["task_id"] == task_id]
            texts += [row["detail"] for row in now.timeline if row["task_id"] == task_id]
            assert not [text for text in texts if "unmistakable" in text]

    # --- the end ------------------------------------------------------------------------------------------------------

    async def everything_ends(self) -> None:
        """With a worker that only ever looks when it was told to, and calls that are all answered."""
        self.workers_died = await self.workers_die()
        for _ in range(ROUNDS_TO_THE_END):
            self.before, self.deleting = self.look(), False
            while take_up := self.take_up():
                await take_up()
                self.before = self.look()
            tasks = await self.tasks_are_claimed(free=100)
            for task in self.flying:
                via, lease = ("submit", task.lease) if task.step == "sending" else ("poll", None)
                await self.told_of(task.id, refusal(), via, lease)()
            deliveries = await self.deliveries_are_claimed(free=100)
            for parcel in self.parcels:
                await self.record(parcel, 200)
            worked = bool(self.flying or self.parcels)
            await self.workers_die()
            self.holds()
            if worked:
                continue
            found = [at for at in (tasks.next_due_at, deliveries.next_due_at) if at is not None]
            if not found and not self.is_open():
                return
            self.env.pass_time(max(0.001, (min(found) - self.env.now()).total_seconds()) if found else 5.0)
        raise AssertionError(f"never done: {self.is_open()}")

    def is_open(self) -> list[dict[str, Any]]:
        now = self.look()
        tasks = [row for row in now.tasks.values() if row["status"] not in FINAL]
        return tasks + [row for row in now.deliveries.values() if row["status"] in ("pending", "sending")]


def wants(endpoint: Endpoint, event: dict[str, Any], labels: dict[str, str] | None = None) -> bool:
    """The filter as the documentation tells it."""
    if event["audience_id"]:
        return event["audience_id"] == endpoint.id and endpoint.deleted_at is None
    data = msgspec.json.decode(event["body"])["data"]
    kind = event["type"]
    if endpoint.deleted_at or data["id"] == endpoint.id:
        return False
    by_name = kind in endpoint.events
    by_pattern = kind.split(".")[0] + ".*" in endpoint.events and kind not in OPT_IN
    if not (by_name or by_pattern):
        return False
    if kind.startswith("endpoint."):
        return True
    wanted, model = endpoint.filter, data["model"]
    of_provider = not wanted.providers or data["provider"] in wanted.providers
    of_model = not wanted.models or model in wanted.models or f"{data['provider']}/{model}" in wanted.models
    labels = data["metadata"] if labels is None else labels
    return of_provider and of_model and all(labels.get(key) == value for key, value in wanted.metadata.items())


def states_in(event: dict[str, Any]) -> tuple[Any, ...]:
    """Return the parts of an event that no erasure changes."""
    data = msgspec.json.decode(event["body"])["data"]
    told = (data["status"], data["tracking"], data["finished_at"], data["error"] and data["error"]["code"])
    return (*(value for name, value in event.items() if name != "body"), *told)


MEMORY = "/dev/shm"
"""A disk that need not be waited for: what a power cut would leave is not the matter here."""


def live(choose: Choose) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY if os.path.isdir(MEMORY) else None) as directory:
        asyncio.run(World(Path(directory) / "taskhook.db", choose).live())


def test_no_order_of_writes_breaks_a_promise_of_the_store() -> None:
    by_dice(live, 20)
