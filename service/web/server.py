"""The HTTP server: it stops without cutting off accepted connections, so no restart fails a request."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn

CLOSED_S = 0.05
"""Until the event loop has let go of a listening socket."""


class Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """They are the process's own: uvicorn would end it with the signal instead of with 0."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """A listening socket that is closed resets the connections in its queue, so that is emptied last of all."""
        queues = [listener.dup() for listener in sockets or []]
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        await asyncio.sleep(CLOSED_S)
        waiting = [accepted for queue in queues for accepted in _empty(queue)]
        await asyncio.gather(*(self._let_in(accepted) for accepted in waiting))
        await super().shutdown([])

    async def _let_in(self, accepted: socket.socket) -> None:
        def protocol() -> asyncio.Protocol:
            made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )
            return made

        with contextlib.suppress(OSError):  # the client is gone
            await asyncio.get_running_loop().connect_accepted_socket(protocol, accepted)


def _empty(queue: socket.socket) -> list[socket.socket]:
    """Accept the waiting connections of a closed listener; none can arrive after the last look."""
    found: list[socket.socket] = []
    queue.setblocking(False)
    with queue, contextlib.suppress(OSError):
        while True:
            found.append(queue.accept()[0])
    return found
