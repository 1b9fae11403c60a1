"""A Python that has imported the service once and forks for each process a test starts: a start is mostly imports."""

import gc
import json
import os
import runpy
import selectors
import signal
import socket
import sys
from importlib import import_module
from typing import Any

LOADED = (
    "service.app",
    "service.cli.commands",
    "service.sandbox.app",
    "service.store.postgres",
    "service.store.sqlite",
)
ORDER_MAX = 1 << 17


class ForkServer:
    """Takes orders on one socket; each brings a socket of its own, on which it is told the process and its end."""

    def __init__(self, orders: socket.socket) -> None:
        self._orders = orders
        self._selector = selectors.DefaultSelector()
        self._selector.register(orders, selectors.EVENT_READ)
        self._running: dict[int, tuple[int, socket.socket]] = {}

    def run(self) -> dict[str, Any] | None:
        """Returns in each child what it was ordered to be, and None when no more orders can come."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is not self._orders:
                    self._tell_end(key.fd)
                    continue
                message, files, _, _ = socket.recv_fds(self._orders, ORDER_MAX, 3)
                if not message:
                    self._kill_all()
                    return None
                if self._fork(files):
                    return json.loads(message)

    def _fork(self, files: list[int]) -> bool:
        """Whether this is the child, whose output goes to those files and which has no other of the server's."""
        asker = socket.socket(fileno=files[0])
        pid = os.fork()
        if pid:
            process = os.pidfd_open(pid)
            self._selector.register(process, selectors.EVENT_READ)
            self._running[process] = (pid, asker)
            socket.send_fds(asker, [str(pid).encode()], [process])
        else:
            self._close(asker)
            for number, file in enumerate(files[1:], start=1):
                os.dup2(file, number)
        for file in files[1:]:
            os.close(file)
        return pid == 0

    def _tell_end(self, process: int) -> None:
        self._selector.unregister(process)
        os.close(process)
        pid, asker = self._running.pop(process)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with asker:
            try:
                asker.send(str(code).encode())
            except OSError:
                return  # who asked is gone

    def _kill_all(self) -> None:
        for process in self._running:
            signal.pidfd_send_signal(process, signal.SIGKILL)

    def _close(self, asker: socket.socket) -> None:
        self._selector.close()
        self._orders.close()
        asker.close()
        for process, (_, other) in self._running.items():
            os.close(process)
            other.close()


def main(orders: socket.socket) -> None:
    for name in LOADED:
        import_module(name)
    gc.freeze()
    order = ForkServer(orders).run()
    if order is None:
        return
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    sys.argv = ["", *order["arguments"]]
    runpy.run_module(order["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
