"""Values with everything filled in, so that a test names only what it is about."""

from typing import Any

import msgspec

from service.core.delivery import Delivery, Endpoint
from service.core.observation import Failed, Succeeded
from service.core.schedule import Policy
from service.core.task import Image, Task, TaskError, TaskInput
from service.core.times import after
from tests.support.env import FakeEnv

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
CALLS_BACK = Policy(callbacks=True, polling=True, blocking=False)
POLL_ONLY = Policy(callbacks=False, polling=True, blocking=False)
BLOCKING = Policy(callbacks=False, polling=False, blocking=True)


def make_task(env: FakeEnv, **changes: Any) -> Task:
    task = Task(
        id=env.new_id("task"),
        provider="fluxapi-ai",
        model="flux-kontext-pro",
        input=TaskInput(prompt="a lighthouse at dusk"),
        metadata={},
        webhook_url=None,
        on_unconfirmed="wait",
        created_at=env.now(),
        deadline_at=after(env.now(), 900),
        due_at=env.now(),
    )
    return msgspec.structs.replace(task, **changes)


def make_endpoint(env: FakeEnv, **changes: Any) -> Endpoint:
    endpoint = Endpoint(id=env.new_id("endpoint"), url="http://example.com/hook", secret=SECRET, created_at=env.now())
    return msgspec.structs.replace(endpoint, **changes)


def make_delivery(env: FakeEnv, **changes: Any) -> Delivery:
    delivery = Delivery(
        id=env.new_id("delivery"),
        event_id=env.new_id("event"),
        event_type="task.succeeded",
        task_id=None,
        endpoint_id=None,
        url="http://example.com/hook",
        lane="url:http://example.com",
        status="sending",
        due_at=env.now(),
        lease=1,
        created_at=env.now(),
    )
    return msgspec.structs.replace(delivery, **changes)


def picture(url: str = "https://cdn.example/x.png", **more: Any) -> Succeeded:
    raw = msgspec.Raw(msgspec.json.encode({"url": url}))
    return Succeeded(images=(Image(url=url),), raw=raw, **more)


def refusal(code: str = "content_policy", **more: Any) -> Failed:
    return Failed(error=TaskError(code=code, message="no"), **more)
