"""What goes into a row comes back out of it."""

from datetime import datetime

import msgspec

from service.core import delivering
from service.core.delivery import Resume
from service.core.task import Image, Result, TaskError
from service.core.times import after
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
    endpoint = make_endpoint(env, headers={"X-A": "b"}, rate_per_s=0.5)
    for secret in ("whsec_b", "whsec_c"):
        endpoint = delivering.rotate(endpoint, secret, env)
    assert rows.endpoint_from_row(rows.endpoint_to_row(endpoint)) == endpoint


class _OneOldSecret(msgspec.Struct):
    """What a program reads and writes that knows one old secret alone."""

    id: str
    url: str
    secret: str
    created_at: datetime
    old_secret: str | None = None
    old_secret_until: datetime | None = None


def test_programs_that_know_one_old_secret_and_those_that_know_several_read_each_others_endpoints() -> None:
    env = FakeEnv()
    endpoint = delivering.rotate(make_endpoint(env, secret="whsec_a"), "whsec_b", env)
    endpoint = delivering.rotate(endpoint, "whsec_c", env)
    _, doc = rows.endpoint_to_row(endpoint)
    before = msgspec.json.decode(doc, type=_OneOldSecret)
    assert (before.secret, before.old_secret) == ("whsec_c", "whsec_b")
    assert before.old_secret_until == after(env.now(), 86_400)
    written = rows.endpoint_from_row((endpoint.id, msgspec.json.encode(before).decode()))
    assert written.secrets_at(env.now()) == ("whsec_c", "whsec_b")
    assert delivering.rotate(written, "whsec_d", env).secrets_at(env.now()) == ("whsec_d", "whsec_c", "whsec_b")
