"""How tasks, events and deliveries look on a terminal, and in the plain lines that scripts and log files get."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

Json = Mapping[str, Any]

_STYLES = {
    "queued": "yellow",
    "running": "cyan",
    "succeeded": "green",
    "failed": "red",
    "canceled": "magenta",
    "pending": "yellow",
    "sending": "cyan",
    "held": "yellow",
}
_SIGNS = {"succeeded": "✓", "failed": "✗", "canceled": "■", "running": "▶", "sending": "▶"}
NARROW = 60
_WHY_LABELS = {"why": "Why", "next": "Next", "you_can": "You can"}
_EVENT_SIGNS = {"succeeded": ("✓", "green"), "failed": ("✗", "red"), "canceled": ("■", "magenta")}


def clean(value: object) -> str:
    """Return one line without control characters: text from outside must not control the terminal."""
    text = value if isinstance(value, str) else str(value)
    return "".join(char if char.isprintable() else " " for char in text).strip()


def status_text(status: object) -> Text:
    word = clean(status or "unknown")
    return Text(f"{_SIGNS.get(word, '●')} {word}", style=_STYLES.get(word, "white"))


def format_time(text: object, pattern: str = "%Y-%m-%d %H:%M:%S") -> str:
    """An API time in the reader's own time zone."""
    found = parse_time(text)
    return found.astimezone().strftime(pattern) if found else ""


def parse_time(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None


def format_seconds(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def seconds_between(start: object, end: object) -> float | None:
    first, last = parse_time(start), parse_time(end)
    return max(0.0, (last - first).total_seconds()) if first and last else None


def format_took(task: Json, now: datetime | None = None) -> str:
    seconds = seconds_between(task.get("created_at"), task.get("finished_at") or now)
    return "" if seconds is None else format_seconds(seconds)


def outcome(task: Json) -> str:
    """'succeeded via callback in 2.3 s', and for a failed task its error."""
    via, took, error = (task.get("tracking") or {}).get("via"), format_took(task), task.get("error")
    words = [clean(task.get("status"))]
    words += [f"via {clean(via)}"] if via else []
    words += [f"{'in' if task.get('status') == 'succeeded' else 'after'} {took}"] if took else []
    sentence = " ".join(words)
    return f"{sentence}: {clean(error.get('code'))}: {clean(error.get('message') or '')}" if error else sentence


def image_urls(task: Json) -> list[str]:
    return [output["url"] for output in (task.get("result") or {}).get("outputs") or [] if output.get("url")]


def model_name(task: Json) -> str:
    return "/".join(clean(task[key]) for key in ("provider", "model") if task.get(key))


def describe_tracking(task: Json) -> str:
    """How the end of this task is being learned."""
    tracking = task.get("tracking") or {}
    polls, callbacks = tracking.get("polls") or 0, tracking.get("callbacks") or 0
    if task.get("status") == "queued":
        return "waiting to be submitted"
    said = [_count(callbacks, "callback")] if callbacks else []
    said += [_count(polls, "poll")] if polls else []
    return ", ".join(said) or "waiting for the provider"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def progress(task: Json, elapsed_s: float, away: bool, next_step: str, spinner: Spinner) -> RenderableType:
    """The live line under a waiting `submit`: what it is, for how long, how it is tracked; then what comes next."""
    status = clean(task.get("status"))
    line = Table.grid(padding=(0, 1))
    says = "the service is away, trying again" if away else describe_tracking(task)
    line.add_row(
        spinner,
        Text(status, style=_STYLES.get(status, "white")),
        Text(format_seconds(elapsed_s), style="bold"),
        Text(f"· {model_name(task)} · {says}", style="dim"),
    )
    return Group(line, Text(f"  {clean(next_step)}", style="dim", overflow="ellipsis", no_wrap=True))


def result_lines(task: Json, saved: Iterable[object]) -> Group:
    status = clean(task.get("status"))
    headline = Text(f"{_SIGNS.get(status, '●')} ", style=_STYLES.get(status, "white")) + Text(outcome(task))
    headline.append(f"  {clean(task.get('id'))}", style="dim")
    urls = [Text(f"  {clean(url)}", style="cyan", overflow="ignore") for url in image_urls(task)]
    files = [Text.assemble("  saved ", (clean(path), "bold"), overflow="fold") for path in saved]
    return Group(headline, *urls, *files)


def plain_result(task: Json, saved: Iterable[object]) -> str:
    return "\n".join(clean(line) for line in (outcome(task), *image_urls(task), *saved))


def plain_task(task: Json) -> str:
    """A task on one tab-separated line, for cut and awk."""
    cells = [task.get("id"), task.get("status"), model_name(task), task.get("created_at"), outcome(task)]
    return "\t".join(clean(cell or "") for cell in cells)


def task_table(tasks: Sequence[Json], now: datetime, width: int) -> Table:
    """As many columns as there is room for: a task's id, state and model are always whole."""
    cells: list[tuple[str, int, Callable[[Json], RenderableType]]] = [
        *_status_and_id("Task", width),
        ("Model", NARROW, model_name),
        ("Took", 90, lambda task: Text(format_took(task, now), justify="right")),
        ("Created", 104, lambda task: _short_time(task.get("created_at"), now)),
        ("Via", 136, lambda task: clean((task.get("tracking") or {}).get("via") or "")),
        ("Prompt or error", 116, lambda task: Text(_detail(task), style="red" if task.get("error") else "dim")),
    ]
    shown = [(name, draw) for name, needs, draw in cells if width >= needs]
    table = _table([name for name, _ in shown])
    for task in tasks:
        table.add_row(*(draw(task) for _, draw in shown))
    return table


def _status_and_id(noun: str, width: int) -> list[tuple[str, int, Callable[[Json], RenderableType]]]:
    """The id is whole even where there is room for nothing else but the sign of the state."""
    if width < NARROW:
        return [("", 0, lambda row: _sign_of(row.get("status"))), (noun, 0, lambda row: clean(row.get("id")))]
    return [(noun, 0, lambda row: clean(row.get("id"))), ("Status", 0, lambda row: status_text(row.get("status")))]


def _sign_of(status: object) -> Text:
    text = status_text(status)
    return text[0]


def _short_time(text: object, now: datetime) -> str:
    """The time alone if it was today."""
    found = parse_time(text)
    today = found is not None and found.astimezone().date() == now.astimezone().date()
    return format_time(text, "%H:%M:%S" if today else "%m-%d %H:%M")


def _detail(task: Json) -> str:
    error = task.get("error")
    return f"{clean(error.get('code'))}" if error else clean((task.get("input") or {}).get("prompt") or "")


def delivery_table(deliveries: Sequence[Json], width: int) -> Table:
    cells: list[tuple[str, int, Callable[[Json], RenderableType]]] = [
        *_status_and_id("Delivery", width),
        ("Event", 116, lambda delivery: clean(delivery.get("event_type") or delivery.get("event_id") or "")),
        ("Tries", 70, lambda delivery: Text(str(len(delivery.get("attempts") or [])), justify="right")),
        ("Last answer", NARROW, _last_answer),
        ("Next try", 100, lambda delivery: format_time(delivery.get("next_attempt_at"), "%H:%M:%S")),
        ("To", 104, lambda delivery: clean(delivery.get("url") or delivery.get("endpoint_id") or "")),
    ]
    shown = [(name, draw) for name, needs, draw in cells if width >= needs]
    table = _table([name for name, _ in shown])
    for delivery in deliveries:
        table.add_row(*(draw(delivery) for _, draw in shown))
    return table


def _last_answer(delivery: Json) -> str:
    attempts = delivery.get("attempts")
    return _answer(attempts[-1]) if attempts else ""


def _answer(attempt: Json) -> str:
    said = attempt.get("status_code") or attempt.get("error") or "no answer"
    duration = attempt.get("duration_ms")
    return clean(f"{said} ({duration} ms)" if duration is not None else said)


def task_page(task: Json, why: Json, timeline: Iterable[Json], deliveries: Sequence[Json], width: int) -> Group:
    """All about one task, from what it is to what happened to it."""
    parts: list[RenderableType] = [_title(task), Padding(_fields(task), (1, 0, 0, 2))]
    parts += _section("What it means", _why_grid(why))
    parts += _section("Timeline", _timeline(task, timeline))
    if deliveries:
        parts += _section("Deliveries", delivery_table(deliveries, width))
    return Group(*parts)


def _title(task: Json) -> Text:
    return Text.assemble((clean(task.get("id")), "bold"), "  ", status_text(task.get("status")))


def _section(name: str, body: RenderableType) -> list[RenderableType]:
    return [Text(f"\n{name}", style="bold"), Padding(body, (0, 0, 0, 2))]


def _fields(task: Json) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in _field_rows(task):
        if value:
            grid.add_row(name, Text(value))
    return grid


def _field_rows(task: Json) -> Iterable[tuple[str, str]]:
    given = {key: value for key, value in (task.get("input") or {}).items() if value not in (None, {}, [])}
    yield "outcome", outcome(task) if task.get("finished_at") else ""
    yield "model", model_name(task)
    yield "provider task", clean(task.get("provider_task_id") or "")
    yield "prompt", clean(given.pop("prompt", ""))
    yield "input", pairs(given)
    yield "metadata", pairs(task.get("metadata") or {})
    yield "tracking", describe_tracking(task)
    for name in ("created", "submitted", "finished" if task.get("finished_at") else "deadline"):
        yield name, format_time(task.get(f"{name}_at"))
    for url in image_urls(task):
        yield "image", clean(url)


def pairs(values: Json) -> str:
    return clean("  ".join(f"{key}={value}" for key, value in values.items() if value not in (None, "")))


def _why_grid(why: Json) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for key, value in why.items():
        if value and key not in {"status", "task_id", "id", "object"}:
            grid.add_row(_WHY_LABELS.get(key, key), Text(clean(value)))
    return grid


def _timeline(task: Json, entries: Iterable[Json]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(justify="right", style="dim", no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(style="dim", overflow="fold")
    for entry in entries:
        passed = seconds_between(task.get("created_at"), entry.get("at"))
        rest = {key: value for key, value in entry.items() if key not in {"at", "type", "detail", "task_id"}}
        detail = entry.get("detail")
        grid.add_row(
            format_time(entry.get("at"), "%H:%M:%S"),
            "" if passed is None else f"+{format_seconds(passed)}",
            clean(entry.get("type")),
            pairs({**rest, **detail} if isinstance(detail, dict) else rest),
        )
    return grid


def event_outcome(event: Json) -> str:
    """Return in a few words what an event says about its task or endpoint."""
    about = event.get("data") or {}
    if about.get("object") == "task" or "tracking" in about:
        return outcome(about)
    return clean(about.get("url") or about.get("status") or "")


def event_line(event: Json, answer: str) -> Text:
    """The longest parts come last, so that what is cut or wrapped is the least missed."""
    kind, about = clean(event.get("type")), event.get("data") or {}
    sign, style = _EVENT_SIGNS.get(kind.rpartition(".")[2], ("●", "cyan"))
    return Text.assemble(
        (format_time(event.get("timestamp"), "%H:%M:%S"), "dim"),
        (f"  {sign} {kind:<15}", style),
        f" {clean(about.get('id') or '')}",
        (f"  → {answer}" if answer else "", "bold"),
        (f"  {model_name(about)}  {event_outcome(event)}", "dim"),
    )


def plain_event(event: Json, answer: str) -> str:
    about = event.get("data") or {}
    cells = [event.get("timestamp"), event.get("type"), about.get("id"), model_name(about), event_outcome(event)]
    return "\t".join(clean(cell or "") for cell in [*cells, *([answer] if answer else [])])


def key_table(keys: Sequence[Json]) -> Table:
    table = _table(["Key", "Hint", "Scopes", "Last used", "State", "Name"])
    for key in keys:
        state = "revoked" if key.get("revoked_at") else "holds"
        scopes = clean(", ".join(key.get("scopes") or ()))
        used = format_time(key.get("last_used_at"), "%Y-%m-%d %H:%M") or "never"
        table.add_row(clean(key.get("id")), clean(key.get("hint")), scopes, used, state, clean(key.get("name")))
    return table


def plain_key(key: Json) -> str:
    cells = [key.get("id"), key.get("hint"), ",".join(key.get("scopes") or ()), key.get("last_used_at")]
    return "\t".join(clean(cell or "") for cell in [*cells, key.get("revoked_at"), key.get("name")])


def _table(names: Sequence[str]) -> Table:
    """The last column takes what is left and is cut first."""
    table = Table(box=box.SIMPLE_HEAD, expand=True, header_style="bold", show_edge=False, padding=(0, 1, 0, 0))
    for name in names:
        table.add_column(name, no_wrap=True, overflow="ellipsis", ratio=1 if name == names[-1] else None)
    return table
