"""This machine's side of the commands: where the service is found, and images saved."""

import json
import os
import re
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import httpx
import msgspec

from service import environment
from service.client import ClientError

DEV_FILE = Path("var/dev.json")  # written by `taskhook dev`, so that a second terminal needs no settings
DOTENV = Path(".env")
IMAGE_MAX = 64 * 1024 * 1024
_EXTENSIONS = {
    "image/jpeg": "jpg",
    "image/jpg": "jpg",
    "image/png": "png",
    "image/webp": "webp",
    "image/gif": "gif",
    "image/avif": "avif",
}
_UNTYPED = frozenset({"", "application/octet-stream", "binary/octet-stream"})
_ATTEMPTS = 3


class NotSaved(ClientError):
    """An image that could not be fetched, is none, or is too large."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A service and the key for it."""

    url: str
    api_key: str | None = None

    def __repr__(self) -> str:
        return f"Place(url={self.url!r})"


def find_place(url: str | None, api_key: str | None) -> Place:
    """Return the service and the key, both from one source. Raise ClientError if two sources would have to be mixed.

    Sources, first to last: the options and the environment; `.env`; what `taskhook dev` left in this folder; the
    settings of a service on this machine. A folder may come from anybody, so its URL never gets a key from elsewhere.
    """
    url = url or os.environ.get("TASKHOOK_URL")
    api_key = api_key or os.environ.get("TASKHOOK_API_KEY")
    sources = [source for source in (_dotenv_client(), _dev_file(), _server()) if source is not None]
    if url is None and api_key is None and sources:
        url = sources[0].url
    elif url is None:
        url = _local_url(os.environ)
        other = next((source.url for source in sources if source.url != url), None)
        if other is not None:
            raise ClientError(f"This folder names {other}, the key comes from elsewhere. Give --url {other} as well.")
    url = url.strip() if "://" in url else f"http://{url.strip()}"
    if api_key is None:
        api_key = next((source.api_key for source in sources if source.url == url.rstrip("/") and source.api_key), None)
    return Place(url=url, api_key=(api_key or "").strip() or None)


def read_environment() -> dict[str, str]:
    """Environment variables over those of .env. Raise SettingsError."""
    return environment.read_environment(os.environ, DOTENV)


def _dotenv_client() -> Place | None:
    known = environment.read_dotenv(DOTENV)
    if not known.get("TASKHOOK_URL") and not known.get("TASKHOOK_API_KEY"):
        return None
    return _place(known.get("TASKHOOK_URL") or _local_url(known), known.get("TASKHOOK_API_KEY"))


def _server() -> Place | None:
    """The service on this machine whose settings are the environment, or else .env."""
    for known in (os.environ, read_environment()):
        if keys := known.get("TASKHOOK_API_KEYS"):
            return _place(_local_url(known), keys.partition(",")[0])
    return None


def _dev_file() -> Place | None:
    try:
        found = json.loads(DEV_FILE.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return (
        _place(str(found["url"]), str(found.get("api_key", ""))) if isinstance(found, dict) and "url" in found else None
    )


def _place(url: str, api_key: str | None) -> Place:
    return Place(url=(url if "://" in url else f"http://{url}").rstrip("/"), api_key=(api_key or "").strip() or None)


def _local_url(known: Mapping[str, str]) -> str:
    return f"http://127.0.0.1:{known.get('PORT') or known.get('TASKHOOK_PORT') or 8000}"


def save_image(url: str, folder: Path, stem: str) -> Path:
    """Folder/stem.ext, whole or not at all. No key of ours goes to the image's host."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _download(url, folder, re.sub(r"[^\w-]", "_", stem))
        except (httpx.TransportError, httpx.InvalidURL, httpx.TooManyRedirects) as error:
            if attempt == _ATTEMPTS or not isinstance(error, httpx.TransportError):
                raise NotSaved(f"{url}: {str(error) or type(error).__name__}") from error
            time.sleep(0.2 * attempt)
    raise AssertionError("unreachable")


def _download(url: str, folder: Path, stem: str) -> Path:
    part = folder / f".{stem}-{secrets.token_hex(4)}.part"
    with (
        httpx.Client(follow_redirects=True, max_redirects=5, timeout=30.0, headers={"User-Agent": "taskhook"}) as http,
        http.stream("GET", url) as response,
    ):
        content_type = _check(response, url)
        try:
            with part.open("xb") as file:
                head = _write(response, url, file)
            return part.replace(folder / f"{stem}.{_extension(content_type, head)}")
        finally:
            part.unlink(missing_ok=True)


def _check(response: httpx.Response, url: str) -> str:
    """The content type, if this can be an image at all."""
    if response.status_code != 200:
        raise NotSaved(f"{url}: the answer is {response.status_code} {response.reason_phrase}")
    content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not content_type.startswith("image/") and content_type not in _UNTYPED:
        raise NotSaved(f"{url}: this is {content_type}, no image")
    return str(content_type)


def _write(response: httpx.Response, url: str, file: IO[bytes]) -> bytes:
    """All of the body; returns its first bytes."""
    head, size = b"", 0
    for chunk in response.iter_bytes():
        head, size = head or chunk[:16], size + len(chunk)
        if size > IMAGE_MAX:
            raise NotSaved(f"{url}: larger than {IMAGE_MAX // 1024 // 1024} MiB")
        file.write(chunk)
    return head


def _extension(content_type: str, head: bytes) -> str:
    if content_type in _UNTYPED:
        return _sniff(head)
    return (
        _EXTENSIONS.get(content_type)
        or re.sub(r"[^a-z0-9]", "", content_type.removeprefix("image/").partition("+")[0])
        or "bin"
    )


def _sniff(head: bytes) -> str:
    """Storage that names no type still starts its files as everyone does."""
    if head.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if head.startswith(b"\x89PNG"):
        return "png"
    return "webp" if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else "bin"
