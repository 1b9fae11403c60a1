"""An account that does not answer: its tasks wait, one at a time tries it, and last polls are never held up."""

from service.core.account import Limits
from service.core.breaker import OPENS_AFTER, REST_FIRST_S, AccountCall, CallKind
from service.core.change import Change
from service.core.schedule import Policy
from service.core.times import after
from service.store.queries import TaskFilter
from tests.store.conftest import Store
from tests.store.test_claims import claim, create, put
from tests.support.factory import CALLS_BACK, make_task

ACCOUNT = "fluxapi-ai"


async def tell(store: Store, kind: CallKind, answered: bool, count: int = 1) -> None:
    await put(store, *[Change(calls=(AccountCall(account=ACCOUNT, kind=kind, answered=answered),))] * count)


async def tracked(store: Store, **changes: object) -> str:
    given = {"step": "tracking", "status": "running", "provider_task_id": "p", **changes}
    task = make_task(store.env, **given)
    await put(store, Change(tasks=(task,)))
    return task.id


async def test_tasks_wait_while_it_is_open_and_one_at_a_time_tries_it(store: Store) -> None:
    await create(store, 5)
    await tell(store, "submit", False, OPENS_AFTER)
    waiting = await claim(store)
    assert waiting.tasks == [] and waiting.next_due_at == after(store.env.now(), REST_FIRST_S)
    store.env.pass_time(REST_FIRST_S)
    assert len((await claim(store)).tasks) == 1
    assert (await claim(store)).tasks == []
    await tell(store, "submit", False)
    assert (await claim(store)).tasks == []
    store.env.pass_time(2 * REST_FIRST_S)
    assert len((await claim(store)).tasks) == 1
    await tell(store, "submit", True)
    assert len((await claim(store)).tasks) == 3
    queued = (await store.reads.list_tasks(TaskFilter(status="failed"), 10, None)).items
    assert queued == [], "none failed for it"


async def test_a_poll_tries_it_where_there_is_one_since_it_costs_nothing(store: Store) -> None:
    task_id = await tracked(store, due_at=after(store.env.now(), 100))
    await create(store, 2)
    await tell(store, "poll", False, OPENS_AFTER)
    store.env.pass_time(REST_FIRST_S)
    assert [task.id for task in (await claim(store)).tasks] == [task_id]
    await tell(store, "poll", True)
    assert len((await claim(store)).tasks) == 2


async def test_without_anything_to_poll_a_submit_tries_it(store: Store) -> None:
    await create(store, 2)
    await tell(store, "poll", False, OPENS_AFTER)
    store.env.pass_time(REST_FIRST_S)
    assert [task.step for task in (await claim(store)).tasks] == ["sending"]


async def test_polls_go_on_while_only_submits_fail(store: Store) -> None:
    task_id = await tracked(store)
    await create(store, 1)
    await tell(store, "submit", False, OPENS_AFTER)
    assert [task.id for task in (await claim(store)).tasks] == [task_id]


async def test_the_last_poll_at_a_deadline_is_made_all_the_same(store: Store) -> None:
    last = await tracked(store, deadline_at=after(store.env.now(), 3), due_at=after(store.env.now(), 3))
    await tracked(store, due_at=after(store.env.now(), 1))
    await tell(store, "poll", False, OPENS_AFTER)
    waiting = await claim(store)
    assert waiting.tasks == [] and waiting.next_due_at == after(store.env.now(), 3)
    store.env.pass_time(3)
    assert [task.id for task in (await claim(store)).tasks] == [last]


async def test_a_last_poll_that_tries_the_account_is_one_poll(store: Store) -> None:
    last = await tracked(store, deadline_at=after(store.env.now(), 3), due_at=after(store.env.now(), 3))
    await tell(store, "poll", False, OPENS_AFTER)
    store.env.pass_time(REST_FIRST_S)
    assert [task.id for task in (await claim(store)).tasks] == [last]


async def test_a_task_that_waited_until_its_deadline_ends_there(store: Store) -> None:
    await create(store, 1, deadline_at=after(store.env.now(), 3))
    await tell(store, "submit", False, OPENS_AFTER)
    assert (await claim(store)).next_due_at == after(store.env.now(), 3)
    store.env.pass_time(3)
    await claim(store)
    (ended,) = (await store.reads.list_tasks(TaskFilter(status="failed"), 10, None)).items
    assert ended.via == "deadline"


async def test_what_died_in_flight_is_still_found(store: Store) -> None:
    await create(store, 1)
    (sent,) = (await claim(store)).tasks
    await tell(store, "poll", False, OPENS_AFTER)
    store.env.pass_time(CALLS_BACK.submit_lease_s)
    await claim(store)
    assert (await store.reads.get_task(sent.id)).step == "unconfirmed"


async def test_without_polling_a_blocking_provider_is_tried_by_a_submit(store: Store) -> None:
    blocking = Policy(callbacks=False, polling=False, blocking=True)
    await create(store, 1)
    await tell(store, "submit", False, OPENS_AFTER)
    store.env.pass_time(REST_FIRST_S)
    assert len((await claim(store, policy=blocking)).tasks) == 1


async def test_its_state_holds_for_every_process(store: Store) -> None:
    await tell(store, "submit", False, OPENS_AFTER)
    paused_ms, breaker = (await store.reads.accounts())[ACCOUNT]
    assert (paused_ms, breaker.since, breaker.submits) == (0, store.env.now(), OPENS_AFTER)
    await tell(store, "submit", True)
    assert (await store.reads.accounts())[ACCOUNT][1].since is None


async def test_a_full_account_is_not_looked_at_without_a_pause(store: Store) -> None:
    await create(store, 2)
    narrow = Limits(submits=100, window_s=1, max_in_flight=1)
    assert len((await claim(store, limits=narrow)).tasks) == 1
    again = (await claim(store, limits=narrow)).next_due_at
    assert again is not None and again > store.env.now()
