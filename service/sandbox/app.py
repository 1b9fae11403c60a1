"""The sandbox as one ASGI app: the simulated providers, their pictures, and a page that lists the magic prompts."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.sandbox.acedata import Acedata
from service.sandbox.callbacks import Courier
from service.sandbox.faults import FAULTS, Tally
from service.sandbox.flux_context import FluxContext
from service.sandbox.fluxapi_ai import FluxapiAi
from service.sandbox.fluxapi_org import FluxapiOrg
from service.sandbox.jobs import Job, JobOutcome, Jobs
from service.sandbox.pictures import Studio
from service.sandbox.simulator import Simulator, Site

MAX_BODY_BYTES: Final = 256 * 1024
ORIGIN_LIFE_S: Final = 600.0
_PICTURE_NAME: Final = re.compile(r"(result|origin)-([0-9]{1,2})\.(?:jpg|png)")


class Sandbox:
    """All the simulated providers under one URL.

    `base_url` is where `app` is mounted; picture URLs are built from it. A job takes `job_seconds`. If `key` is given,
    only that bearer key is accepted; otherwise any key that does not start with `bad-`. Callbacks
    of a provider in `webhook_secrets` are signed. The newest `max_jobs` jobs are kept.
    Jobs wait with `sleep`.
    """

    def __init__(
        self,
        base_url: str,
        *,
        job_seconds: float = 1.5,
        key: str | None = None,
        max_jobs: int = 20_000,
        webhook_secrets: Mapping[str, str | None] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._studio = Studio()
        self.site = Site(
            base_url=base_url.rstrip("/"),
            job_seconds=job_seconds,
            key=key,
            webhook_secrets=webhook_secrets or {},
            sleep=sleep,
            jobs=Jobs(max_jobs),
            courier=Courier(),
            submits=Tally(),
        )
        site = self.site
        self._simulators: tuple[Simulator, ...] = (
            FluxContext(site),
            FluxapiAi(site),
            Acedata(site),
            FluxapiOrg(site, self._studio),
        )
        self.app = self._build_app()

    def _build_app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/", self._index),
                Route("/pictures/{job_id}/{name}", self._picture),
                *(route for simulator in self._simulators for route in simulator.routes()),
            ],
            exception_handlers={ClientDisconnect: _gone},
            max_body_size=MAX_BODY_BYTES,
        )

    async def close(self) -> None:
        await self.site.jobs.close()
        await self.site.courier.close()
        self._studio.close()

    async def _index(self, request: Request) -> Response:
        base_url = self.site.base_url
        providers = [
            {"id": simulator.id, "base_url": f"{base_url}/{simulator.id}{simulator.prefix}", "calls": simulator.calls}
            for simulator in self._simulators
        ]
        return JSONResponse(
            {
                "about": "A simulator of image providers. Put sandbox:NAME into a prompt to make something go wrong.",
                "job_seconds": self.site.job_seconds,
                "providers": providers,
                "magic_prompts": {f"sandbox:{name}": meaning for name, meaning in FAULTS.items()},
            }
        )

    async def _picture(self, request: Request) -> Response:
        job = self.site.jobs.find(request.path_params["job_id"])
        name = _PICTURE_NAME.fullmatch(request.path_params["name"])
        if job is None or name is None or not _shows(job, name[1], int(name[2])):
            return JSONResponse({"error": "no such picture, or it has expired"}, 404)
        content = await self._studio.draw(job.order, int(name[2]) - 1)
        headers = {"Cache-Control": "public, max-age=600"}
        return Response(content, media_type=f"image/{job.order.picture_format}", headers=headers)


def _shows(job: Job, kind: str, number: int) -> bool:
    """Return whether the picture exists: fluxapi.ai's originals last ten minutes, results as long as their job."""
    if job.finished_at is None or job.outcome is not JobOutcome.SUCCEEDED or not 1 <= number <= job.order.count:
        return False
    return kind == "result" or time.time() - job.finished_at < ORIGIN_LIFE_S


async def _gone(request: Request, _: Exception) -> Response:
    """Answer a client that closed the connection while sending; it does not read this."""
    return Response(status_code=400)
