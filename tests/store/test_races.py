"""Everything that can end a task at the same instant: one wins, and the timeline shows all of them."""

import asyncio
import itertools
from collections.abc import Callable

import pytest

from service.core import delivering, lifecycle
from service.core.change import Change
from service.core.observation import NotFound
from service.core.problems import Conflict
from service.core.task import FINAL, Task
from service.core.times import after
from service.store import upkeep
from service.store.batch import Keys
from tests.store.conftest import Store
from tests.store.test_claims import claim, claim_deliveries, publish, put, subscribe
from tests.support.factory import CALLS_BACK, make_task, picture, refusal

ENDS = ("callback", "poll", "deadline", "cancel")


@pytest.mark.parametrize("order", list(itertools.permutations(ENDS)), ids="-".join)
async def test_callback_poll_deadline_and_cancel_at_once_leave_one_state_and_one_event(
    store: Store, order: tuple[str, ...]
) -> None:
    deadline_at = after(store.env.now(), 10)
    task = make_task(
        store.env, step="tracking", status="running", provider_task_id="p", deadline_at=deadline_at, due_at=deadline_at
    )
    await put(store, lifecycle.create(task, store.env))
    await subscribe(store)
    store.env.pass_time(10)
    env = store.env
    decisions: dict[str, Callable[[Task], Change]] = {
        "callback": lambda found: lifecycle.advance(found, picture(), "callback", env, CALLS_BACK),
        "poll": lambda found: lifecycle.advance(found, refusal(), "poll", env, CALLS_BACK),
        "deadline": lambda found: lifecycle.advance(found, NotFound(reason="gone"), "poll", env, CALLS_BACK),
        "cancel": lambda found: lifecycle.cancel(found, env),
    }
    asked = [store.writer.change_task(task.id, decisions[name]) for name in order]
    ended = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(one, Change | Conflict) for one in ended), ended
    final = await store.reads.get_task(task.id)
    assert final.status in FINAL and final.via == order[0]
    finals = [event for event in await store.reads.events_after(0, 100) if event.type != "task.late_result"]
    assert len(finals) == 1
    told = [entry.type for entry in await store.reads.list_entries(task.id)]
    assert sum(entry.startswith(("callback.", "poll.")) for entry in told) == 3, told
    deliveries = (await claim_deliveries(store)).parcels
    assert len(deliveries) == 1


async def test_a_recover_that_was_killed_half_way_is_asked_for_again_and_sends_each_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint_id = await subscribe(store, enabled=False, max_in_flight=1000)
    await publish(store, 45)
    await store.writer.change(
        Keys(endpoints=(endpoint_id,)),
        lambda batch: Change(endpoints=(delivering.enable(batch.endpoint(endpoint_id)),)),
    )
    since, until = store.env.now(), after(store.env.now(), 1)
    steps = 0
    run = store.writer.run

    async def killed_at_the_third(work: object) -> object:
        nonlocal steps
        steps += 1
        if steps == 3:
            raise KeyboardInterrupt
        return await run(work)  # type: ignore[arg-type]

    monkeypatch.setattr(store.writer, "run", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        await upkeep.recover(store.writer, endpoint_id, since, until, dry_run=False, step_max=10)
    monkeypatch.setattr(store.writer, "run", run)
    first = {parcel.delivery.id for parcel in (await claim_deliveries(store, 1000)).parcels}
    assert len(first) == 20
    assert await upkeep.recover(store.writer, endpoint_id, since, until, dry_run=False) == 25
    rest = {parcel.delivery.id for parcel in (await claim_deliveries(store, 1000)).parcels}
    assert len(rest) == 25 and not first & rest


async def test_a_process_that_dies_over_a_poll_does_not_hold_up_the_deadline(store: Store) -> None:
    deadline_at = after(store.env.now(), 10)
    task = make_task(store.env, step="tracking", status="running", provider_task_id="p", deadline_at=deadline_at)
    await put(store, lifecycle.create(task, store.env))
    assert len((await claim(store)).tasks) == 1
    store.env.pass_time(10)
    assert [taken.id for taken in (await claim(store)).tasks] == [task.id], "the last poll, at its time"
