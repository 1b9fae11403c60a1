"""Connection URLs as libpq's users write them: each of its parameters is applied or ignored, any other is named."""

import ctypes
import ctypes.util
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, quote

import pytest
from asyncpg import Connection

from service.core.problems import Unavailable
from service.environment import SettingsError
from service.settings import load
from service.store.postgres import PostgresDriver
from service.store.postgres_url import PARAMETERS, hide_secrets, parse
from tests.support.authority import Authority
from tests.support.postgres import command, shared_server
from tests.support.wait import until


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    driver = PostgresDriver(url)
    await driver.open()
    connection = await driver.connect("writer")
    try:
        yield connection
    finally:
        await connection.close()
        await driver.close()


async def ask(url: str, sql: str) -> object:
    async with connected(url) as connection:
        return await connection.fetchval(sql)


def dialled(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(parse(url).dsn.partition("?")[2]).items()}


class _Option(ctypes.Structure):
    names = ("keyword", "envvar", "compiled", "val", "label", "dispchar")
    _fields_ = [*((name, ctypes.c_char_p) for name in names), ("dispsize", ctypes.c_int)]


def test_every_parameter_of_the_installed_libpq_is_known() -> None:
    found = ctypes.util.find_library("pq")
    if found is None:
        pytest.skip("no libpq here")
    library = ctypes.CDLL(found)
    library.PQconndefaults.restype = ctypes.POINTER(_Option)
    names = set()
    for option in library.PQconndefaults():
        if option.keyword is None:
            break
        names.add(option.keyword.decode())
    assert len(names) > 30 and names - {"authtype", "tty"} <= PARAMETERS.keys()  # these two mean nothing since long ago


def test_every_parameter_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()
    assert [name for name in PARAMETERS if f"`{name}`" not in page] == []


VALUES = {
    "application_name": "shop",
    "client_encoding": "LATIN1",
    "connect_timeout": "10",
    "hostaddr": "127.0.0.1",
    "keepalives": "1",
    "keepalives_count": "3",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "options": "-c search_path=public",
    "passfile": "/nowhere",
    "password": "unused",
    "replication": "false",
    "requiressl": "0",
    "sslcompression": "0",
    "sslmode": "prefer",
    "target_session_attrs": "read-write",
    "tcp_user_timeout": "5000",
    "channel_binding": "require",
    "gssencmode": "disable",
    "load_balance_hosts": "random",
    "ssl_min_protocol_version": "TLSv1.2",
    "ssl_max_protocol_version": "TLSv1.3",
    "sslnegotiation": "postgres",
    "gsslib": "gssapi",
}
GIVEN_BEFORE_OR_BY_FILE = {"host", "port", "user", "dbname", "service", "servicefile", "sslcert", "sslkey"}
GIVEN_BEFORE_OR_BY_FILE |= {"sslrootcert", "sslcrl"}


async def test_all_parameters_of_libpq_together_lead_to_the_server() -> None:
    given = {name: VALUES.get(name, "x") for name in PARAMETERS if name not in GIVEN_BEFORE_OR_BY_FILE}
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in given.items())
    assert await ask(f"{shared_server().url()}?{query}", "show search_path") == "public"


async def test_keepalive_and_timeouts_reach_the_socket() -> None:
    query = "keepalives_idle=31&keepalives_interval=7&keepalives_count=4&tcp_user_timeout=9000"
    async with connected(f"{shared_server().url()}?{query}") as connection:
        found = connection._transport.get_extra_info("socket")
        names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
        values = [found.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names]
        assert values == [31, 7, 4, 9000] and found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    async with connected(f"{shared_server().url()}?keepalives=0") as connection:
        found = connection._transport.get_extra_info("socket")
        assert found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0


async def test_an_application_name_stands_before_the_role() -> None:
    named = await ask(f"{shared_server().url()}?application_name={'s' * 60}", "show application_name")
    assert named == "s" * 36 + " taskhook writer"
    assert await ask(shared_server().url(), "show application_name") == "taskhook writer"


async def test_an_address_is_dialled_instead_of_its_host() -> None:
    url = shared_server().url().replace("127.0.0.1", "no.such.host.invalid")
    assert await ask(f"{url}?hostaddr=127.0.0.1", "select 1") == 1


async def test_what_stands_behind_the_question_mark_wins_as_in_libpq() -> None:
    port = shared_server().port
    url = f"postgresql://nobody:wrong@127.0.0.1:1/nowhere?user=postgres&port={port}&dbname=template1"
    assert await ask(url, "select current_database()::text") == "template1"


async def test_a_service_of_a_file_is_used_and_one_that_is_not_there_is_named(tmp_path: Path) -> None:
    file = tmp_path / "services"
    file.write_text(f"[shop]\nhost=127.0.0.1\nport={shared_server().port}\nuser=postgres\ndbname=template1\n")
    url = f"postgresql://?servicefile={quote(str(file), safe='')}&service="
    assert await ask(f"{url}shop", "select current_database()::text") == "template1"
    with pytest.raises(Unavailable) as raised:
        await ask(f"{url}bakery", "select 1")
    assert str(raised.value.cause) == f"bakery in {file}"


def test_one_port_is_that_of_all_hosts_and_a_missing_one_is_the_usual_one() -> None:
    assert dialled("postgresql://u@a,b/x?port=5433")["port"] == "5433,5433"
    assert dialled("postgresql://u@a,b:5433/x")["port"] == "5432,5433"
    assert dialled("postgresql://u@a:1,b:2/x") == {"user": "u", "host": "a,b", "port": "1,2", "dbname": "x"}
    assert dialled("postgresql://u@[::1]:5/x?host=::1,%2Frun%2Fpg&port=1,2")["host"] == "[::1],/run/pg"
    assert dialled("postgresql://%2Frun%2Fpg/x")["host"] == "/run/pg"


def test_text_is_decoded_once_and_a_plus_is_a_plus() -> None:
    found = dialled("postgresql://u%40x:p%2Bq+%2525@h/d%20b?options=-c%20a%3Db+c")
    assert found == {"user": "u@x", "password": "p+q+%25", "host": "h", "dbname": "d b", "options": "-c a=b+c"}


def test_jdbcs_ssl_is_a_mode() -> None:
    assert dialled("postgresql://h/x?ssl=true")["sslmode"] == "require"


def test_a_protection_that_can_not_be_given_is_told_and_a_mere_preference_is_not() -> None:
    assert parse("postgresql://h/x?channel_binding=require&require_auth=scram-sha-256").unmet == (
        "channel_binding",
        "require_auth",
    )
    assert parse("postgresql://h/x?channel_binding=prefer&sslcertmode=allow").unmet == ()


def test_the_time_to_connect_is_ours_where_libpq_would_wait_for_ever() -> None:
    assert [parse(f"postgresql://h/x?connect_timeout={n}").connect_s for n in ("12", "0", "-1")] == [12, 5, 5]


def test_no_password_is_shown_wherever_it_stands() -> None:
    url = "postgresql://u:cret1@h/x?password=cret2&sslpassword=cret3&user=u"
    assert "cret" not in hide_secrets(url) + repr(parse(url)) and hide_secrets(url).count("(hidden)") == 3


@pytest.mark.parametrize(
    ("query", "line"),
    [
        (
            "search_path=x",
            "has the parameter search_path, which libpq does not have; .* options=-c%20search_path%3DVALUE",
        ),
        ("ssl_mode=require", r"has the parameter ssl_mode, .*did you mean sslmode\?"),
        ("pgbouncer=true", "has the parameter pgbouncer,"),
        ("p@ss=word", "has a parameter that libpq does not have"),
        ("sslmode", "has a parameter without a value"),
        ("sslmode=on", "must have one of disable, allow, prefer, require, verify-ca, verify-full as sslmode"),
        ("gssencmode=require", "must have one of disable, prefer as gssencmode"),
        ("target_session_attrs=standby", "must have one of any, .* as target_session_attrs"),
        ("connect_timeout=soon", "must have a whole number as connect_timeout"),
        ("keepalives_idle=1.5", "must have a whole number as keepalives_idle"),
        ("port=99999", "must have a port from 1 to 65535"),
        ("port=1,2,3", "must have one port, or as many as hosts"),
        ("host=a,,b", "must name a host between two commas"),
        ("hostaddr=1.1.1.1,2.2.2.2", "must have as many addresses in hostaddr as hosts"),
        ("sslrootcert=system&sslmode=require", "must have verify-full as sslmode where sslrootcert is system"),
    ],
)
def test_a_parameter_that_can_not_be_right_is_named(query: str, line: str) -> None:
    with pytest.raises(SettingsError, match=f"TASKHOOK_DATABASE_URL {line}"):
        load({"TASKHOOK_DATABASE_URL": f"postgresql://u@h/x?{query}"}, None, dev=True)


async def takes_tls(url: str) -> bool:
    return await ask(url, "show ssl") == "on"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
async def test_a_certificate_is_judged_by_the_systems_authorities_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = shared_server()
    Authority(tmp_path).issue("server", "localhost", 2)
    data = server._folder / "data"
    for suffix in ("pem", "key"):
        target = data / f"server.{suffix}"
        shutil.copy(tmp_path / f"server.{suffix}", target)
        target.chmod(0o600)
        if server._owner:
            shutil.chown(target, server._owner.pw_uid)
    url = server.url().replace("127.0.0.1", "localhost")
    trusted = f"{url}?sslmode=verify-full&sslrootcert={tmp_path / 'ca.pem'}"
    for setting in ("ssl_cert_file = 'server.pem'", "ssl_key_file = 'server.key'", "ssl = on"):
        await command(server, f"alter system set {setting}")
    await command(server, "select pg_reload_conf()")
    try:
        await until(lambda: takes_tls(url), what="the server takes TLS")
        assert await ask(trusted, "select ssl from pg_stat_ssl where pid = pg_backend_pid()") is True
        with pytest.raises(Unavailable, match="database"):
            await ask(f"{url}?sslrootcert=system", "select 1")
        monkeypatch.setenv(ssl.get_default_verify_paths().openssl_cafile_env, str(tmp_path / "ca.pem"))
        assert (
            await ask(f"{url}?sslrootcert=system", "select ssl from pg_stat_ssl where pid = pg_backend_pid()") is True
        )
        with pytest.raises(Unavailable) as raised:
            await ask(f"{url}?sslmode=verify-full&sslrootcert=/no/such.pem", "select 1")
        assert "sslrootcert" in raised.value.detail and raised.value.cause == "/no/such.pem"
    finally:
        await command(server, "alter system reset all")
        await command(server, "select pg_reload_conf()")
