"""The environment becomes settings, or one clear line."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from service.environment import SettingsError
from service.providers.acedata import Acedata
from service.providers.base import Secret
from service.providers.registry import register
from service.settings import SANDBOX_LIMITS, load

K1, K2, A1 = "9f3c1b7a5e2d8046", "1b7a5e2d80469f3c", "tk_5e2d80469f3c1b7a"
NEEDED = {"TASKHOOK_SECRET_KEYS": f"{K2},{K1}", "TASKHOOK_API_KEYS": A1}


def test_defaults_are_those_documented() -> None:
    settings = load(NEEDED, None)
    assert (settings.database_url, settings.host, settings.port) == ("sqlite:///var/taskhook.db", "127.0.0.1", 8000)
    assert (settings.poll_first_s, settings.poll_max_s, settings.callback_grace_s) == (2, 15, 60)
    assert settings.retry_schedule == (5, 20, 60, 180, 300, 900, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
    assert settings.retention_days == 30 and not settings.sandbox and not settings.allow_private_networks
    assert settings.secret_keys == (K2, K1)


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(f"TASKHOOK_SECRET_KEYS={K1}\nTASKHOOK_API_KEYS='{A1} in quotes'\nTASKHOOK_PORT=1\n")
    settings = load({"TASKHOOK_PORT": "2"}, file)
    assert (settings.secret_keys, settings.api_keys, settings.port) == ((K1,), (f"{A1} in quotes",), 2)


def test_the_port_of_a_platform_is_taken_when_none_of_ours_is_set() -> None:
    assert load({**NEEDED, "PORT": "5000"}, None).port == 5000
    assert load({**NEEDED, "PORT": "5000", "TASKHOOK_PORT": "6000"}, None).port == 6000


def test_the_port_of_a_platform_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("TASKHOOK_PORT=7001\n")
    assert load({**NEEDED, "PORT": "7003"}, file).port == 7003


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="UTF-8"):
        load(NEEDED, file)


def test_the_sandbox_needs_no_keys_and_may_call_private_networks() -> None:
    settings = load({"TASKHOOK_SANDBOX": "true"}, None)
    assert settings.allow_private_networks and settings.accounts["acedata"]["default"].limits == SANDBOX_LIMITS
    assert not load({"TASKHOOK_SANDBOX": "1", "TASKHOOK_ALLOW_PRIVATE_NETWORKS": "no"}, None).allow_private_networks


def test_account_limits_can_be_set() -> None:
    given = {**NEEDED, "TASKHOOK_ACEDATA_SUBMITS_PER_S": "0.5", "TASKHOOK_ACEDATA_MAX_IN_FLIGHT": "3"}
    limits = load(given, None).accounts["acedata"]["default"].limits
    assert (limits.submits, limits.window_s, limits.max_in_flight) == (1, 2, 3)
    given = {**NEEDED, "TASKHOOK_FLUXAPI_AI_SUBMITS_PER_S": "5"}
    limits = load(given, None).accounts["fluxapi-ai"]["default"].limits
    assert (limits.submits, limits.window_s) == (5, 1)


def test_a_named_account_takes_nothing_from_the_default_one(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("k-night\n")
    given = {
        "TASKHOOK_FLUXAPI_AI_API_KEY": "k-default",
        "TASKHOOK_FLUXAPI_AI_BASE_URL": "https://gateway.example",
        "TASKHOOK_FLUXAPI_AI__BATCH_API_KEY": "k-batch",
        "TASKHOOK_FLUXAPI_AI__BATCH_WEBHOOK_SECRET": "whs",
        "TASKHOOK_FLUXAPI_AI__BATCH_MAX_IN_FLIGHT": "7",
        "TASKHOOK_FLUXAPI_AI__TEAM_2_NIGHT_API_KEY_FILE": str(file),
    }
    settings = load({**NEEDED, **given}, None)
    found = settings.usable_accounts("fluxapi-ai")
    assert [account.api_key for account in found.values()] == ["k-default", "k-batch", "k-night"]
    assert list(found) == ["default", "batch", "team-2-night"] and settings.unknown == ()
    batch = found["batch"]
    assert (batch.key, batch.base_url) == ("fluxapi-ai:batch", "https://api.fluxapi.ai")
    assert (batch.webhook_secret, batch.limits.max_in_flight) == ("whs", 7)
    assert found["default"].webhook_secret is None and settings.usable_accounts("acedata") == {}
    shown = dict(settings.public_items())
    assert shown["TASKHOOK_FLUXAPI_AI__BATCH_API_KEY"] == "(hidden)"
    assert shown["TASKHOOK_FLUXAPI_AI__TEAM_2_NIGHT_MAX_IN_FLIGHT"] == "100"


def test_the_former_name_of_a_webhook_secret_is_accepted() -> None:
    given = {**NEEDED, "TASKHOOK_FLUXAPI_AI_API_KEY": "k", "TASKHOOK_FLUXAPI_AI_HMAC_KEY": "whs"}
    assert load(given, None).accounts["fluxapi-ai"]["default"].webhook_secret == "whs"


def test_a_provider_whose_setting_would_be_another_stops_the_start() -> None:
    class Clashing(Acedata):
        id = "secret"
        capabilities = replace(Acedata.capabilities, secrets=(Secret(name="keys"),))

    with pytest.raises(SettingsError, match="TASKHOOK_SECRET_KEYS would have two meanings"):
        load(NEEDED, None, build=lambda: register([Clashing()]))


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({}, "TASKHOOK_SECRET_KEYS is missing"),
        ({"TASKHOOK_SECRET_KEYS": K1}, "TASKHOOK_API_KEYS is missing"),
        ({**NEEDED, "TASKHOOK_PORT": "x"}, "TASKHOOK_PORT must be a port"),
        ({**NEEDED, "TASKHOOK_SANDBOX": "maybe"}, "TASKHOOK_SANDBOX must be true or false"),
        ({**NEEDED, "TASKHOOK_DATABASE_URL": "mysql://x"}, "TASKHOOK_DATABASE_URL must be"),
        ({**NEEDED, "TASKHOOK_PUBLIC_URL": "ftp://x"}, "TASKHOOK_PUBLIC_URL must be"),
        ({**NEEDED, "TASKHOOK_PUBLIC_URL": "http://x:99999"}, "TASKHOOK_PUBLIC_URL must have a port"),
        ({**NEEDED, "TASKHOOK_ACEDATA_BASE_URL": "https://u:p@x"}, "TASKHOOK_ACEDATA_BASE_URL must not hold a user"),
        ({**NEEDED, "TASKHOOK_RETRY_SCHEDULE": "5,x"}, "TASKHOOK_RETRY_SCHEDULE must be seconds"),
        ({**NEEDED, "TASKHOOK_RETRY_SCHEDULE": "-5"}, "TASKHOOK_RETRY_SCHEDULE must be seconds"),
        ({**NEEDED, "TASKHOOK_SIGNING_SECRET": "x"}, "TASKHOOK_SIGNING_SECRET must start with whsec_"),
        ({**NEEDED, "TASKHOOK_LOG_LEVEL": "loud"}, "TASKHOOK_LOG_LEVEL must be one of"),
        (
            {**NEEDED, "TASKHOOK_POLL_FIRST_S": "0"},
            "POLL_FIRST_S must be a number from 0.01 to 86,400, not '0'",
        ),
        (
            {**NEEDED, "TASKHOOK_POLL_FIRST_S": "0.005"},
            "POLL_FIRST_S must be a number from 0.01 to 86,400, not",
        ),
        (
            {**NEEDED, "TASKHOOK_RETENTION_DAYS": "0.00005"},
            "must be a number from 0.0001 to 36,500, not",
        ),
        (
            {**NEEDED, "TASKHOOK_RETENTION_DAYS": "1000000"},
            "must be a number from 0.0001 to 36,500",
        ),
        ({**NEEDED, "TASKHOOK_CALLBACK_GRACE_S": "1e15"}, "TASKHOOK_CALLBACK_GRACE_S must be a number from 0.01 to"),
        ({**NEEDED, "TASKHOOK_RETRY_SCHEDULE": "5,1e300"}, "TASKHOOK_RETRY_SCHEDULE must be seconds, comma-separated"),
        (
            {**NEEDED, "TASKHOOK_ACEDATA_MAX_IN_FLIGHT": "9" * 23},
            "MAX_IN_FLIGHT must be a whole number from 1 to",
        ),
        ({**NEEDED, "TASKHOOK_PORT": "9" * 5_000}, "TASKHOOK_PORT must be a port from 0 to 65535, not"),
        ({**NEEDED, "TASKHOOK_ACEDATA_SUBMITS_PER_S": "0"}, "TASKHOOK_ACEDATA_SUBMITS_PER_S must be a number from"),
        ({**NEEDED, "TASKHOOK_ACEDATA_MAX_IN_FLIGHT": "0"}, "TASKHOOK_ACEDATA_MAX_IN_FLIGHT must be a whole number"),
        ({**NEEDED, "TASKHOOK_ACEDATA_API_KEY": "a\nb"}, "TASKHOOK_ACEDATA_API_KEY must be printable"),
        (
            {**NEEDED, "TASKHOOK_ACEDATA__BATCH_MAX_IN_FLIGHT": "2"},
            "TASKHOOK_ACEDATA__BATCH_API_KEY must be set, or the account batch of acedata can't be used",
        ),
        (
            {**NEEDED, "TASKHOOK_ACEDATA__DEFAULT_API_KEY": "k"},
            "DEFAULT_API_KEY names the default account: leave",
        ),
        ({**NEEDED, "TASKHOOK_ACEDATA__2ND_API_KEY": "k"}, "TASKHOOK_ACEDATA__2ND_API_KEY must name an account of"),
        ({**NEEDED, "TASKHOOK_ACEDATA__A__B_API_KEY": "k"}, "TASKHOOK_ACEDATA__A__B_API_KEY must name an account of"),
        (
            {**NEEDED, "TASKHOOK_FLUXAPI_AI_HMAC_KEY": "a", "TASKHOOK_FLUXAPI_AI_WEBHOOK_SECRET": "b"},
            "TASKHOOK_FLUXAPI_AI_WEBHOOK_SECRET and TASKHOOK_FLUXAPI_AI_HMAC_KEY are both set: keep the first",
        ),
    ],
)
def test_a_wrong_setting_is_named(given: dict[str, str], line: str) -> None:
    with pytest.raises(SettingsError, match=line):
        load(given, None)


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("sqlite:///x.db?mode=rwc", "must be sqlite:///PATH, a plain path"),
        ("sqlite:///x.db#1", "must be sqlite:///PATH, a plain path"),
        ("sqlite:///file:x.db", "must be sqlite:///PATH, a plain path"),
        ("sqlite:///file:x.db?mode=memory", "must name a file .*: a database in memory"),
        ("sqlite:///:memory:", "must name a file .*: a database in memory"),
        (":memory:", "must name a file .*: a database in memory"),
        ("sqlite://", "must name a file .*: a database in memory"),
        ("sqlite:///", "must name a file .*: a database in memory"),
        ("sqlite:x.db", "must be sqlite:///PATH with three slashes"),
        ("sqlite://x.db", "must be sqlite:///PATH with three slashes"),
        ("sqlite:///var/", "must name a file"),
        ("sqlite:////", "must name a file"),
        ("sqlite:///a\rb.db", "must name a file"),
        ("sqlite:///~/x.db", "must have the whole path"),
        ("sqlite+aiosqlite:///x.db", "must begin with sqlite://"),
        ("postgresql+psycopg2://h/x", "must begin with postgresql://"),
        ("file:x.db", "must be sqlite:///PATH or postgresql://"),
        ("var/x.db", "must be sqlite:///PATH or postgresql://"),
    ],
)
def test_a_database_url_that_other_programs_take_is_refused_with_what_to_write(url: str, line: str) -> None:
    with pytest.raises(SettingsError, match=f"TASKHOOK_DATABASE_URL {line}"):
        load({**NEEDED, "TASKHOOK_DATABASE_URL": url}, None)


@pytest.mark.parametrize("path", ["x.db", "var/x y.db", "/data/x.db", "../x%20y.db"])
def test_a_path_of_a_database_is_taken_as_it_is(path: str) -> None:
    assert load({**NEEDED, "TASKHOOK_DATABASE_URL": f"sqlite:///{path}"}, None).database_url == f"sqlite:///{path}"


SETTINGS = [name for name, _ in load(NEEDED, None).public_items()]


@pytest.mark.parametrize("name", SETTINGS)
def test_a_value_that_is_wrapped_in_quotes_is_refused_whatever_the_setting(name: str, tmp_path: Path) -> None:
    line = f"{name} is wrapped in quotes"
    for value in ('"x"', "'x'", '""', "“x”", '"x"\r', "' x'"):
        with pytest.raises(SettingsError, match=line):
            load({**NEEDED, name: value}, None)
    (tmp_path / "value").write_text('"x"\n')
    with pytest.raises(SettingsError, match=line):
        load({key: value for key, value in NEEDED.items() if key != name} | {f"{name}_FILE": f"{tmp_path}/value"}, None)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"TASKHOOK_API_KEYS": f"{A1},'{A1}x'"}, "TASKHOOK_API_KEYS is wrapped in quotes"),
        ({"TASKHOOK_API_KEYS": f"{A1}\n{A1}x"}, "TASKHOOK_API_KEYS must be on one line"),
        ({"TASKHOOK_HOST": "a\nb"}, "TASKHOOK_HOST must be one line"),
        ({"OTEL_SERVICE_NAME": '"shop"'}, "OTEL_SERVICE_NAME is wrapped in quotes"),
        ({"TASKHOOK_PUBLIC_URL": "http://a\udce4"}, "TASKHOOK_PUBLIC_URL has bytes that are not UTF-8"),
        ({"PORT": '"80"'}, "PORT is wrapped in quotes"),
        ({"export TASKHOOK_PORT": "80"}, "TASKHOOK_PORT is set under the name 'export TASKHOOK_PORT'"),
        ({"TASKHOOK_PORT ": "80"}, "TASKHOOK_PORT is set under the name 'TASKHOOK_PORT '"),
    ],
)
def test_what_files_for_other_programs_leave_in_the_environment_is_refused(given: dict[str, str], line: str) -> None:
    with pytest.raises(SettingsError, match=line):
        load(NEEDED | given, None)


@pytest.mark.parametrize("content", ["TASKHOOK_PORT=81", 'TASKHOOK_PORT="81"', "export TASKHOOK_PORT = '81'  # web"])
def test_a_file_of_windows_with_a_byte_order_mark_is_read(tmp_path: Path, content: str) -> None:
    file = tmp_path / ".env"
    file.write_bytes(b"\xef\xbb\xbf" + content.encode() + b"\r\nTASKHOOK_HOST=::1\r\n")
    settings = load(NEEDED, file)
    assert (settings.port, settings.host) == (81, "::1")


def test_spaces_line_ends_and_a_byte_order_mark_around_a_value_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xef\xbb\xbf " + A1.encode() + b" \r\n")
    given = {"TASKHOOK_SECRET_KEYS": f" {K2} ,\t{K1}\r\n", "TASKHOOK_API_KEYS_FILE": f"{tmp_path}/key\r"}
    settings = load(given | {"TASKHOOK_LOG_LEVEL": " DEBUG\r"}, None)
    assert (settings.secret_keys, settings.api_keys, settings.log_level) == ((K2, K1), (A1,), "debug")


@pytest.mark.parametrize(
    "line", ['TASKHOOK_HOST="::1', "TASKHOOK_HOST: ::1", "TASKHOOK HOST=::1", "TASKHOOK_HOST='a'b"]
)
def test_a_line_of_the_file_that_means_nothing_is_named_and_not_shown(tmp_path: Path, line: str) -> None:
    file = tmp_path / ".env"
    file.write_text(f"TASKHOOK_PORT=81\n{line}\nTASKHOOK_DASHBOARD=no\n")
    with pytest.raises(SettingsError, match=r"\.env, line 2, can't be read") as raised:
        load(NEEDED, file)
    assert line not in str(raised.value)


def test_an_empty_port_of_a_platform_is_none(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TASKHOOK_PORT=7001\n")
    assert load({**NEEDED, "PORT": ""}, tmp_path / ".env").port == 7001


@pytest.mark.parametrize("name", ["TASKHOOK_SECRET_KEYS", "TASKHOOK_API_KEYS"])
@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("k", "is shorter than 16 characters"),
        ("fifteen-charact", "is shorter than 16 characters"),
        ("changeme", "is shorter than 16 characters"),
        ("a" * 64, "has fewer than 8 different characters"),
        ("12341234123412341234", "has fewer than 8 different characters"),
        ("change-me-change-me-please", "looks like a placeholder"),
        ("replace-with-a-long-random-text", "looks like a placeholder"),
        ("your-secret-key-here", "looks like a placeholder"),
        ("PASSWORD-password-1234", "looks like a placeholder"),
    ],
)
def test_a_key_that_could_be_guessed_is_refused_outside_of_the_sandbox(name: str, key: str, why: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} could be guessed: it {why}") as raised:
        load({**NEEDED, name: key}, None)
    assert key == "k" or key not in str(raised.value)
    with pytest.raises(SettingsError, match=f"{name}, number 2, could be guessed"):
        load({**NEEDED, name: f"{NEEDED[name].partition(',')[0]},{key}"}, None)
    load({**NEEDED, name: key}, None, dev=True)


def test_a_key_for_callers_that_also_signs_callbacks_is_refused() -> None:
    with pytest.raises(SettingsError, match="TASKHOOK_API_KEYS and TASKHOOK_SECRET_KEYS share a key"):
        load({**NEEDED, "TASKHOOK_API_KEYS": K1}, None)


def test_a_retention_of_seconds_can_be_set() -> None:
    assert load({**NEEDED, "TASKHOOK_RETENTION_DAYS": "0.0001"}, None).retention_days == 0.0001


def test_a_setting_can_come_from_a_file_as_a_secret_does(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{K2},{K1}\n")
    settings = load({"TASKHOOK_SECRET_KEYS_FILE": str(file), "TASKHOOK_API_KEYS": A1}, None)
    assert settings.secret_keys == (K2, K1) and settings.unknown == ()


def test_the_environment_wins_over_the_file_whichever_of_the_two_names_a_secret(tmp_path: Path) -> None:
    secret, file = tmp_path / "secret", tmp_path / ".env"
    secret.write_text("from the secret file")
    file.write_text(f"TASKHOOK_API_KEYS=from the file .env\nTASKHOOK_SECRET_KEYS={K1}\n")
    assert load({"TASKHOOK_API_KEYS_FILE": str(secret)}, file).api_keys == ("from the secret file",)
    file.write_text(f"TASKHOOK_API_KEYS_FILE={secret}\nTASKHOOK_SECRET_KEYS={K1}\n")
    assert load({"TASKHOOK_API_KEYS": "from the environment"}, file).api_keys == ("from the environment",)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "TASKHOOK_ACEDATA_API_KEY_FILE names a file that is empty"),
        (b"\xff", "TASKHOOK_ACEDATA_API_KEY_FILE names a file that can't be read as text"),
        (None, "TASKHOOK_ACEDATA_API_KEY_FILE names a file that can't be read as text"),
        ("schlüssel".encode(), "TASKHOOK_ACEDATA_API_KEY must be printable ASCII"),
    ],
)
def test_a_file_that_gives_no_value_is_named(tmp_path: Path, content: bytes | None, line: str) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=line):
        load({**NEEDED, "TASKHOOK_ACEDATA_API_KEY_FILE": str(file)}, None)


def test_a_setting_given_in_both_forms_is_refused() -> None:
    with pytest.raises(SettingsError, match="TASKHOOK_API_KEYS and TASKHOOK_API_KEYS_FILE are both set"):
        load({**NEEDED, "TASKHOOK_API_KEYS_FILE": "/run/secrets/api_keys"}, None)


def test_a_misspelt_setting_is_told_with_the_nearest_one() -> None:
    assert load({**NEEDED, "TASKHOOK_PUBLIC_ULR": "x"}, None).unknown == (
        "TASKHOOK_PUBLIC_ULR (did you mean TASKHOOK_PUBLIC_URL?)",
    )


def test_no_secret_is_printed() -> None:
    given = {
        "TASKHOOK_SECRET_KEYS": "unmistakable-1-of-all",
        "TASKHOOK_API_KEYS": "unmistakable-2-of-all",
        "TASKHOOK_ACEDATA_API_KEY": "unmistakable3",
        "TASKHOOK_FLUXAPI_AI_HMAC_KEY": "unmistakable4",
    }
    settings = load(given, None)
    assert "unmistakable" not in repr(settings) + str(settings.public_items())
    assert dict(settings.public_items())["TASKHOOK_SECRET_KEYS"] == "(hidden)"


def test_the_variables_of_opentelemetry_are_read_from_the_file_too_and_the_environment_wins(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("OTEL_SERVICE_NAME=file\nOTEL_EXPORTER_OTLP_HEADERS=key=unmistakable\nTASKHOOK_TRACING=true\n")
    settings = load({**NEEDED, "OTEL_SERVICE_NAME": "environment"}, file)
    assert settings.otel == {"OTEL_SERVICE_NAME": "environment", "OTEL_EXPORTER_OTLP_HEADERS": "key=unmistakable"}
    assert settings.tracing is True and load(NEEDED, None).tracing is None
    assert "unmistakable" not in repr(settings)
