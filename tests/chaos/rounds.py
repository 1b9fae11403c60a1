"""A round of chaos: load in every phase, kills and faults at random, then a check of every task."""

import asyncio
import random
import signal
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.chaos.faults import Clock, break_now_and_then, full_disk, small_disk
from tests.flows.conftest import World
from tests.support.api import FINAL, new_prompt
from tests.support.postgres import shared_server
from tests.support.receiver import status
from tests.support.service import Service
from tests.support.wait import until

MODELS = {
    "acedata": "acedata/flux-dev",
    "fluxapi-ai": "fluxapi-ai/flux-kontext-pro",
    "flux-context": "flux-context/flux-kontext-pro",
    "fluxapi-org": "fluxapi-org/flux-dev",
}
CALLERS = 12
TIMEOUT_S = 10
LEASE_S = 45.0
"""Longer than that of a delivery that was in flight when its process was killed."""


@dataclass(frozen=True)
class Plan:
    """The plan of a round."""

    seed: int
    tasks: int = 150
    kills: int = 4
    fault_share: float = 0.0
    disk: bool = False
    clock: bool = False
    waits_for_deliveries: bool = False
    on_replicas: bool = False
    """Two webs and two workers on PostgreSQL; any of them is killed, and at times the database."""


@dataclass
class Figures:
    """Results of a round; the last four must be zero."""

    rounds: int = 0
    kills: int = 0
    database_kills: int = 0
    tasks: int = 0
    unconfirmed: int = 0
    repeated: int = 0
    """Events that came to a subscriber again after its 2xx: what a kill or a lost answer does, at least once."""
    heal_s: list[float] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    doubles: list[str] = field(default_factory=list)
    wrong_events: list[str] = field(default_factory=list)
    wrong_deliveries: list[str] = field(default_factory=list)

    def add(self, other: "Figures") -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    @property
    def faults(self) -> list[str]:
        return self.losses + self.doubles + self.wrong_events + self.wrong_deliveries

    def __str__(self) -> str:
        return (
            f"rounds {self.rounds}, kills {self.kills}, of the database {self.database_kills}, tasks {self.tasks}, "
            f"healed within {max(self.heal_s, default=0.0):.1f} s, losses {len(self.losses)}, "
            f"second submits {len(self.doubles)}, wrong events {len(self.wrong_events)}, "
            f"wrong deliveries {len(self.wrong_deliveries)}, submits that a kill left unconfirmed {self.unconfirmed}, "
            f"deliveries repeated after a 2xx {self.repeated}"
        )


@dataclass(frozen=True)
class Accepted:
    prompt: str
    provider: str
    half: str
    may_be_sent_again: bool


class Round:
    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.figures = Figures(rounds=1)
        self._dice = random.Random(plan.seed)
        self._folder = folder
        self._accepted: dict[str, Accepted] = {}
        self._endpoints: dict[str, str | None] = {}

    async def run(self) -> Figures:
        async with AsyncExitStack() as stack:
            world = World(self._folder, stack)
            await world.open()
            self._world = world
            disk = self._folder / "disk"
            has_disk = self.plan.disk and stack.enter_context(small_disk(disk, "24m"))
            self._clock = Clock(self._folder) if self.plan.clock and Clock.is_possible() else None
            address = {"TASKHOOK_DATABASE_URL": f"sqlite:///{disk / 'taskhook.db'}"} if has_disk else {}
            clock = self._clock.build() if self._clock else {}
            env = {"TASKHOOK_CALLBACK_GRACE_S": "2", **address, **clock}
            self._service: Any = world.replicas(env) if self.plan.on_replicas else world.service(env)
            await self._service.start()
            await self._subscribe()
            self._script()
            loading = asyncio.create_task(self._load())
            await self._disturb(loading, disk if has_disk else None)
            await loading
            await self._account()
        return self.figures

    async def _subscribe(self) -> None:
        flaky = [status(500) if self._dice.random() < 0.1 else status(204) for _ in range(200)]
        for name, half in (("all", None), ("half", "1")):
            subscriber = self._world.receiver.subscriber(name, flaky)
            filters = {"filter": {"metadata": {"half": half}}} if half else {}
            endpoint = await self._service.api.endpoint(subscriber.url, max_in_flight=50, **filters)
            self._endpoints[endpoint["id"]] = half

    def _script(self) -> None:
        for name, fake in self._world.fakes.items():
            with_callback = {"callback": "success", "callback_delay": 0.3, "callback_tries": 100}
            fake.script_rest(**(with_callback if fake.has_callbacks else {"poll": ["running", "success"]}))
            if self.plan.fault_share:
                dice = random.Random(f"{self.plan.seed} {name}")
                break_now_and_then(fake.server, dice, self.plan.fault_share)
        if self.plan.fault_share:
            break_now_and_then(self._world.receiver.server, self._dice, self.plan.fault_share)

    async def _load(self) -> None:
        waiting = [(number, self._dice.random() < 0.1) for number in range(self.plan.tasks)]

        async def caller() -> None:
            while waiting:
                await self._submit(*waiting.pop())
                await asyncio.sleep(0.02)

        await asyncio.gather(*(caller() for _ in range(CALLERS)))

    async def _submit(self, number: int, may_be_sent_again: bool) -> None:
        """Asks under one key until there is an answer."""
        provider = list(MODELS)[number % len(MODELS)]
        prompt, half = new_prompt(f"chaos {self.plan.seed}"), str(number % 2)
        rest = {"on_unconfirmed": "resubmit"} if may_be_sent_again else {}

        async def answered() -> str | None:
            try:
                reply = await self._service.api.post_task(
                    MODELS[provider],
                    prompt,
                    key=f"{self.plan.seed}-{number}",
                    timeout_s=TIMEOUT_S,
                    metadata={"half": half},
                    **rest,
                )
            except httpx.TransportError:
                return None
            return reply.json()["id"] if reply.status_code in (200, 202) else None

        task_id = await until(answered, 60, f"an answer for task {number}, seed {self.plan.seed}")
        self._accepted[task_id] = Accepted(prompt, provider, half, may_be_sent_again)

    async def _disturb(self, loading: asyncio.Task[None], disk: Path | None) -> None:
        """Each disturbance at a random moment after some more tasks were accepted."""
        share = self.plan.tasks // (self.plan.kills + 1)
        for _ in range(self.plan.kills):
            seen = len(self._accepted)
            await until(lambda seen=seen: loading.done() or len(self._accepted) >= seen + share, 90, "more tasks")
            await asyncio.sleep(self._dice.uniform(0.0, 0.8))
            if disk is not None:
                with full_disk(disk):
                    await asyncio.sleep(self._dice.uniform(0.2, 1.0))
            if self._clock is not None:
                self._clock.set(self._dice.choice([-3600, 0, 3600]))
                await asyncio.sleep(self._dice.uniform(0.2, 2.5))
            self.figures.kills += 1
            await (self._kill_one() if self.plan.on_replicas else self._service.restart())

    async def _kill_one(self) -> None:
        """A replica, or one time in five the database; what is left has to go on, and all of it to heal by itself."""
        one = self._dice.choice([*self._service.all, None])
        if one is None:
            self.figures.database_kills += 1
            server = shared_server()
            await asyncio.to_thread(server.stop, self._dice.choice([signal.SIGINT, signal.SIGQUIT]))
            await asyncio.sleep(self._dice.uniform(0.0, 3.0))
            await asyncio.to_thread(server.start)
        else:
            await one.kill()
            await asyncio.sleep(self._dice.uniform(0.0, 1.0))
            await one.launch()
        begun = time.monotonic()
        await self._service.ready()
        self.figures.heal_s.append(time.monotonic() - begun)

    async def _account(self) -> None:
        service, figures = self._service, self.figures

        async def all_final() -> list[dict[str, Any]] | None:
            tasks = await service.api.pages("/v1/tasks", limit=100)
            return tasks if all(task["status"] in FINAL for task in tasks) else None

        if self._clock is not None:
            self._clock.set(0)
        try:
            tasks = {task["id"]: task for task in await until(all_final, 150, "every task final")}
        except AssertionError:
            tasks = {task["id"]: task for task in await service.api.pages("/v1/tasks", limit=100)}
        figures.tasks = len(self._accepted)
        for task_id, asked in self._accepted.items():
            self._check_task(task_id, asked, tasks.get(task_id))
        finals = await service.api.finals()
        counts = Counter(event["data"]["id"] for event in finals)
        figures.wrong_events += [f"{key}: {counts[key]} events" for key in {*tasks, *counts} if counts[key] != 1]
        await self._check_deliveries(service, finals)

    def _check_task(self, task_id: str, asked: Accepted, task: dict[str, Any] | None) -> None:
        if task is None or task["status"] not in FINAL:
            self.figures.losses.append(f"{task_id} accepted, now {task and task['status']}: {task}")
            return
        self.figures.unconfirmed += (task["error"] or {}).get("code") == "submit_unconfirmed"
        plan = self._world.fakes[asked.provider].plans.get(asked.prompt)
        sent = len(plan.submits) if plan else 0
        if sent > 1 and not asked.may_be_sent_again:
            self.figures.doubles.append(f"{task_id} was submitted {sent} times")

    async def _check_deliveries(self, service: Service, finals: list[dict[str, Any]]) -> None:
        """Check that each matching endpoint has one delivery of each event, and that all were received."""
        wanted = {
            (event["id"], endpoint_id)
            for event in finals
            for endpoint_id, half in self._endpoints.items()
            if half is None or event["data"]["metadata"].get("half") == half
        }

        async def all_received() -> bool:
            open_ones = [await service.api.deliveries(status=state, limit=1) for state in ("pending", "sending")]
            return not any(open_ones)

        if self.plan.waits_for_deliveries:
            await until(all_received, LEASE_S + 60, "every delivery received")
        found = Counter((one["event_id"], one["endpoint_id"]) for one in await service.api.deliveries(limit=100))
        self.figures.wrong_deliveries += [f"{key}: {found[key]}" for key in wanted | found.keys() if found[key] != 1]
        self.figures.wrong_deliveries += [f"{key} was for nobody" for key in found.keys() - wanted]
        accepted = Counter(
            (name, one.id)
            for name, subscriber in self._world.receiver.subscribers.items()
            for one in subscriber.received
            if one.accepted
        )
        self.figures.repeated = sum(count - 1 for count in accepted.values())
        if self.plan.waits_for_deliveries:
            arrived = {event for _, event in accepted}
            self.figures.wrong_deliveries += [f"{event} never arrived" for event, _ in wanted if event not in arrived]
