"""Every statement that looks for work or fills a listing finds its rows through an index, whatever else is stored."""

from datetime import timedelta
from typing import Any

import pytest

from service.core import lifecycle
from service.core.change import Change
from service.providers.base import Limits
from service.store import claims, pulse, upkeep
from service.store import reads as reads_module
from service.store.batch import Batch, Keys
from service.store.driver import Row, Session
from service.store.reads import Reads, TaskFilter
from tests.store.conftest import Store
from tests.store.test_claims import publish, put, subscribe
from tests.support.factory import CALLS_BACK, make_task

LARGE = ("tasks", "labels", "timeline", "events", "deliveries", "attempts", "idempotency_keys")
FINAL = 3_000


class Recorder:
    """A session or driver that keeps the statements that read."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.statements: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def fetch(self, sql: str, params: Any = ()) -> list[Row]:
        if sql.strip().startswith(("select", "with")):
            self.statements.append((sql, tuple(params)))
        return await self._inner.fetch(sql, params)


class RecordingReads(Reads):
    """Reads whose statements are kept."""

    def __init__(self, store: Store) -> None:
        super().__init__(store.driver)
        self.statements: list[tuple[str, tuple[Any, ...]]] = []

    async def _fetch(self, sql: str, *params: Any) -> list[Row]:
        self.statements.append((sql, params))
        return await super()._fetch(sql, *params)


@pytest.fixture
async def full(store: Store) -> Store:
    """Much that is final and received, a little that is due."""
    await subscribe(store)
    for step in range(0, FINAL, 500):
        changes = [lifecycle.cancel(make_task(store.env, metadata={"n": str(step + n)}), store.env) for n in range(500)]
        await store.writer.change(Keys(), lambda batch, changes=changes: _together(changes))

    async def settle(batch: Batch) -> None:
        await batch.session.execute("update deliveries set status = 'succeeded', due_ms = null")
        await batch.session.execute(
            "insert into attempts (delivery_id, number, at_ms, duration_ms, excerpt) "
            "select id, 1, 0, 1, '' from deliveries"
        )

    await store.writer.run(settle)
    await publish(store, 5)
    await put(store, *(lifecycle.create(make_task(store.env), store.env) for _ in range(5)))
    await put(store, Change(tasks=(make_task(store.env, step="tracking", status="running", provider_task_id="p"),)))

    async def analyze(batch: Batch) -> None:
        await batch.session.execute("analyze")

    await store.writer.run(analyze)
    return store


def _together(changes: list[Change]) -> Change:
    return Change(
        tasks=tuple(task for change in changes for task in change.tasks),
        events=tuple(event for change in changes for event in change.events),
        timeline=tuple(entry for change in changes for entry in change.timeline),
    )


async def explain(session: Session, statements: list[tuple[str, tuple[Any, ...]]], store: Store) -> list[str]:
    word = "explain query plan" if store.driver.name == "sqlite" else "explain"
    return [
        "\n".join(str(row[-1]) for row in await session.fetch(f"{word} {sql}", params)) for sql, params in statements
    ]


def assert_indexed(statements: list[tuple[str, tuple[Any, ...]]], plans: list[str]) -> None:
    assert plans
    for (sql, _), plan in zip(statements, plans, strict=True):
        lines = [line.strip() for line in plan.splitlines()]
        walks = [line for line in lines for name in LARGE if f"Seq Scan on {name}" in line]
        walks += [line for line in lines if line.startswith("SCAN") and line.split()[1] in (*LARGE, "t", "d", "e")]
        walks = [line for line in walks if "INDEX" not in line]
        assert not walks, f"{sql}\n{plan}"


async def test_claims_use_the_partial_indexes(full: Store) -> None:
    async def work(batch: Batch) -> tuple[list[tuple[str, tuple[Any, ...]]], list[str]]:
        session = batch.session
        batch.session = recorder = Recorder(session)
        limits = Limits(submits=1000, window_s=1, max_in_flight=1000)
        await claims.next_due_task(recorder, "fluxapi-ai")
        found = await claims.claim_due_tasks(batch, "fluxapi-ai", CALLS_BACK, limits, 100)
        assert len(found.tasks) == 6
        assert len((await claims.claim_due_deliveries(batch, 100, 40, 1000)).parcels) == 5
        batch.session = session
        return recorder.statements, await explain(session, recorder.statements, full)

    statements, plans = await full.writer.run(work)
    assert_indexed(statements, plans)
    used = "\n".join(plans)
    for index in ("tasks_to_submit", "tasks_in_flight", "deliveries_due", "deliveries_in_flight"):
        assert index in used


async def test_listings_use_an_index(full: Store) -> None:
    reads = RecordingReads(full)
    task = (await reads.list_tasks(TaskFilter(), 10, None)).items[0]
    delivery = (await reads.list_deliveries(None, None, None, 10, None)).items[0]
    for wanted in (
        TaskFilter(status="queued"),
        TaskFilter(provider="fluxapi-ai", model="flux-kontext-pro"),
        TaskFilter(provider_task_id="p"),
        TaskFilter(metadata={"n": "7"}),
        TaskFilter(created_after=full.env.now(), status="canceled"),
    ):
        assert (await reads.list_tasks(wanted, 10, None)).items
        await reads.list_tasks(wanted, 10, task.id)
    await reads.list_deliveries("pending", None, None, 10, None)
    await reads.list_deliveries(None, delivery.endpoint_id, None, 10, delivery.id)
    await reads.list_deliveries(None, None, delivery.task_id, 10, None)
    await reads.list_entries(task.id)
    await reads.attempts_of([delivery.id])
    await reads.get_delivery_of(delivery.event_id, str(delivery.endpoint_id))
    for seq in (0, FINAL):
        await reads.events_after(seq, 10)
    await reads.events_after(0, 10, task_id=delivery.task_id)
    await reads.position_of(delivery.event_id)
    await reads.oldest_due_ms()
    await reads.count_due(full.env.now())
    async with full.driver.reading() as session:
        assert_indexed(reads.statements, await explain(session, reads.statements, full))


async def test_retention_uses_an_index(full: Store) -> None:
    full.env.pass_time(31 * 86_400)

    async def work(batch: Batch) -> tuple[list[tuple[str, tuple[Any, ...]]], list[str]]:
        recorder = Recorder(batch.session)
        await recorder.fetch(upkeep.OLD_TASKS, (1, 500))
        await recorder.fetch(upkeep.OLD_EVENTS, (1, 500))
        return recorder.statements, await explain(batch.session, recorder.statements, full)

    assert_indexed(*await full.writer.run(work))


async def test_figures_of_the_whole_use_an_index_and_are_bounded(full: Store) -> None:
    now, soon = full.env.now(), full.env.now() + timedelta(minutes=1)
    since = now - timedelta(hours=1)
    async with full.driver.reading() as session:
        waiting = await pulse.count_waiting(session)
        assert (waiting.queued, waiting.running, waiting.deliveries["pending"]) == (5, 1, 5)
        assert waiting.oldest_at == now
        endings = await pulse.count_endings(session, "fluxapi-ai", since, soon)
        assert [(status, count) for _, status, count in endings] == [("canceled", FINAL + 5)]
        assert (await pulse.count_deliveries(session, since))["succeeded"] == FINAL
        recorder: Any = Recorder(session)
        await pulse.count_waiting(recorder)
        assert await pulse.count_endings(recorder, "fluxapi-ai", soon, soon + timedelta(hours=1)) == []
        assert await pulse.times_to_result(recorder, "fluxapi-ai", since, 10) == []
        assert await pulse.count_deliveries(recorder, soon) == {}
        plans = await explain(session, recorder.statements, full)
    assert_indexed(recorder.statements, plans)
    assert "tasks_by_end" in "\n".join(plans)


async def test_a_search_in_prompts_looks_at_so_many_tasks_and_no_more(
    full: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads_module, "SEARCH_MAX", 50)
    for wanted in (TaskFilter(), TaskFilter(status="canceled"), TaskFilter(metadata={"n": "7"})):
        found = await full.reads.search_tasks(wanted, ("LIGHTHOUSE", "dusk"), 10, None)
        assert found.items
    nothing = await full.reads.search_tasks(TaskFilter(), ("zeppelin",), 10, None)
    assert (nothing.items, nothing.looked) == ([], 50)
    assert nothing.last == (await full.reads.list_tasks(TaskFilter(), 50, None)).last
