"""Open a connection to PostgreSQL, with the URL parameters that asyncpg does not apply."""

import configparser
import os
import socket
import ssl
from pathlib import Path

import asyncpg
from asyncpg import Connection

from service.core.problems import Unavailable
from service.store.postgres_session import ANY_ERROR, unavailable
from service.store.postgres_url import KeepAlive, Target

_TLS = {version.name.replace("v1_", "v1."): version for version in ssl.TLSVersion}


async def dial(target: Target, role: str, command_s: float | None, statements: int) -> Connection:
    """Raise Unavailable; no message names the password."""
    try:
        _check_files(target)
        connection = await asyncpg.connect(
            target.dsn,
            timeout=target.connect_s,
            command_timeout=command_s,
            statement_cache_size=statements,
            server_settings={"application_name": f"{target.application_name} taskhook {role}".lstrip()},
            target_session_attrs="read-write",
            servicefile=target.servicefile,
            **({"ssl": _trust_system(target)} if target.system_roots else {}),
        )
    except (*ANY_ERROR, ValueError) as error:
        raise unavailable(error) from error
    try:
        _keep_alive(connection, target.keepalive)
    except OSError as error:
        connection.terminate()
        raise unavailable(error) from error
    return connection


def _check_files(target: Target) -> None:
    """asyncpg does not name a file that it can't read, and takes a service that is not there for none."""
    for name, path in target.files.items():
        if not os.access(path, os.R_OK):
            raise Unavailable(f"The parameter {name} names a file that can't be read.", cause=path)
    if target.service is not None:
        _check_service(target.service, target.servicefile or os.environ.get("PGSERVICEFILE"))


def _check_service(service: str, given: str | None) -> None:
    path = Path(given) if given else Path.home() / ".pg_service.conf"
    found = configparser.ConfigParser(interpolation=None)
    try:
        found.read(path)
    except configparser.Error as error:
        raise Unavailable("The file of connection services can't be read.", cause=str(path)) from error
    if not found.has_section(service):
        raise Unavailable("The parameter service names none of the file of services.", cause=f"{service} in {path}")


def _trust_system(target: Target) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if "sslcert" in target.files:
        context.load_cert_chain(target.files["sslcert"], target.files.get("sslkey"), lambda: target.sslpassword)
    if "sslcrl" in target.files:
        context.load_verify_locations(cafile=target.files["sslcrl"])
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    context.minimum_version = _TLS[target.tls_min]
    if target.tls_max:
        context.maximum_version = _TLS[target.tls_max]
    return context


def _keep_alive(connection: Connection, wanted: KeepAlive) -> None:
    """A connection that a firewall forgot while it was idle must not look alive for hours."""
    found = connection._transport.get_extra_info("socket")
    if found is None or found.family not in (socket.AF_INET, socket.AF_INET6):
        return
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(wanted.enabled))
    options = {
        "TCP_KEEPIDLE": wanted.idle_s,
        "TCP_KEEPINTVL": wanted.interval_s,
        "TCP_KEEPCNT": wanted.count,
        "TCP_USER_TIMEOUT": wanted.user_timeout_ms,
    }
    for name, value in options.items():
        if value > 0 and hasattr(socket, name):  # not every system has each of them
            found.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
