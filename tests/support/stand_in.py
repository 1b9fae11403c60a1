"""The public HTTP API on a real port, in a thread: as documented, in memory, and as unreliable as a test asks."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.support.wait import PATIENCE_S

KEY = "stand-in-key"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)
Json = dict[str, Any]


class StandIn:
    """Tasks move one state with every GET: queued, running, then what their prompt says ("fail", "stuck", "cancel")."""

    def __init__(self) -> None:
        self.reset()
        self._socket = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(self._app(), log_config=None, ws="none", lifespan="off", timeout_graceful_shutdown=2)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)

    def reset(self) -> None:
        """As new: for the next test."""
        self.tasks: dict[str, Json] = {}
        self.keys: dict[str, str] = {}
        self.events: list[Json] = []
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.lose_answers = 0
        self.answer_busy = 0
        self.stream_cuts: list[int] = []
        self.streams_left: int | None = None
        self.stream_opened: list[str | None] = []
        self.image: tuple[int, str, bytes] = (200, "image/png", PNG)
        self.image_count = 1
        self.forwarded_status = 200

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._url = self.url
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(PATIENCE_S)

    def add_event(self, kind: str, task: Json) -> Json:
        number = len(self.events) + 1
        event = {
            "id": f"evt_{number:04}",
            "type": kind,
            "timestamp": f"2026-01-01T00:00:{number % 60:02}.000Z",
            "sequence": number,
            "data": task,
        }
        self.events.append(event)
        return event

    def paths(self, method: str) -> list[str]:
        return [path for made, path, _, _ in self.requests if made == method]

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/tasks", self._tasks, methods=["GET", "POST"]),
                Route("/v1/tasks/{id}", self._task),
                Route("/v1/tasks/{id}/timeline", self._timeline),
                Route("/v1/tasks/{id}/why", self._why),
                Route("/v1/tasks/{id}/cancel", self._cancel, methods=["POST"]),
                Route("/v1/deliveries", self._deliveries),
                Route("/v1/endpoints", self._endpoints),
                Route("/v1/events", self._events),
                Route("/v1/events/stream", self._stream),
                Route("/images/{name}", self._image),
                Route("/received", self._received, methods=["POST"]),
                Route("/other", self._other),
            ]
        )

    async def _note(self, request: Request) -> Response | None:
        """Records the request; an answer here is instead of the real one."""
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        self.requests.append((request.method, target, dict(request.headers), await request.body()))
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return problem(401, "Unauthorized", "no valid key")
        if self.answer_busy:
            self.answer_busy -= 1
            return JSONResponse({}, 503, {"Retry-After": "0"})
        return None

    async def _tasks(self, request: Request) -> Response:
        if refusal := await self._note(request):
            return refusal
        return self._submit(request, self.requests[-1][3]) if request.method == "POST" else self._list(request)

    def _submit(self, request: Request, raw_body: bytes) -> Response:
        body, key = json.loads(raw_body), request.headers["idempotency-key"]
        if body["input"].get("n", 1) > 4:
            error = {"loc": ["body", "input", "n"], "msg": "at most 4"}
            return problem(422, "Invalid request", "the request can't work", [error])
        task_id = self.keys.setdefault(key, f"task_{len(self.tasks) + 1:04}")
        task = self.tasks.setdefault(task_id, make_task(task_id, body))
        if self.lose_answers:
            self.lose_answers -= 1
            return StreamingResponse(_broken(), 202, {"Content-Length": "100"})
        return JSONResponse(task, 202, {"Location": f"/v1/tasks/{task_id}"})

    def _list(self, request: Request) -> Response:
        wanted = {key: value for key, value in request.query_params.items() if key in {"status", "provider", "model"}}
        found = [task for task in reversed(self.tasks.values()) if wanted.items() <= task.items()]
        start, limit = int(request.query_params.get("cursor", 0)), int(request.query_params["limit"])
        more = str(start + limit) if start + limit < len(found) else None
        return JSONResponse({"data": found[start : start + limit], "next_cursor": more})

    async def _task(self, request: Request) -> Response:
        if refusal := await self._note(request):
            return refusal
        task = self.tasks.get(request.path_params["id"])
        if task is None:
            return problem(404, "Not found", "there is no such task")
        answer = dict(task)
        if "wait" in request.query_params:
            if task["input"]["prompt"] == "stuck":
                await asyncio.sleep(min(0.05, float(request.query_params["wait"])))
            else:
                task.update(self._next(task))
        return JSONResponse(answer)

    def _next(self, task: Json) -> Json:
        if task["status"] == "queued":
            return {"status": "running"}
        via = {"finished_at": "2026-01-01T00:00:02.300Z", "tracking": {"via": "callback", "polls": 0, "callbacks": 1}}
        if task["input"]["prompt"] == "fail":
            error = {"code": "content_policy", "message": "not \x1b[31mthis", "provider_code": None, "retryable": False}
            return {"status": "failed", "error": error, **via}
        images = [{"url": f"{self._url}/images/{number}.x"} for number in range(1, self.image_count + 1)]
        return {"status": "succeeded", "result": {"outputs": images, "cost": None, "raw": {}}, **via}

    async def _timeline(self, request: Request) -> Response:
        entry = {"at": "2026-01-01T00:00:01.000Z", "type": "task.submitted", "detail": {"status_code": 202}}
        return await self._note(request) or JSONResponse({"data": [entry]})

    async def _why(self, request: Request) -> Response:
        sentences = {
            "status": "running",
            "why": "The provider works on it.",
            "next": "Its callback is awaited.",
            "you_can": "Cancel it.",
        }
        return await self._note(request) or JSONResponse(sentences)

    async def _cancel(self, request: Request) -> Response:
        if refusal := await self._note(request):
            return refusal
        task = self.tasks[request.path_params["id"]]
        task["status"] = "canceled"
        return JSONResponse(task)

    async def _deliveries(self, request: Request) -> Response:
        attempt = {"at": "2026-01-01T00:00:03.000Z", "status_code": 500, "duration_ms": 12, "error": None}
        delivery = {
            "id": "dlv_1",
            "event_id": "evt_0001",
            "endpoint_id": "ep_1",
            "status": "pending",
            "attempts": [attempt],
        }
        return await self._note(request) or JSONResponse({"data": [delivery], "next_cursor": None})

    async def _endpoints(self, request: Request) -> Response:
        return await self._note(request) or JSONResponse({"data": [{"id": "ep_1"}], "next_cursor": None})

    async def _events(self, request: Request) -> Response:
        return await self._note(request) or JSONResponse({"data": self.events, "next_cursor": None})

    async def _stream(self, request: Request) -> Response:
        if refusal := await self._note(request):
            return refusal
        if self.streams_left == 0:
            return problem(403, "Forbidden", "the key was revoked")
        self.streams_left = None if self.streams_left is None else self.streams_left - 1
        after = request.headers.get("last-event-id")
        self.stream_opened.append(after)
        position = next((i + 1 for i, event in enumerate(self.events) if event["id"] == after), 0)
        return StreamingResponse(self._frames(position), media_type="text/event-stream")

    async def _frames(self, position: int) -> AsyncIterator[str]:
        """Every event from `position` on; a scripted cut ends the connection after so many, amid the next one."""
        left = self.stream_cuts.pop(0) if self.stream_cuts else None
        yield "retry: 10\n: hello\n\n"
        while not self._server.should_exit:
            waiting = [to_frame(event) for event in self.events[position : position + 1]]
            if left == 0:
                yield "".join(waiting)[:-2]
                raise ConnectionAbortedError
            for frame in waiting:
                yield frame
                left = None if left is None else left - 1
                position += 1
            if not waiting:
                await asyncio.sleep(0.01)

    async def _image(self, request: Request) -> Response:
        self.requests.append((request.method, request.url.path, dict(request.headers), b""))
        status, content_type, body = self.image
        return Response(body, status, {"Content-Type": content_type} if content_type else {})

    async def _received(self, request: Request) -> Response:
        self.requests.append((request.method, request.url.path, dict(request.headers), await request.body()))
        return Response(status_code=self.forwarded_status)

    async def _other(self, request: Request) -> Response:
        return Response("<h1>hello</h1>", media_type="text/html")


def to_frame(event: Json) -> str:
    return f"id: {event['id']}\nevent: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n"


def make_task(task_id: str, body: Json) -> Json:
    provider, _, model = body["model"].rpartition("/")
    return {
        "id": task_id,
        "object": "task",
        "status": "queued",
        "provider": provider or "fluxapi-ai",
        "model": model,
        "provider_task_id": None,
        "input": body["input"],
        "metadata": body.get("metadata", {}),
        "result": None,
        "error": None,
        "tracking": {"via": None, "polls": 0, "callbacks": 0},
        "created_at": "2026-01-01T00:00:00.000Z",
        "submitted_at": None,
        "finished_at": None,
        "deadline_at": "2026-01-01T00:15:00.000Z",
    }


def problem(status: int, title: str, detail: str, errors: list[Json] | None = None) -> Response:
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, "errors": errors or []}
    return Response(json.dumps(body), status, media_type="application/problem+json")


async def _broken() -> AsyncIterator[bytes]:
    yield b'{"id": '
    raise ConnectionAbortedError


@contextlib.contextmanager
def closed_port() -> Any:
    """A URL where surely nobody listens: the port is bound, so that no one else gets it."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
