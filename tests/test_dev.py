"""Keys that nobody set: made up once, kept, and found again by whoever reads the log."""

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service import dev
from service.dev import with_made_up_keys
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
