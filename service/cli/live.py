"""Live displays: the wait of `submit`, the lines of `listen`, the board of `watch`."""

import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from service.cli import terminal
from service.client import FINAL, ApiError, Client, ClientError, Json, StreamEvent, StreamNotice, utc_now

REFRESH_S = 5.0
_EVENTS = 5
_FRAME_LINES = 11  # titles, table heads and blank lines between what is listed
_TICK_S = 0.25


class Wait:
    """Follows one task to its end, drawn by a spinner on a terminal and as a line for each change elsewhere."""

    def __init__(self, client: Client, task: Json, console: Console) -> None:
        self._client = client
        self._console = console
        self._task = task
        self._next_step = ""
        self._away = False
        self._spinner = Spinner("dots")
        self._started = time.monotonic()

    def until_final(self, wait_s: float | None) -> Json:
        """The newest task: final, unless the time was over before."""
        if not self._console.is_terminal:
            return self._follow(wait_s)
        with Live(self, console=self._console, transient=True, refresh_per_second=10):
            return self._follow(wait_s)

    def _follow(self, wait_s: float | None) -> Json:
        self._log(str(self._task.get("status")))
        for task in self._client.follow(self._task["id"], wait_s):
            self._away = task is None
            if task:
                self._take(task)
        return self._task

    def _take(self, task: Json) -> None:
        changed = task.get("status") != self._task.get("status")
        self._task = task
        if task.get("status") in FINAL:
            return
        if changed:
            self._log(str(task.get("status")))
        if self._console.is_terminal:
            with suppress(ClientError):  # a nicety: its failure is not the task's
                self._next_step = str(self._client.why(task["id"]).get("next") or "")

    def _log(self, status: str) -> None:
        if not self._console.is_terminal:
            self._console.print(f"{self._task['id']} {status}", soft_wrap=True, markup=False, highlight=False)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        elapsed_s = time.monotonic() - self._started
        yield terminal.progress(self._task, elapsed_s, self._away, self._next_step, self._spinner)


def describe_notice(notice: StreamNotice) -> str:
    """The state of a stream's connection in one line."""
    if not notice.connected:
        return f"Connection lost ({notice.reason}). Trying again in {notice.pause_s:.1f} s."
    since = f" after {notice.last_event_id}" if notice.last_event_id else ""
    if notice.first:
        return f"Listening for events{since}. Ctrl-C ends."
    return f"Connected again, resuming{since}: nothing is missed." if since else "Connected again."


class Board:
    """The screen of `watch`. The stream's thread writes marks, the main thread reads the service and draws."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._tasks: list[Json] = []
        self._deliveries: list[Json] = []
        self._events: deque[Json] = deque(maxlen=_EVENTS)
        self._connection = Text("connecting", style="yellow")
        self._stale_at = 0.0
        self._failure: ClientError | None = None

    def listen(self) -> None:
        """The life of the stream's thread; a failure is kept for the main thread to raise."""
        try:
            for event in self._client.stream_events(on_notice=self._notice):
                self._show_event(event)
        except ClientError as error:
            self._failure = error

    def _show_event(self, event: StreamEvent) -> None:
        self._events.append(event.body)
        self._stale_at = 0.0

    def _notice(self, notice: StreamNotice) -> None:
        self._stale_at = 0.0
        if notice.connected:
            self._connection = Text("● live", style="green")
        else:
            self._connection = Text(f"● {terminal.clean(notice.reason)}; trying again", style="red")

    def refresh_if_due(self, rows: int) -> None:
        if self._failure:
            raise self._failure
        if time.monotonic() >= self._stale_at:
            self._stale_at = time.monotonic() + REFRESH_S
            try:
                self.refresh(rows)
            except ClientError as error:  # the stream says so already, and tries again
                if isinstance(error, ApiError) and error.final:
                    raise

    def refresh(self, rows: int) -> None:
        self._tasks = list(self._client.list(limit=rows))
        self._deliveries = list(self._client.deliveries(limit=rows))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = max(4, (options.height or console.height) - _FRAME_LINES - len(self._events))
        deliveries = self._deliveries[: room // 3]
        yield self._header()
        yield terminal.task_table(self._tasks[: room - len(deliveries)], utc_now(), console.width)
        yield _part("Deliveries", terminal.delivery_table(deliveries, console.width)) if deliveries else ""
        yield _part("Events", Group(*(_cut(terminal.event_line(event, "")) for event in tuple(self._events))))

    def _header(self) -> Text:
        running = sum(task.get("status") in {"queued", "running"} for task in self._tasks)
        title = Text.assemble((" Taskhook ", "bold reverse"), f"  {self._client.base_url}  ", self._connection)
        return _cut(title.append(f"  {running} in progress  ·  q ends\n", style="dim"))


def _cut(line: Text) -> Text:
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def _part(name: str, body: RenderableType) -> Group:
    return Group(Text(f"\n{name}", style="bold"), body)


def watch(client: Client, console: Console) -> None:
    """Until `q` or Ctrl-C."""
    board = Board(client)
    board.refresh(console.height)
    threading.Thread(target=board.listen, daemon=True).start()
    with suppress(KeyboardInterrupt), _single_keys(), Live(board, console=console, screen=True):
        while _read_key(_TICK_S) not in {"q", "Q"}:
            board.refresh_if_due(console.height)


@contextmanager
def _single_keys() -> Iterator[None]:
    """Keys arrive without Enter and are not echoed; only where there is such a terminal."""
    if os.name != "posix" or not sys.stdin.isatty():
        yield
        return
    import termios  # noqa: PLC0415 - exists on POSIX alone
    import tty  # noqa: PLC0415

    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _read_key(timeout_s: float) -> str:
    if os.name != "posix" or not sys.stdin.isatty():
        time.sleep(timeout_s)
        return ""
    ready, _, _ = select.select([sys.stdin], [], [], timeout_s)
    return os.read(sys.stdin.fileno(), 1).decode("latin-1") if ready else ""
