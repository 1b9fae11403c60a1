"""The commands as a user meets them: in a pipe, on a terminal, in a process of their own."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click.testing
import pytest
from standardwebhooks import Webhook

from service.cli import cli
from service.environment import SettingsError
from tests.support.factory import SECRET
from tests.support.stand_in import KEY, PNG, StandIn, closed_port, make_task
from tests.support.wait import PATIENCE_S

ROOT = Path(__file__).resolve().parents[1]
SUBMIT = ("submit", "fluxapi-ai/flux-kontext-pro")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory and no settings."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("TASKHOOK_")]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture(scope="module")
def running() -> Iterator[StandIn]:
    with StandIn() as service:
        yield service


@pytest.fixture
def service(running: StandIn, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    running.reset()
    monkeypatch.setenv("TASKHOOK_URL", running.url)
    monkeypatch.setenv("TASKHOOK_API_KEY", KEY)
    return running


def taskhook(*arguments: str) -> click.testing.Result:
    result = click.testing.CliRunner().invoke(cli, arguments, prog_name="taskhook")
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


class Terminal:
    """A command in a process of its own, on a terminal of 120 columns."""

    def __init__(self, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        environ = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "120", "LINES": "30", "TERM": "xterm-256color"}
        command = [sys.executable, "-m", "service", *arguments]
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environ)
        os.close(slave)
        self.shown = ""

    def until(self, text: str, timeout_s: float = PATIENCE_S) -> str:
        """Return the output without colours once it contains `text`."""
        end = time.monotonic() + timeout_s
        while text not in self.shown:
            assert time.monotonic() < end, f"no {text!r} in:\n{self.shown}"
            self._read()
        return self.shown

    def press(self, key: bytes) -> None:
        os.write(self._master, key)

    def end(self) -> int:
        """The exit code; what is still shown is read, since a full terminal would hold the process."""
        while self._read():
            pass
        code = self.process.wait(10)
        os.close(self._master)
        return code

    def _read(self) -> bool:
        if not select.select([self._master], [], [], 0.2)[0]:
            return self.process.poll() is None
        try:
            fresh = os.read(self._master, 65536).decode("utf-8", "replace")
        except OSError:
            return False
        self.shown += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", fresh)
        return True


def test_submit_prints_the_id_for_scripts(service: StandIn) -> None:
    result = taskhook(*SUBMIT, "a lighthouse")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "task_0001\n", "")


def test_submit_sends_all_that_was_asked_for(service: StandIn) -> None:
    given = [
        "--aspect-ratio",
        "16:9",
        "--size",
        "1x1",
        "--n",
        "2",
        "--image-url",
        "http://i",
        "--output-format",
        "png",
        "--no-translate",
    ]
    given += [
        "--option",
        "safetyTolerance=2",
        "--option",
        "watermark=me",
        "--option",
        "a=NaN",
        "--metadata",
        "order=12=3",
    ]
    given += ["--webhook-url", "https://h", "--timeout-s", "60", "--json"]
    assert json.loads(taskhook(*SUBMIT, "a lighthouse", *given).stdout)["id"] == "task_0001"
    assert json.loads(service.requests[0][3]) == {
        "model": "fluxapi-ai/flux-kontext-pro",
        "input": {
            "prompt": "a lighthouse",
            "aspect_ratio": "16:9",
            "size": "1x1",
            "n": 2,
            "image_url": "http://i",
            "output_format": "png",
            "translate": False,
            "options": {"safetyTolerance": 2, "watermark": "me", "a": "NaN"},
        },
        "metadata": {"order": "12=3"},
        "webhook_url": "https://h",
        "timeout_s": 60.0,
    }


def test_a_plain_submit_sends_nothing_that_was_not_given(service: StandIn) -> None:
    taskhook("submit", "m", "p")
    assert json.loads(service.requests[0][3]) == {"model": "m", "input": {"prompt": "p"}}


def test_waiting_tells_each_state_and_the_outcome(service: StandIn) -> None:
    result = taskhook(*SUBMIT, "a lighthouse", "--wait")
    assert result.exit_code == 0
    assert result.stderr.splitlines() == ["task_0001 queued", "task_0001 running"]
    assert result.stdout.splitlines() == ["succeeded via callback in 2.3 s", f"{service.url}/images/1.x"]


def test_images_are_saved_whole_under_the_name_of_their_task(service: StandIn, elsewhere: Path) -> None:
    service.image_count = 2
    result = taskhook(*SUBMIT, "a lighthouse", "--save", "a/b", "--json")
    assert result.exit_code == 0
    task = json.loads(result.stdout)
    assert task["saved"] == ["a/b/task_0001-1.png", "a/b/task_0001-2.png"]
    assert [path.name for path in sorted((elsewhere / "a/b").iterdir())] == ["task_0001-1.png", "task_0001-2.png"]
    assert (elsewhere / "a/b/task_0001-2.png").read_bytes() == PNG
    assert all("authorization" not in headers for _, path, headers, _ in service.requests if "/images/" in path)


@pytest.mark.parametrize(
    ("content_type", "body", "name"),
    [
        ("image/jpeg; q=1", b"x", "task_0001-1.jpg"),
        ("image/svg+xml", b"x", "task_0001-1.svg"),
        ("", PNG, "task_0001-1.png"),
        ("application/octet-stream", b"\xff\xd8\xff\xe0", "task_0001-1.jpg"),
        ("application/octet-stream", b"RIFF\0\0\0\0WEBPVP8 ", "task_0001-1.webp"),
        ("binary/octet-stream", b"?", "task_0001-1.bin"),
    ],
)
def test_an_image_is_named_by_its_type(
    service: StandIn, elsewhere: Path, content_type: str, body: bytes, name: str
) -> None:
    service.image = (200, content_type, body)
    assert taskhook(*SUBMIT, "a lighthouse", "--save", ".").exit_code == 0
    assert [path.name for path in elsewhere.iterdir()] == [name]


@pytest.mark.parametrize(
    ("image", "says"),
    [
        ((200, "text/html", b"<h1>"), "this is text/html, no image"),
        ((403, "image/png", PNG), "the answer is 403 Forbidden"),
        ((200, "image/png", PNG * 2), "larger than"),
    ],
)
def test_what_is_no_image_is_not_saved(
    service: StandIn, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, image: tuple[int, str, bytes], says: str
) -> None:
    monkeypatch.setattr("service.cli.local.IMAGE_MAX", len(PNG))
    service.image = image
    result = taskhook(*SUBMIT, "a lighthouse", "--save", "out")
    assert result.exit_code == 1
    assert says in result.stderr
    assert result.stdout.startswith("succeeded via callback")
    assert not list((elsewhere / "out").iterdir())


def test_a_folder_that_can_not_be_made_costs_no_credits(service: StandIn, elsewhere: Path) -> None:
    (elsewhere / "file").write_text("")
    assert taskhook(*SUBMIT, "a lighthouse", "--save", "file/out").exit_code == 2
    assert not service.requests


def test_a_failed_task_is_exit_code_1_and_its_text_can_not_steer_the_terminal(service: StandIn) -> None:
    result = taskhook(*SUBMIT, "fail", "--wait")
    assert result.exit_code == 1
    assert result.stdout == "failed via callback after 2.3 s: content_policy: not  [31mthis\n"


def test_a_refused_request_is_exit_code_2_and_names_the_fields(service: StandIn) -> None:
    result = taskhook(*SUBMIT, "a lighthouse", "--n", "9")
    assert result.exit_code == 2
    assert result.stderr == "Error: the request can't work\n  input.n: at most 4\n"


def test_a_time_that_is_over_is_exit_code_4(service: StandIn) -> None:
    result = taskhook(*SUBMIT, "stuck", "--wait-s", "0.1")
    assert result.exit_code == 4
    assert "the task goes on: taskhook show task_0001" in result.stderr


def test_nobody_there_is_exit_code_3_and_says_what_to_do() -> None:
    with closed_port() as url:
        result = taskhook("tasks", "--url", url)
    assert result.exit_code == 3
    advice = "Start one with `make run`, or give --url."
    assert result.stderr == f"Error: No Taskhook answers at {url} (Connection refused). {advice}\n"


def test_a_wrong_key_says_what_to_do(service: StandIn) -> None:
    result = taskhook("tasks", "--api-key", "wrong")
    assert result.exit_code == 2
    assert "Give --api-key, or set TASKHOOK_API_KEY" in result.stderr


def test_a_key_on_standard_input_is_in_no_list_of_processes(service: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TASKHOOK_API_KEY")
    given = click.testing.CliRunner().invoke(cli, ("tasks", "--api-key", "-"), prog_name="taskhook", input=f"{KEY}\n")
    assert (given.exit_code, given.stderr) == (0, "")
    assert service.requests[0][2]["authorization"] == f"Bearer {KEY}"


def test_a_terminal_is_asked_for_a_key_and_warned_of_one_that_all_can_see(service: StandIn) -> None:
    asked = Terminal("tasks", "--api-key", "-")
    asked.until("--api-key:")
    asked.press(f"{KEY}\n".encode())
    assert asked.end() == 0
    assert KEY not in asked.shown
    warned = Terminal("tasks", "--api-key", KEY)
    warned.until("`--api-key -` asks for it")
    assert warned.end() == 0
    assert KEY not in warned.shown


def test_something_that_is_no_taskhook_is_told(service: StandIn) -> None:
    result = taskhook("tasks", "--url", f"{service.url}/other?")
    assert result.exit_code == 3
    assert "Give the address of a Taskhook" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("tasks", "--url", "ftp://x"),
        ("tasks", "--url", "http://"),
        ("tasks", "--api-key", "ü"),
        ("submit", "m", "p", "--metadata", "novalue"),
        ("submit", "m", "p", "--option", "=1"),
        ("submit", "m"),
        ("tasks", "--status", "done"),
        ("listen", "--forward-to", "localhost"),
        ("listen", "--forward-to", "http://127.0.0.1/", "--secret", "whsec_?"),
        ("listen", "--forward-to", "http://127.0.0.1/", "--secret", "whsec_dG9vIHNob3J0"),
    ],
)
def test_wrong_usage_is_exit_code_2(service: StandIn, arguments: tuple[str, ...]) -> None:
    result = taskhook(*arguments)
    assert result.exit_code == 2
    assert "Error: " in result.stderr
    assert not service.requests


def test_an_unknown_command_is_met_with_a_suggestion() -> None:
    assert "Did you mean 'submit'?" in taskhook("submti").stderr


def test_every_command_is_in_the_help() -> None:
    shown = taskhook("--help").stdout
    assert set(cli.commands) <= set(shown.split())
    assert "130  interrupted" in taskhook("submit", "--help").stdout


@pytest.fixture
def folder(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which nothing but its own files says where the service is."""
    for name in ("TASKHOOK_URL", "TASKHOOK_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    (elsewhere / "var").mkdir()
    return elsewhere


def write_dev_file(folder: Path, url: str, key: str = KEY) -> None:
    (folder / "var/dev.json").write_text(json.dumps({"url": url, "api_key": key}))


def test_the_service_that_dev_started_here_is_found(service: StandIn, folder: Path) -> None:
    write_dev_file(folder, service.url)
    assert taskhook("submit", "m", "p").stdout == "task_0001\n"
    (folder / ".env").write_text("TASKHOOK_API_KEYS=other,second\n")
    assert taskhook("submit", "m", "p").stdout == "task_0002\n"


def test_settings_in_the_env_file_are_known(service: StandIn, folder: Path) -> None:
    port = service.url.rpartition(":")[2]
    (folder / ".env").write_text(f"TASKHOOK_API_KEYS={KEY},second\nTASKHOOK_PORT={port}\n")
    assert taskhook("submit", "m", "p").stdout == "task_0001\n"


@pytest.mark.parametrize("how", ["environment", "option"])
@pytest.mark.parametrize("file", [".env", "var/dev.json"])
def test_a_key_from_elsewhere_never_goes_to_a_url_of_the_folder(
    service: StandIn, folder: Path, monkeypatch: pytest.MonkeyPatch, how: str, file: str
) -> None:
    if file == ".env":
        (folder / file).write_text(f"TASKHOOK_URL={service.url}\n")
    else:
        write_dev_file(folder, service.url, key="")
    if how == "environment":
        monkeypatch.setenv("TASKHOOK_API_KEY", KEY)
    result = taskhook("tasks", *(["--api-key", KEY] if how == "option" else []))
    assert (result.exit_code, service.requests) == (2, [])
    assert f"Give --url {service.url} as well." in result.stderr
    assert taskhook("tasks", "--url", service.url, "--api-key", KEY).exit_code == 0


@pytest.mark.parametrize("name", ["TASKHOOK_API_KEYS", "TASKHOOK_API_KEY"])
def test_a_key_of_the_folder_never_goes_to_a_url_from_elsewhere(
    service: StandIn, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_dev_file(folder, "http://127.0.0.1:1")
    (folder / ".env").write_text(f"{name}={KEY}\n")
    monkeypatch.setenv("TASKHOOK_URL", service.url)
    assert taskhook("tasks").exit_code == 2
    assert taskhook("tasks", "--url", service.url).exit_code == 2
    assert ["authorization" in headers for _, _, headers, *_ in service.requests] == [False, False]


def test_the_keys_of_the_services_own_settings_go_to_no_url_of_the_folder(
    service: StandIn, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKHOOK_API_KEYS", KEY)
    (folder / ".env").write_text(f"TASKHOOK_URL={service.url}\n")
    assert taskhook("tasks").exit_code == 2
    assert "authorization" not in service.requests[0][2]


def test_a_line_of_the_env_file_that_cannot_be_read_is_named(folder: Path) -> None:
    (folder / ".env").write_text("TASKHOOK_API_KEY='abc\n")
    result = taskhook("tasks")
    assert result.exit_code == 2
    assert ".env, line 1" in result.stderr


def test_tasks_are_listed_one_a_line_with_tabs(service: StandIn) -> None:
    for number, status in enumerate(["queued", "failed", "queued"]):
        task = make_task(f"task_{number}", {"model": "acedata/m", "input": {"prompt": "p"}})
        service.tasks[task["id"]] = task | {"status": status}
    lines = taskhook("tasks", "--status", "queued", "--metadata", "order=1").stdout.splitlines()
    assert lines[0].split("\t") == ["task_2", "queued", "acedata/m", "2026-01-01T00:00:00.000Z", "queued"]
    assert [line[:6] for line in lines] == ["task_2", "task_0"]
    assert service.paths("GET") == ["/v1/tasks?status=queued&metadata.order=1&limit=20"]
    assert [task["id"] for task in json.loads(taskhook("tasks", "--json", "--limit", "1").stdout)] == ["task_2"]


def test_show_has_all_about_a_task(service: StandIn) -> None:
    taskhook(*SUBMIT, "a lighthouse", "--wait")
    shown = taskhook("show", "task_0001").stdout
    for part in ("✓ succeeded", "succeeded via callback in 2.3 s", "Its callback is awaited.", "Cancel it."):
        assert part in shown
    assert re.search(r"\+1\.0 s +task\.submitted +status_code=202", shown)
    assert re.search(r"dlv_1 +● pending +1 +500 \(12 ms\)", shown)
    assert set(json.loads(taskhook("show", "task_0001", "--json").stdout)) == {"task", "why", "timeline", "deliveries"}
    assert taskhook("show", "task_9").stderr == "Error: there is no such task\n"
    assert "/v1/tasks/task_0001/timeline" in service.paths("GET"), "parameters that are not documented are refused"


def test_listen_survives_a_cut_and_says_so(service: StandIn) -> None:
    add_events(service)
    service.stream_cuts, service.streams_left = [1, 2], 2
    result = taskhook("listen", "--json")
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == ["evt_0001", "evt_0002", "evt_0003"]
    assert "Listening for events. Ctrl-C ends." in result.stderr
    assert "Connection lost (the connection broke). Trying again in 0.0 s." in result.stderr
    assert "Connected again, resuming after evt_0001: nothing is missed." in result.stderr
    assert result.stderr.endswith("Error: the key was revoked\n")


def test_listen_begins_where_it_is_told_and_shows_what_it_is_told(service: StandIn) -> None:
    add_events(service)
    service.stream_cuts, service.streams_left = [2], 1
    lines = taskhook("listen", "--since", "evt_0001", "--types", "endpoint.*,task.failed").stdout.splitlines()
    assert [line.split("\t")[1] for line in lines] == ["task.failed", "endpoint.failing"]
    assert lines[0].split("\t")[2:] == ["task_0001", "fluxapi-ai/m", "succeeded via callback in 2.3 s"]


def test_listen_posts_events_that_a_subscriber_can_verify(service: StandIn) -> None:
    add_events(service)
    service.stream_cuts, service.streams_left, service.forwarded_status = [1], 1, 500
    result = taskhook("listen", "--forward-to", f"{service.url}/received")
    secret = re.search(r"Signing secret for \S+: (whsec_\S+)", result.stderr)
    assert secret
    assert re.search(r"\t500 \(\d+ ms\)$", result.stdout.rstrip("\n"))
    _, _, headers, body = next(request for request in service.requests if request[1] == "/received")
    Webhook(secret[1]).verify(body.decode(), headers)
    assert json.loads(body) == service.events[0]


def test_listen_tells_when_nobody_takes_the_event(service: StandIn) -> None:
    add_events(service)
    service.stream_cuts, service.streams_left = [1], 1
    with closed_port() as url:
        result = taskhook("listen", "--forward-to", url, "--secret", SECRET, "--retries", "0", "--json")
    assert json.loads(result.stdout)["forwarded"]["error"] == "Connection refused"


def test_watch_prints_lines_in_a_pipe(service: StandIn) -> None:
    add_events(service)
    service.stream_cuts, service.streams_left = [3], 1
    assert len(taskhook("watch").stdout.splitlines()) == 3


def test_a_terminal_gets_progress_and_the_outcome(service: StandIn, elsewhere: Path) -> None:
    terminal = Terminal(*SUBMIT, "a lighthouse", "--save", "out")
    terminal.until("✓ succeeded via callback in 2.3 s")
    assert terminal.end() == 0
    assert "saved out/task_0001-1.png" in terminal.shown


def test_an_interrupted_wait_is_exit_code_130_and_says_that_the_task_goes_on(service: StandIn) -> None:
    terminal = Terminal(*SUBMIT, "stuck", "--wait")
    terminal.until("Its callback is awaited.")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130
    assert "the task goes on: taskhook show task_0001" in " ".join(terminal.shown.split())


def test_lists_and_events_are_drawn_on_a_terminal(service: StandIn) -> None:
    add_events(service)
    listing = Terminal("tasks")
    listing.until("✓ succeeded")
    assert listing.end() == 0
    listening = Terminal("listen")
    listening.until("endpoint.failing")
    listening.process.send_signal(signal.SIGINT)
    assert listening.end() == 130
    assert re.search("Go on from here with --since evt_000[23]", listening.shown), "at most the last one comes again"


def test_watch_draws_what_happens_until_q(service: StandIn) -> None:
    terminal = Terminal("watch")
    terminal.until("● live")
    add_events(service)
    terminal.until("task_0001")
    terminal.until("task.failed")
    terminal.until("500 (12 ms)")
    terminal.press(b"q")
    assert terminal.end() == 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str) -> None:
    assert "_TASKHOOK_COMPLETE" in taskhook("completion", shell).stdout


class Service:
    """Stands for service.settings and service.app: records what the commands ask of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[Any] = []
        self.applied = ["0001_initial"]
        self.wrong = ""
        settings = types.SimpleNamespace(load=self.load)
        app = types.SimpleNamespace(run=self.run, migrate=lambda _: self.applied)
        monkeypatch.setitem(sys.modules, "service.settings", settings)
        monkeypatch.setitem(sys.modules, "service.app", app)

    def load(self, environ: dict[str, str], *, dev: bool = False) -> Any:
        if self.wrong:
            raise SettingsError(self.wrong)
        self.asked.append((dev, environ.get("TASKHOOK_HOST"), environ.get("TASKHOOK_PORT")))
        return types.SimpleNamespace(public_items=lambda: [("TASKHOOK_HOST", "127.0.0.1"), ("TASKHOOK_PORT", "8000")])

    def run(self, _: Any, **parts: bool) -> int:
        self.asked.append(parts)
        return 7


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Service:
    return Service(monkeypatch)


@pytest.mark.parametrize(
    ("arguments", "settings", "parts"),
    [
        (["dev"], (True, None, None), {"web": True, "worker": True, "dev": True}),
        (["serve", "--port", "9"], (False, None, "9"), {"web": True, "worker": True, "dev": False}),
        (["web", "--host", "::"], (False, "::", None), {"web": True, "worker": False, "dev": False}),
        (["worker"], (False, None, None), {"web": False, "worker": True, "dev": False}),
    ],
)
def test_the_service_starts_with_the_parts_a_command_names(
    started: Service, arguments: list[str], settings: Any, parts: Any
) -> None:
    assert taskhook(*arguments).exit_code == 7
    assert started.asked == [settings, parts]


def test_a_wrong_setting_is_one_line(started: Service) -> None:
    started.wrong = "TASKHOOK_PORT: 'x' is no number"
    result = taskhook("serve")
    assert (result.exit_code, result.stderr) == (2, "Error: TASKHOOK_PORT: 'x' is no number\n")


def test_config_prints_the_settings(started: Service) -> None:
    assert taskhook("config").stdout == "TASKHOOK_HOST  127.0.0.1\nTASKHOOK_PORT  8000\n"
    assert json.loads(taskhook("config", "--json").stdout) == {"TASKHOOK_HOST": "127.0.0.1", "TASKHOOK_PORT": "8000"}


def test_migrate_says_what_it_did(started: Service) -> None:
    assert taskhook("migrate").stdout == "applied 0001_initial\n"
    started.applied = []
    assert taskhook("migrate").stdout == "The database is up to date.\n"


def add_events(service: StandIn) -> None:
    """A task that has succeeded, a failure, and a word about an endpoint."""
    task = make_task("task_0001", {"model": "m", "input": {"prompt": "p"}})
    tracking = {"via": "callback", "polls": 0, "callbacks": 1}
    task |= {"status": "succeeded", "finished_at": "2026-01-01T00:00:02.300Z", "tracking": tracking}
    service.tasks[task["id"]] = task
    service.add_event("task.succeeded", task)
    service.add_event("task.failed", task)
    service.add_event("endpoint.failing", {"id": "ep_1", "object": "endpoint", "url": "https://h"})
