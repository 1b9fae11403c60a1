"""What goes into a row comes back out of it."""

import msgspec

from service.core import delivering
from service.core.delivery import Resume
from service.core.task import Image, Result, TaskError
from service.store import rows
from tests.support.env import FakeEnv
from tests.support.factory import make_delivery, make_endpoint, make_task


def test_a_task_survives_with_every_field() -> None:
    env = FakeEnv()
    result = Result(images=(Image(url="https://x/y.png", width=3),), cost=2.5, raw=msgspec.Raw(b'{"a":1.50}'))
    task = make_task(
        env,
        metadata={"order": "7"},
        result=result,
        late_result=result,
        error=TaskError(code="timeout", message="é"),
        via="poll",
        polls=3,
        setback=TaskError(code="rate_limited", message="429"),
        submitted_at=env.now(),
        finished_at=env.now(),
        erased_at=env.now(),
    )
    assert msgspec.json.encode(rows.task_from_row(rows.task_to_row(task))) == msgspec.json.encode(task)


def test_a_delivery_survives_with_every_field() -> None:
    env = FakeEnv()
    delivery = make_delivery(env, resume=Resume(status="pending", due_at=env.now()), finished_at=env.now(), failures=2)
    assert rows.delivery_from_row(rows.delivery_to_row(delivery)) == delivery


def test_an_endpoint_survives_with_every_field() -> None:
    env = FakeEnv()
    endpoint = delivering.rotate(make_endpoint(env, headers={"X-A": "b"}, rate_per_s=0.5), "whsec_new", env)
    assert rows.endpoint_from_row(rows.endpoint_to_row(endpoint)) == endpoint
