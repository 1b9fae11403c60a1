"""Messages of a start: the address, what is not configured, generated keys, and first commands."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import msgspec
import structlog
from msgspec.structs import replace

from service.settings import Settings
from service.store import private_files

log = structlog.get_logger()
DEV_FILE = Path("var/dev.json")


def with_made_up_keys(settings: Settings) -> Settings:
    """The sandbox needs no keys given. Those made up are kept, so that a restart and a second process know them."""
    kept = _keep({"api_key": f"tk_dev_{secrets.token_hex(24)}", "secret_key": secrets.token_hex(32)})
    if not settings.api_keys and _read().get("api_key") == kept["api_key"]:
        log.info("settings.api_key_made_up", file=str(DEV_FILE.absolute()))
    return replace(
        settings,
        secret_keys=settings.secret_keys or (kept["secret_key"],),
        api_keys=settings.api_keys or (kept["api_key"],),
    )


def write_address(url: str, settings: Settings) -> None:
    """For `taskhook submit` and its like in the same folder."""
    content = {**_read(), "url": url, "api_key": settings.api_keys[0]}
    with _told():
        os.replace(_write(content), DEV_FILE)


def find_unset(settings: Settings) -> list[str]:
    """Return the missing settings that most installations have, and the consequence of each."""
    if settings.sandbox:
        return []
    found = []
    if not _configured(settings):
        found.append("TASKHOOK_<PROVIDER>_API_KEY: no task can be created")
    if settings.public_url is None:
        found.append("TASKHOOK_PUBLIC_URL: every task is polled, since no callback can arrive")
    return found


def describe_start(url: str, settings: Settings) -> str:
    providers = "simulated (TASKHOOK_SANDBOX)" if settings.sandbox else ", ".join(_configured(settings)) or "none"
    facts = [("Listens at", url), ("Docs", f"{url}/docs"), ("Providers", providers)]
    facts[1:1] = [("Dashboard", f"{url}/")] if settings.dashboard else []
    facts += [("Not set", unset) for unset in find_unset(settings)]
    return "\n" + "".join(f"  {label:<11} {fact}\n" for label, fact in facts) + "\n"


def _configured(settings: Settings) -> list[str]:
    return [name for name in settings.accounts if settings.usable_accounts(name)]


def first_steps(url: str, api_key: str, code: str | None) -> str:
    return f"""
  Taskhook is ready at {url}  (docs: {url}/docs)
  Providers are simulated: no account, no cost.

  API key   {api_key}
{_door(url, code) if code else ""}
  Try it from a second terminal:

    curl -s {url}/v1/tasks \\
      -H "Authorization: Bearer {api_key}" \\
      -H "Content-Type: application/json" \\
      -d '{{"model": "fluxapi-ai/flux-kontext-pro", "input": {{"prompt": "a lighthouse at dusk"}}}}'

    .venv/bin/taskhook submit fluxapi-ai/flux-kontext-pro "a lighthouse at dusk" --wait --save out/
    .venv/bin/taskhook listen

"""


def _door(url: str, code: str) -> str:
    """A link that signs in once: what follows the hash is sent to no server, so it is in no log and no referrer."""
    return f"  Dashboard {url}/#code={quote(code, safe='')}  (signs in once, then use the key)\n"


def _keep(made_up: dict[str, str]) -> dict[str, str]:
    """The keys of whichever process was first."""
    with _told(), contextlib.suppress(FileExistsError):
        written = _write(made_up)
        try:
            os.link(written, DEV_FILE)
        finally:
            written.unlink()
    return {**made_up, **_read()}


def _read() -> dict[str, str]:
    try:
        return msgspec.json.decode(DEV_FILE.read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError):
        return {}


def _write(content: dict[str, str]) -> Path:
    """Write a complete file next to the target, readable by its owner alone."""
    private_files.create_folder(DEV_FILE.parent)
    path = DEV_FILE.with_name(f".{DEV_FILE.name}.{os.getpid()}")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(content)))
    return path


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """A folder that can't be written to is no reason not to start."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        log.warning("settings.not_kept", file=str(DEV_FILE), reason=error.strerror)
