"""Values survive the way into a row and back."""

from datetime import datetime

import msgspec

from service.core import delivering
from service.core.delivery import Endpoint, EndpointFilter, Resume
from service.core.task import Cost, Output, Result, TaskError
from service.core.times import after
from service.store import rows
from service.store.endpoint_rows import endpoint_from_row, endpoint_to_row
from tests.support.env import FakeEnv
from tests.support.factory import make_delivery, make_endpoint, make_task


def test_a_task_survives_with_every_field() -> None:
    env = FakeEnv()
    outputs = (Output(url="https://x/y.png", width=3), Output(kind="text", text="hello"))
    result = Result(outputs=outputs, cost=Cost(amount=2.5, unit="usd"), raw=msgspec.Raw(b'{"a":1.50}'))
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


def test_a_result_stored_as_images_is_read_as_outputs() -> None:
    env = FakeEnv()
    *columns, doc = rows.task_to_row(make_task(env, status="succeeded", step="done"))
    image = {"url": "https://x/y.png", "expires_at": None, "width": 3}
    older = msgspec.json.decode(str(doc)) | {"result": {"images": [image], "cost": 10.0, "raw": {"a": 1}}}
    result = rows.task_from_row((*columns, msgspec.json.encode(older).decode())).result
    assert result is not None
    assert result.outputs == (Output(kind="image", url="https://x/y.png", width=3),)
    assert result.cost == Cost(amount=10.0, unit="credits") and bytes(result.raw) == b'{"a":1}'


class _OlderImage(msgspec.Struct):
    url: str
    expires_at: str | None = None


class _OlderResult(msgspec.Struct):
    images: tuple[_OlderImage, ...]
    cost: float | None = None


class _OlderDocument(msgspec.Struct):
    result: _OlderResult | None = None


def test_a_replica_of_the_version_before_reads_what_is_stored() -> None:
    result = Result(outputs=(Output(url="https://x/y.png", expires_at="2026"),), cost=Cost(amount=2.5))
    doc = rows.task_to_row(make_task(FakeEnv(), result=result))[-1]
    older = msgspec.json.decode(str(doc), type=_OlderDocument).result
    assert older == _OlderResult(images=(_OlderImage(url="https://x/y.png", expires_at="2026"),), cost=2.5)


def test_a_delivery_survives_with_every_field() -> None:
    env = FakeEnv()
    delivery = make_delivery(env, resume=Resume(status="pending", due_at=env.now()), finished_at=env.now(), failures=2)
    assert rows.delivery_from_row(rows.delivery_to_row(delivery)) == delivery


def test_an_endpoint_survives_with_every_field() -> None:
    env = FakeEnv()
    wanted = EndpointFilter(providers=("acedata",), models=("m",), accounts=("default",), metadata={"shop": "a"})
    endpoint = make_endpoint(env, headers={"X-A": "b"}, rate_per_s=0.5, filter=wanted, metadata={"team": "data"})
    endpoint = msgspec.structs.replace(endpoint, timeout_s=3.5, retry_schedule_s=(1.0, 2.0))
    for secret in ("whsec_b", "whsec_c"):
        endpoint = delivering.rotate(endpoint, secret, env)
    assert endpoint_from_row(endpoint_to_row(endpoint)) == endpoint


class _FirstVersion(msgspec.Struct):
    """An endpoint as the first version reads and writes it: one old secret, and filters beside the other settings."""

    id: str
    url: str
    secret: str
    created_at: datetime
    providers: tuple[str, ...] = ()
    metadata: dict[str, str] = {}
    failures: int = 0
    old_secret: str | None = None
    old_secret_until: datetime | None = None


def read_as_first_version(doc: str) -> _FirstVersion:
    return msgspec.json.decode(doc, type=_FirstVersion)


def written_by_first_version(endpoint: _FirstVersion, settings: str = "{}") -> Endpoint:
    return endpoint_from_row((endpoint.id, msgspec.json.encode(endpoint).decode(), settings))


def test_programs_that_know_one_old_secret_and_those_that_know_several_read_each_others_endpoints() -> None:
    env = FakeEnv()
    endpoint = delivering.rotate(make_endpoint(env, secret="whsec_a"), "whsec_b", env)
    endpoint = delivering.rotate(endpoint, "whsec_c", env)
    before = read_as_first_version(endpoint_to_row(endpoint)[1])
    assert (before.secret, before.old_secret) == ("whsec_c", "whsec_b")
    assert before.old_secret_until == after(env.now(), 86_400)
    written = written_by_first_version(before)
    assert written.secrets_at(env.now()) == ("whsec_c", "whsec_b")
    assert delivering.rotate(written, "whsec_d", env).secrets_at(env.now()) == ("whsec_d", "whsec_c", "whsec_b")


def test_an_endpoint_of_the_first_version_has_its_filters_in_filter_and_no_metadata() -> None:
    env = FakeEnv()
    stored = _FirstVersion(
        id="ep_1", url="http://a.example", secret="s", created_at=env.now(), providers=("acedata",), metadata={"a": "b"}
    )
    endpoint = written_by_first_version(stored)
    assert endpoint.filter == EndpointFilter(providers=("acedata",), metadata={"a": "b"})
    assert endpoint.metadata == {}


def test_the_first_version_filters_as_the_present_one_and_drops_none_of_its_settings() -> None:
    env = FakeEnv()
    wanted = EndpointFilter(providers=("acedata",), models=("m",), metadata={"shop": "a"})
    endpoint = make_endpoint(env, filter=wanted, metadata={"team": "data"}, timeout_s=3.0)
    _, doc, settings = endpoint_to_row(endpoint)
    older = read_as_first_version(doc)
    assert (older.providers, older.metadata) == (("acedata",), {"shop": "a"})
    written = written_by_first_version(msgspec.structs.replace(older, failures=3), settings)
    assert written == msgspec.structs.replace(endpoint, failures=3)
