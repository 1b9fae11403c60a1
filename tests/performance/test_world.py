"""The benchmarks' provider, against a service whose answers arrive in pieces."""

import socketserver
import time
from collections import Counter
from pathlib import Path
from threading import Thread

from bench.calls import ask, world
from bench.processes import until

CALLBACKS = 5


class InPieces(socketserver.BaseRequestHandler):
    """Longer between the pieces than what reads them takes."""

    connections = 0

    def setup(self) -> None:
        InPieces.connections += 1

    def handle(self) -> None:
        while self.request.recv(4096):
            for piece in (b"HTTP/1.1 20", b"0 OK\r\nContent-Length: 21\r\n", b"\r\n", b'{"status":"rec', b'eived"}'):
                self.request.sendall(piece)
                time.sleep(0.005)


class CutsOffTheFirst(socketserver.BaseRequestHandler):
    callbacks = 0

    def handle(self) -> None:
        while self.request.recv(4096):
            CutsOffTheFirst.callbacks += 1
            if CutsOffTheFirst.callbacks == 1:
                return
            self.request.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def test_a_callback_whose_connection_ended_is_sent_again(tmp_path: Path) -> None:
    seen = Counter[str]()

    def is_answered(port: int) -> bool:
        seen.update(ask(port, "/figures")["statuses"])
        return seen.total() == 1

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), CutsOffTheFirst) as service, world(str(tmp_path)) as port:
        Thread(target=service.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{service.server_address[1]}/callbacks/fluxapi-ai/token"
        ask(port, "/submit", {"callBackUrl": url})
        until(lambda: is_answered(port), "the callback is answered", 0.001)
        service.shutdown()

    assert (seen, CutsOffTheFirst.callbacks) == ({"200": 1}, 2)


def test_callbacks_follow_each_other_on_one_connection_however_their_answers_are_cut(tmp_path: Path) -> None:
    seen = Counter[str]()

    def is_answered(port: int, count: int) -> bool:
        seen.update(ask(port, "/figures")["statuses"])
        return seen.total() == count

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), InPieces) as service, world(str(tmp_path)) as port:
        Thread(target=service.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{service.server_address[1]}/callbacks/fluxapi-ai/token"
        for number in range(CALLBACKS):
            ask(port, "/submit", {"callBackUrl": url})
            until(lambda count=number + 1: is_answered(port, count), "the callback is answered", 0.001)
        service.shutdown()

    assert seen == {"200": CALLBACKS}
    assert InPieces.connections == 1
