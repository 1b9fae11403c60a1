"""`listen` against a service that dies in the middle, and a local server that is away: no gap, no repeat, in order."""

import re
from pathlib import Path

import pytest

from tests.cli.conftest import run, started, to_service
from tests.flows.conftest import World
from tests.support.api import new_prompt
from tests.support.receiver import Subscriber, status
from tests.support.service import Service
from tests.support.wait import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("cli")]
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


async def publish(world: World, service: Service, count: int) -> None:
    """So many tasks, each with its one event."""
    for _ in range(count):
        prompt = new_prompt()
        world.flux_context.script(prompt, poll=["success"])
        await service.api.submit("flux-context/flux-kontext-pro", prompt)


async def event_ids(service: Service) -> list[str]:
    return [event["id"] for event in await service.api.events()]


def got(subscriber: Subscriber) -> list[str]:
    return [one.id for one in subscriber.received]


async def test_a_service_that_is_killed_leaves_no_gap_and_no_repeat(world: World, tmp_path: Path) -> None:
    service = await world.start()
    local = world.receiver.subscriber("local")
    command = ("listen", "--forward-to", local.url, "--secret", SECRET, "--state", "place")
    async with started(tmp_path, *command, env=to_service(service)) as listening:
        await listening.says("Listening for events")
        await service.kill()
        await listening.says("Connection lost")
        await service.start()
        await publish(world, service, 2)
        await until(lambda: len(local.received) == 2)
        await service.kill()
        await service.start()
        await publish(world, service, 2)
        await until(lambda: len(local.received) == 4)
        await until(lambda: (tmp_path / "place").read_text() == got(local)[-1] + "\n")
        ended = await listening.interrupt()
    assert ended.code == 130
    assert "Traceback" not in ended.err
    await publish(world, service, 2)
    await until(lambda: event_count(service, 6))
    async with started(tmp_path, *command, env=to_service(service)) as listening:
        await until(lambda: len(local.received) == 6)
        await listening.interrupt()
    assert got(local) == await event_ids(service)
    assert (tmp_path / "place").read_text() == got(local)[-1] + "\n"
    for one in local.received:
        one.verify(SECRET)


async def event_count(service: Service, wanted: int) -> bool:
    return len(await event_ids(service)) == wanted


async def test_a_local_server_that_is_away_is_waited_for_and_one_that_refuses_is_passed_over(
    world: World, tmp_path: Path
) -> None:
    service = await world.start()
    answers = [status(503), status(204), status(400, body=b"no such order"), status(204)]
    local = world.receiver.subscriber("shaky", answers=answers)
    await publish(world, service, 3)
    await until(lambda: event_count(service, 3))
    command = ("listen", "--forward-to", local.url, "--since", "evt_" + "0" * 32)
    async with started(tmp_path, *command, env=to_service(service)) as listening:
        await until(lambda: len(local.received) == 4)
        ended = await listening.interrupt()
    first, second, third = await event_ids(service)
    assert got(local) == [first, first, second, third]
    assert re.search(rf"{first}: 503 \(\d+ ms\)\. Trying again in 0\.5 s, 5 left\.", ended.err)
    assert f"{second} was not received. Again: taskhook replay {second} --to {local.url}" in ended.err
    (secret,) = re.findall(r"Signing secret for \S+: (whsec_\S+)", ended.err)
    for one in local.received:
        one.verify(secret)
    kept_nowhere = await run(tmp_path, "listen", "--state", "no/such/folder", env=to_service(service))
    assert kept_nowhere.code == 1
    assert kept_nowhere.err.endswith("Error: no/such/folder: No such file or directory\n")
