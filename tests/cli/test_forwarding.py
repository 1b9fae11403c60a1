"""An event on its way to a developer's server: the status counts, whatever the body does."""

import asyncio

import pytest

from service.cli.forwarding import Forwarder
from tests.outbound.answers import BAD_2XX, CUT_SHORT
from tests.support.server import Answer, Raw, Request, ScriptedServer


@pytest.mark.parametrize("answer", [*CUT_SHORT.values(), Raw(BAD_2XX["204 in chunks"][0])])
async def test_an_event_is_received_once_the_head_says_2xx(answer: Answer) -> None:
    async def answers(_: Request) -> Answer:
        return answer

    server = ScriptedServer(answers)
    await server.listen()
    with Forwarder(server.url, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw") as forwarder:
        answered = await asyncio.to_thread(forwarder.post_event, "evt_1", b"{}")
    await server.close()
    assert answered.received and not answered.is_away, str(answered)
