"""A service as it looks after a busy day: subscribers that do well and badly, pictures, failures, keys."""

import asyncio

from tests.browser.conftest import Site
from tests.support.api import FINAL, ok
from tests.support.receiver import status
from tests.support.wait import until

HOSTILE = "<img src=x onerror=alert(1)>\u202egnp.exe"
PROMPTS = (
    "a lighthouse at dusk, long exposure",
    "product shot of a ceramic mug on linen",
    "isometric map of a harbour town",
    "portrait of an old sailor sandbox:moderated",
    "a poster for a jazz evening sandbox:failed",
    "a red bicycle leaning on a wall sandbox:no-credits",
)
MODELS = ("fluxapi-ai/flux-kontext-pro", "flux-context/flux-kontext-max", "acedata/flux-dev", "fluxapi-org/flux-dev")


class Furnished:
    """The ids of what the tests look at."""

    def __init__(self) -> None:
        self.failing = ""
        self.disabled = ""
        self.failed_delivery = ""
        self.task = ""


async def furnish(site: Site) -> Furnished:
    made, api, receiver = Furnished(), site.api, site.receiver
    good = receiver.subscriber("hooks/images", answers=[status(503, body=b"warming up")] * 2)
    bad = receiver.subscriber("orders/pictures", then=status(500, body=b"<h1>Internal error</h1>\n" + HOSTILE.encode()))
    await api.endpoint(good.url, description="the shop's backend", events=["task.*", "endpoint.*"])
    made.failing = (await api.endpoint(bad.url, description=f"orders {HOSTILE}", headers={"X-Token": "t0p"}))["id"]
    made.disabled = (
        await api.endpoint(bad.url, enabled=False, filter={"providers": ["acedata"], "metadata": {"shop": "berlin"}})
    )["id"]
    count = len(PROMPTS) * 2
    tasks = [
        await api.submit(
            MODELS[n % len(MODELS)], PROMPTS[n % len(PROMPTS)], metadata={"shop": "berlin", "order": str(n)}
        )
        for n in range(count)
    ]
    await asyncio.gather(*(api.finished(task["id"]) for task in tasks))

    async def settled() -> bool:
        return not await api.deliveries(status="pending") and not await api.deliveries(status="sending")

    await until(settled, what="nothing is on its way any more")
    made.task = tasks[2]["id"]
    made.failed_delivery = (await api.deliveries(status="failed", endpoint_id=made.failing))[0]["id"]
    for name, scopes in (("the shop's backend", ["tasks:write", "tasks:read"]), ("Grafana", ["tasks:read"])):
        ok(await api.client.post("/v1/keys", json={"name": name, "scopes": scopes}), 201)
    assert {(await api.task(task["id"]))["status"] for task in tasks} <= FINAL
    return made
