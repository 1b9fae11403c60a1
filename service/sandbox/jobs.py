"""The jobs of a simulated provider: orders, a bounded store of jobs, and their background tasks."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Coroutine
from dataclasses import dataclass, field
from enum import Enum, auto

from service.sandbox.faults import Tally, parse_faults


class JobOutcome(Enum):
    """How a job ends."""

    SUCCEEDED = auto()
    NO_PICTURE = auto()
    MODERATED = auto()
    FAILED = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A submit request that has passed its provider's validation."""

    prompt: str
    model: str
    width: int
    height: int
    body: dict[str, object]
    picture_format: str = "png"
    count: int = 1
    callback_url: str | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class Job:
    """An accepted job. Times are Unix seconds."""

    id: str
    provider: str
    order: Order
    created_at: float = field(default_factory=time.time)
    finished_at: float | None = None
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    faults: frozenset[str] = frozenset()
    _polls: Tally = field(default_factory=lambda: Tally(8))

    def __post_init__(self) -> None:
        self.faults = parse_faults(self.order.prompt)

    @property
    def outcome(self) -> JobOutcome:
        outcomes = {"moderated": JobOutcome.MODERATED, "failed": JobOutcome.FAILED, "no-picture": JobOutcome.NO_PICTURE}
        return next((outcome for name, outcome in outcomes.items() if name in self.faults), JobOutcome.SUCCEEDED)

    @property
    def elapsed_s(self) -> float:
        return max(0.0, (self.finished_at or time.time()) - self.created_at)

    def disturbs_poll(self, fault: str) -> bool:
        """Return whether the fault applies to this poll, as to the first two."""
        return fault in self.faults and self._polls.first(2, fault)

    def finish(self) -> None:
        self.finished_at = time.time()
        self.finished.set()


class Jobs:
    """The newest jobs by id, and the background tasks of all of them."""

    def __init__(self, max_jobs: int) -> None:
        self._max_jobs = max_jobs
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._tasks: set[asyncio.Task[object]] = set()

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def busy(self) -> bool:
        """Return whether a background task runs."""
        return bool(self._tasks)

    def add(self, job: Job) -> None:
        self._jobs[job.id] = job
        while len(self._jobs) > self._max_jobs:
            self._jobs.popitem(last=False)

    def find(self, job_id: str) -> Job | None:
        return self._jobs.get(job_id)

    def spawn(self, work: Coroutine[object, object, object]) -> asyncio.Task[object]:
        """Run it in the background until it ends or the sandbox is closed."""
        task: asyncio.Task[object] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
