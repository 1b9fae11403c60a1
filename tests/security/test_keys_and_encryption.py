"""Keys and encryption as their users meet them: two replicas, the command line, a change of the secret keys."""

import sqlite3
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.flows.conftest import World
from tests.support.api import new_prompt, problem
from tests.support.process import Ended, run_python
from tests.support.service import API_KEY, SIGNING_SECRET, Service
from tests.support.wait import PATIENCE_S, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("keys")]

OLD, NEW = "the-old-secret-key-of-this-test", "the-new-secret-key-of-this-test"
HEADERS = {"Authorization": "Bearer of-the-subscriber"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(world: World) -> AsyncIterator[Service]:
    yield await world.start({"TASKHOOK_SECRET_KEYS": OLD})


async def taskhook(service: Service, *arguments: str, **env: str) -> Ended:
    given = {**service.env, "TASKHOOK_URL": service.url, **env}
    return await run_python("service", *arguments, cwd=service.directory, env=given)


async def status_of(url: str, key: str) -> int:
    async with httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False) as client:
        return (await client.get(f"{url}/v1/tasks", headers={"Authorization": f"Bearer {key}"})).status_code


async def test_a_key_is_made_used_listed_and_revoked_on_all_replicas(world: World, service: Service) -> None:
    made = await taskhook(service, "keys", "create", "the shop", "--scope", "tasks:read")
    assert made.code == 0, made.err
    key, key_id = made.out.strip(), made.err.split(":")[0]
    assert key.startswith("tk_live_")
    assert API_KEY not in made.out + made.err
    other = await world.start({"TASKHOOK_SECRET_KEYS": OLD}, beside=service, command="web")
    for url in (service.url, other.url):
        assert await status_of(url, key) == 200
    listed = await taskhook(service, "keys", "list")
    assert key not in listed.out
    assert [line.split("\t")[0] for line in listed.out.splitlines()] == [key_id]
    assert (await taskhook(service, "keys", "revoke", key_id)).code == 0

    async def refused() -> bool:
        return [await status_of(url, key) for url in (service.url, other.url)] == [401, 401]

    await until(refused, what="both replicas refuse the key")
    await other.terminate()


async def test_a_key_without_the_right_can_make_none(service: Service) -> None:
    made = await taskhook(service, "keys", "create", "reader", "--scope", "tasks:read")
    done = await taskhook(service, "keys", "create", "another", "--scope", "admin", "--api-key", made.out.strip())
    assert done.code == 2
    assert "admin" in done.err
    problem(await service.client.get("/v1/keys", headers={"Authorization": f"Bearer {made.out.strip()}"}), 403)


async def test_secrets_follow_the_newest_key_while_the_service_runs(world: World, service: Service) -> None:
    """Old key, both, rotation, new key alone: deliveries are signed with the same secret all the way."""
    subscriber = world.receiver.subscriber("rotated")
    endpoint = await service.api.endpoint(subscriber.url, headers=HEADERS)

    async def deliver() -> None:
        prompt, before = new_prompt(), len(subscriber.received)
        world.fluxapi_ai.script(prompt, callback="success")
        await service.api.finished((await service.api.submit("fluxapi-ai/flux-kontext-pro", prompt))["id"])
        await until(lambda: len(subscriber.received) > before)
        subscriber.received[-1].verify(endpoint["secret"])
        assert subscriber.received[-1].request.headers["authorization"] == HEADERS["Authorization"]

    await deliver()
    await service.restart({"TASKHOOK_SECRET_KEYS": f"{NEW},{OLD}"})
    await deliver()
    done = await taskhook(service, "keys", "rotate-encryption")
    assert done.code == 0, done.err
    assert "encrypted anew" in done.out
    await service.restart({"TASKHOOK_SECRET_KEYS": NEW})
    await deliver()


async def test_what_no_key_opens_is_told_by_name_and_stops_nothing_else(world: World, service: Service) -> None:
    lost, fine = world.receiver.subscriber("lost"), world.receiver.subscriber("fine")
    lost_endpoint = await service.api.endpoint(lost.url, headers=HEADERS)
    await service.restart({"TASKHOOK_SECRET_KEYS": "a-key-that-came-without-the-others"})
    await service.api.endpoint(fine.url)
    prompt, hook = new_prompt(), world.receiver.subscriber("hook")
    world.fluxapi_ai.script(prompt, callback="success")
    task = await service.api.submit("fluxapi-ai/flux-kontext-pro", prompt, webhook_url=hook.url)
    await service.api.finished(task["id"])
    await until(lambda: fine.of(task["id"]) and hook.of(task["id"]))
    hook.of(task["id"])[0].verify(SIGNING_SECRET)

    async def attempted() -> list[str]:
        deliveries = await service.api.deliveries(endpoint_id=lost_endpoint["id"])
        return [attempt["error"] for one in deliveries for attempt in one["attempts"]]

    errors = await until(attempted, what="an attempt that could not be made")
    assert "TASKHOOK_SECRET_KEYS" in errors[0]
    assert lost.received == []
    told = [line for line in service.log().splitlines() if "vault.unopened" in line]
    assert len(told) == 1
    assert '"setting":"TASKHOOK_SECRET_KEYS"' in told[0].replace('": "', '":"')
    done = await taskhook(service, "keys", "rotate-encryption")
    assert done.code == 1
    assert "TASKHOOK_SECRET_KEYS" in done.err
    await service.restart({"TASKHOOK_SECRET_KEYS": f"a-key-that-came-without-the-others,{NEW},{OLD}"})
    await until(lambda: lost.of(task["id"]), what="delivered once the key is back")


async def test_what_is_stored_in_the_clear_from_before_is_encrypted_by_the_rotation(service: Service) -> None:
    with sqlite3.connect(service.directory / "taskhook.db") as database:
        database.execute(
            """update endpoints set doc = json_set(doc, '$.secret', 'whsec_in-the-clear') where id =
               (select min(id) from endpoints)"""
        )
    assert (await taskhook(service, "keys", "rotate-encryption")).code == 0
    with sqlite3.connect(service.directory / "taskhook.db") as database:
        found = "".join(doc for (doc,) in database.execute("select doc from endpoints"))
    assert "in-the-clear" not in found
