"""Keys that nobody set: made up once, kept, and found again by whoever reads the log."""

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service import dev
from service.dev import describe_start, with_made_up_keys
from service.settings import load

SANDBOX = {"TASKHOOK_SANDBOX": "true"}


def test_the_log_names_the_file_of_a_key_that_was_made_up_and_not_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # a restart uses the same
        with capture_logs() as lines:
            (key,) = with_made_up_keys(load(SANDBOX, None)).api_keys
        assert key in (tmp_path / "var/dev.json").read_text()
        (line,) = lines
        assert (line["event"], line["file"]) == ("settings.api_key_made_up", str(tmp_path / "var/dev.json"))
        assert key not in str(lines)


def test_the_log_names_no_file_for_a_key_that_is_given_or_could_not_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with capture_logs() as lines:
        assert with_made_up_keys(load(SANDBOX | {"TASKHOOK_API_KEYS": "k"}, None)).api_keys == ("k",)
    assert lines == []
    monkeypatch.setattr(dev, "DEV_FILE", Path("/dev/null/var/dev.json"))
    with capture_logs() as lines:
        with_made_up_keys(load(SANDBOX, None))
    assert [line["event"] for line in lines] == ["settings.not_kept"]


def test_the_folder_and_the_file_of_the_keys_are_their_owners_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = os.umask(0o022)
    try:
        with_made_up_keys(load(SANDBOX, None))
    finally:
        os.umask(before)
    assert [f"{Path(path).stat().st_mode & 0o777:o}" for path in ("var", "var/dev.json")] == ["700", "600"]


GIVEN = {"TASKHOOK_SECRET_KEYS": "9f3c1b7a5e2d8046", "TASKHOOK_API_KEYS": "tk_5e2d80469f3c1b7a"}
URL = "http://127.0.0.1:8000"


def test_a_start_says_where_it_listens_and_what_is_not_set() -> None:
    said = describe_start(URL, load(GIVEN, None))
    for line in (
        f"Listens at  {URL}",
        f"Dashboard   {URL}/",
        "Providers   none",
        "Not set     TASKHOOK_<PROVIDER>_API_KEY: no task can be created",
        "Not set     TASKHOOK_PUBLIC_URL: every task is polled, since no callback can arrive",
    ):
        assert f"  {line}\n" in said


def test_a_start_that_lacks_nothing_says_so_by_its_silence() -> None:
    given = {"TASKHOOK_PUBLIC_URL": "https://t.example", "TASKHOOK_ACEDATA_API_KEY": "k", "TASKHOOK_DASHBOARD": "no"}
    said = describe_start(URL, load(GIVEN | given, None))
    assert "Not set" not in said and "Dashboard" not in said and "Providers   acedata\n" in said
    assert "Providers   simulated" in describe_start(URL, load(GIVEN | SANDBOX, None))
