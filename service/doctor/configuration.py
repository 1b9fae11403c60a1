"""Settings that the service would start with, and that are a mistake all the same."""

import ipaddress
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from service.core.strength import KEY_MIN, find_weakness
from service.core.tokens import CallbackTokens
from service.doctor.finding import Finding, fail, ok, skipped, warn
from service.outbound.guard import LOCALHOST, forbidden_reason
from service.settings import Settings

KEY_GOOD = 32
MAKE_ONE = "Make one: openssl rand -hex 32"


def check_settings(settings: Settings) -> Iterator[Finding]:
    yield _check_names(settings)
    yield from _check_keys(settings)
    yield _check_public_url(settings)
    yield _check_sandbox(settings)
    yield _check_private_networks(settings)
    yield _check_providers(settings)


def callback_providers(settings: Settings) -> list[str]:
    """Return the configured providers that have callbacks."""
    return [
        name
        for name, provider in settings.registry.items()
        if provider.capabilities.callbacks and settings.usable_accounts(name)
    ]


def check_kept_keys(file: Path) -> Iterator[Finding]:
    """The keys that the sandbox made up; it creates the file with mode 600."""
    if file.exists() and file.stat().st_mode & (stat.S_IRWXO | stat.S_IRWXG):
        says = f"{file} can be opened by others than its owner."
        yield warn(f"permissions of {file.name}", says, f"chmod 600 {file}")


def check_file(dotenv: Path) -> Finding:
    """Check that only its owner can read the file with secrets."""
    check = "permissions of .env"
    try:
        mode = dotenv.stat().st_mode
    except FileNotFoundError:
        return skipped(check, "There is no .env file here; settings come from the environment alone.")
    except OSError as error:
        return warn(check, f"{dotenv} can't be looked at ({error.strerror}).", "Make it readable to the service.")
    advice = f"chmod 600 {dotenv}"
    if mode & stat.S_IWOTH or mode & stat.S_IROTH:
        return fail(check, f"{dotenv} can be read by every user of this machine.", advice)
    if mode & (stat.S_IRGRP | stat.S_IWGRP):
        return warn(check, f"{dotenv} can be read by its group.", advice)
    if not os.access(dotenv, os.R_OK):
        return warn(check, f"{dotenv} can't be read by this user.", "Run this as the user of the service.")
    return ok(check, f"{dotenv} is its owner's alone.")


def _check_names(settings: Settings) -> Finding:
    if settings.unknown:
        names = "; ".join(settings.unknown)
        return warn("settings", f"Without meaning: {names}.", "Correct or remove them; they are ignored.")
    return ok("settings", "All can be read.")


def _check_keys(settings: Settings) -> Iterator[Finding]:
    if settings.sandbox and not (settings.secret_keys and settings.api_keys):
        yield skipped("secret keys", "The sandbox makes up its own.")
        return
    yield _judge_secrets("secret keys", "TASKHOOK_SECRET_KEYS", settings.secret_keys)
    yield _judge_secrets("API keys", "TASKHOOK_API_KEYS", settings.api_keys)
    if set(settings.secret_keys) & set(settings.api_keys):
        says = "One value is both a secret key and an API key: every caller could forge callbacks."
        yield fail("separate keys", says, f"Give each its own. {MAKE_ONE}")


def _judge_secrets(check: str, setting: str, values: Sequence[str]) -> Finding:
    """Every one of them counts: an old key verifies as well as a new one signs."""
    where = f"in {setting}"
    for number, value in enumerate(values, start=1):
        if weakness := find_weakness(value, KEY_MIN):
            return fail(check, f"Number {number} {where} could be guessed: it {weakness}.", MAKE_ONE)
    if short := [number for number, value in enumerate(values, start=1) if len(value) < KEY_GOOD]:
        return warn(check, f"Number {short[0]} {where} is shorter than {KEY_GOOD} characters.", MAKE_ONE)
    if len(set(values)) < len(values):
        return warn(check, f"A value stands twice {where}.", "Remove one of them.")
    return ok(check, f"{len(values)} {where}, long enough.")


def _check_public_url(settings: Settings) -> Finding:
    check = "public URL"
    if not callback_providers(settings):
        return skipped(check, "No provider in use calls back.")
    if settings.public_url is not None:
        return _judge_public_url(settings.public_url)
    if settings.sandbox:
        return skipped(check, "The sandbox needs none.")
    return warn(check, "It is not set, so every task is polled.", "Set TASKHOOK_PUBLIC_URL to get callbacks.")


def _judge_public_url(url: str) -> Finding:
    check, parts = "public URL", urlsplit(url)
    if _is_private(parts.hostname or ""):
        return warn(check, f"{parts.hostname} is no address that a provider reaches.", "Set one of the open Internet.")
    if parts.scheme != "https":
        return fail(check, "It is http: tokens of callbacks travel readable.", "Put a certificate before the service.")
    if parts.path:
        return ok(check, f"{url}: https, below a path that the proxy must take away.")
    return ok(check, f"{url}: https.")


def _is_private(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == LOCALHOST or host.endswith((".localhost", ".local", ".internal"))
    return forbidden_reason(host) is not None


def _check_sandbox(settings: Settings) -> Finding:
    if settings.sandbox:
        return warn("sandbox", "It is on: no provider is called.", "Unset TASKHOOK_SANDBOX in production.")
    return ok("sandbox", "It is off.")


def _check_private_networks(settings: Settings) -> Finding:
    check = "private networks"
    if settings.sandbox:
        return skipped(check, "Open with the sandbox.")
    if settings.allow_private_networks:
        says = "Whoever may register endpoints can have requests sent into your network."
        return warn(check, says, "Unset TASKHOOK_ALLOW_PRIVATE_NETWORKS unless all callers may do that.")
    return ok(check, "Events go to public addresses only.")


def _check_providers(settings: Settings) -> Finding:
    if settings.sandbox:
        return skipped("providers", "All are simulated.")
    configured = [one.key for name in settings.registry for one in settings.usable_accounts(name).values()]
    if not configured:
        return fail("providers", "None is configured, so no task can be made.", "Set the API key of one at least.")
    return ok("providers", f"Configured: {', '.join(configured)}.")


def forged_and_unknown(settings: Settings, provider: str) -> tuple[str, str]:
    """Two tokens: one that no key of ours signed, and one that ours did, for a task that can't exist.

    Its id is nil, which no version 7 can be: so it moves nothing, whoever sees it.
    """
    genuine = CallbackTokens(settings.secret_keys, tuple(settings.registry)).sign(provider, "task_" + "0" * 32)
    swapped = "A" if genuine[-2] != "A" else "B"
    return genuine[:-2] + swapped + genuine[-1], genuine
