"""This machine's side of the commands: where the service is found, and images saved."""

import json
import os
import re
import secrets
import time
from pathlib import Path
from typing import IO

import httpx
import msgspec
from dotenv import dotenv_values

from service.client import ClientError

DEV_FILE = Path("var/dev.json")  # written by `taskhook dev`, so that a second terminal needs no settings
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
    """Options first, then the environment, then .env, then what `taskhook dev` left in this directory."""
    known = read_environment()
    dev = _read_dev_file()
    url = url or known.get("TASKHOOK_URL") or dev.get("url") or f"http://127.0.0.1:{known.get('TASKHOOK_PORT') or 8000}"
    keys = known.get("TASKHOOK_API_KEYS", "").split(",")
    api_key = api_key or known.get("TASKHOOK_API_KEY") or keys[0]
    if not api_key and url == dev.get("url"):  # that key is for that service and no other
        api_key = dev.get("api_key")
    return Place(url=url if "://" in url else f"http://{url}", api_key=(api_key or "").strip() or None)


def read_environment() -> dict[str, str]:
    """Environment variables over those of .env."""
    return {**{name: value for name, value in dotenv_values(".env").items() if value is not None}, **os.environ}


def _read_dev_file() -> dict[str, str]:
    try:
        found = json.loads(DEV_FILE.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


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
