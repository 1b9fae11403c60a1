"""Real subscribers: they record every request, check its signature with the reference library, answer by script."""

import json
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import quote

from standardwebhooks import Webhook

from tests.support.server import Answer, Reply, Request, ScriptedServer


def status(code: int, *, headers: dict[str, str] | None = None, body: bytes = b"", delay: float = 0.0) -> Reply:
    return Reply(code, body, headers or {}, delay)


def redirect(location: str, code: int = 302) -> Reply:
    return Reply(code, b"", {"Location": location})


@dataclass(frozen=True)
class Received:
    """A delivery attempt, as the endpoint received it."""

    request: Request
    answer: Answer

    @property
    def accepted(self) -> bool:
        """Whether the subscriber said a 2xx to it, which may have been lost on its way."""
        return isinstance(self.answer, Reply) and 200 <= self.answer.status < 300

    @property
    def id(self) -> str:
        return self.request.headers["webhook-id"]

    @property
    def timestamp(self) -> int:
        return int(self.request.headers["webhook-timestamp"])

    @property
    def at(self) -> float:
        return self.request.at

    @property
    def signatures(self) -> list[str]:
        return self.request.headers["webhook-signature"].split(" ")

    @property
    def body(self) -> dict[str, Any]:
        return self.request.json

    @property
    def type(self) -> str:
        return self.body["type"]

    @property
    def task_id(self) -> str:
        return self.body["data"].get("id", "")

    def verify(self, secret: str) -> dict[str, Any]:
        """The body, when the signature holds; raises when it does not."""
        verified: dict[str, Any] = Webhook(secret).verify(self.request.raw_body, self.request.headers)
        return verified


@dataclass
class Subscriber:
    """A URL of the receiver. `answers` are used one by one, then `then` for all others."""

    name: str
    url: str
    answers: deque[Answer]
    then: Answer
    received: list[Received] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0

    def of(self, task_id: str, type: str | None = None) -> list[Received]:
        """Return what was received about this task."""
        return [one for one in self.received if one.task_id == task_id and (type is None or one.type == type)]

    def types(self) -> list[str]:
        return [one.type for one in self.received]

    def __repr__(self) -> str:
        return f"Subscriber({self.name}, received={self.types()})"


@dataclass(frozen=True)
class _Counted:
    subscriber: Subscriber
    answer: Answer

    async def play(self, connection: Any) -> bool:
        self.subscriber.in_flight += 1
        self.subscriber.most_in_flight = max(self.subscriber.most_in_flight, self.subscriber.in_flight)
        try:
            return await self.answer.play(connection)
        finally:
            self.subscriber.in_flight -= 1


class Receiver:
    """A server with any number of subscribers, each at its own path."""

    def __init__(self) -> None:
        self.server = ScriptedServer(self._answer)
        self.subscribers: dict[str, Subscriber] = {}
        self.strays: list[Request] = []
        """Requests to a path where nobody subscribed."""

    async def start(self) -> Self:
        await self.server.listen()
        return self

    async def stop(self) -> None:
        await self.server.close()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def subscriber(self, name: str, answers: Iterable[Answer] = (), then: Answer | None = None) -> Subscriber:
        path = f"/{name}"
        assert path == quote(path), f"{name} is no part of a URL"
        assert path not in self.subscribers, f"two subscribers named {name}"
        made = Subscriber(name, self.server.url + path, deque(answers), then or Reply(204))
        self.subscribers[path] = made
        return made

    async def _answer(self, request: Request) -> Answer:
        subscriber = self.subscribers.get(request.path)
        if subscriber is None:
            self.strays.append(request)
            return Reply(404)
        json.loads(request.raw_body)
        answer = subscriber.answers.popleft() if subscriber.answers else subscriber.then
        subscriber.received.append(Received(request, answer))
        return _Counted(subscriber, answer)
