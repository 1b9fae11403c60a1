"""Settings with which the service starts, and that are a mistake all the same."""

from pathlib import Path

import pytest

from service.doctor.configuration import check_file, check_kept_keys, check_settings
from service.doctor.finding import Finding
from service.environment import SettingsError
from service.settings import load

GOOD = {
    "TASKHOOK_SECRET_KEYS": "b2f0c1d4e5968778695a4b3c2d1e0f99",
    "TASKHOOK_API_KEYS": "f9a8b7c6d5e4f30213243546576879ab",
    "TASKHOOK_PUBLIC_URL": "https://taskhook.shop.com",
    "TASKHOOK_FLUXAPI_AI_API_KEY": "a-key-of-the-provider",
}


def examined(**changes: str) -> dict[str, Finding]:
    settings = load(GOOD | {f"TASKHOOK_{name}": value for name, value in changes.items()}, None)
    return {finding.check: finding for finding in check_settings(settings)}


def test_good_settings_are_well() -> None:
    assert {finding.grade for finding in examined().values()} == {"ok"}


@pytest.mark.parametrize(
    ("changes", "check", "grade", "says"),
    [
        ({"API_KEYS": "0123456789abcdefghij"}, "API keys", "warn", "shorter than 32 characters"),
        ({"API_KEYS": ",".join([GOOD["TASKHOOK_API_KEYS"]] * 2)}, "API keys", "warn", "stands twice"),
        ({"PUBLIC_URL": ""}, "public URL", "warn", "every task is polled"),
        ({"PUBLIC_URL": "http://taskhook.shop.com"}, "public URL", "fail", "It is http"),
        ({"PUBLIC_URL": "https://10.0.0.7"}, "public URL", "warn", "no address that a provider reaches"),
        ({"PUBLIC_URL": "https://box.local"}, "public URL", "warn", "no address that a provider reaches"),
        ({"PUBLIC_URL": "https://shop.com/hooks"}, "public URL", "ok", "below a path"),
        ({"FLUXAPI_AI_API_KEY": ""}, "providers", "fail", "None is configured"),
        ({"FLUXAPI_AI_API_KEY": ""}, "public URL", "skipped", "No provider in use calls back"),
        ({"SANDBOX": "true"}, "sandbox", "warn", "no provider is called"),
        ({"ALLOW_PRIVATE_NETWORKS": "true"}, "private networks", "warn", "into your network"),
        ({"PUBLIC_ULR": "x"}, "settings", "warn", "TASKHOOK_PUBLIC_ULR"),
    ],
)
def test_a_mistake_is_told_with_what_to_do(changes: dict[str, str], check: str, grade: str, says: str) -> None:
    finding = examined(**changes)[check]
    assert finding.grade == grade
    assert says in finding.says
    assert bool(finding.advice) == (grade in {"warn", "fail"})


@pytest.mark.parametrize(
    ("changes", "check", "says"),
    [
        ({"SECRET_KEYS": "short"}, "secret keys", "Number 1 in TASKHOOK_SECRET_KEYS could be guessed"),
        ({"SECRET_KEYS": GOOD["TASKHOOK_SECRET_KEYS"] + ",abababababababababab"}, "secret keys", "Number 2"),
        ({"SECRET_KEYS": "changeme-please-0123"}, "secret keys", "looks like a placeholder"),
        ({"API_KEYS": GOOD["TASKHOOK_SECRET_KEYS"]}, "separate keys", "every caller could forge callbacks"),
    ],
)
def test_a_key_that_could_be_guessed_is_told_in_the_sandbox_and_stops_the_start_elsewhere(
    changes: dict[str, str], check: str, says: str
) -> None:
    finding = examined(**changes, SANDBOX="true")[check]
    assert (finding.grade, says in finding.says, bool(finding.advice)) == ("fail", True, True)
    with pytest.raises(SettingsError):
        examined(**changes)


def test_no_secret_is_in_any_finding() -> None:
    secrets = {name: f"secretive-{number}" for number, name in enumerate(["SECRET_KEYS", "API_KEYS"])}
    told = str(examined(**secrets, SANDBOX="true", FLUXAPI_AI_API_KEY="secretive-3"))
    assert "could be guessed" in told
    assert "secretive" not in told


def test_the_sandbox_needs_no_keys() -> None:
    found = {one.check: one.grade for one in check_settings(load({"TASKHOOK_SANDBOX": "true"}, None))}
    assert (found["secret keys"], found["public URL"]) == ("skipped", "skipped")


@pytest.mark.parametrize(("mode", "grade"), [(0o600, "ok"), (0o640, "warn"), (0o644, "fail"), (0o602, "fail")])
def test_secrets_in_a_file_are_its_owners_alone(tmp_path: Path, mode: int, grade: str) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("TASKHOOK_API_KEYS=x")
    dotenv.chmod(mode)
    finding = check_file(dotenv)
    assert finding.grade == grade
    assert (finding.advice == f"chmod 600 {dotenv}") == (grade != "ok")


def test_no_file_is_no_mistake(tmp_path: Path) -> None:
    assert check_file(tmp_path / ".env").grade == "skipped"


def test_keys_that_were_made_up_and_are_open_to_others_are_told(tmp_path: Path) -> None:
    file = tmp_path / "dev.json"
    assert list(check_kept_keys(file)) == []
    file.write_text("{}")
    for mode, wanted in ((0o600, []), (0o640, ["warn"]), (0o604, ["warn"])):
        file.chmod(mode)
        assert [finding.grade for finding in check_kept_keys(file)] == wanted
