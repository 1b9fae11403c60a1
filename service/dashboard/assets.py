"""Styles, scripts, typeface and icon: put together at start and named by a hash of them all, so browsers keep them."""

import gzip
import hashlib
from importlib.resources import files

from service.web.calls import Answer, Headers

SOURCE = files("service.dashboard") / "static"
BUNDLES = {"app.css": b"text/css; charset=utf-8", "app.js": b"text/javascript; charset=utf-8"}
FILES = {"inter.woff2": b"font/woff2", "icon.svg": b"image/svg+xml"}
FOREVER: Headers = ((b"cache-control", b"public, max-age=31536000, immutable"),)
FOR_NOW: Headers = ((b"cache-control", b"no-cache"),)
VARY: Headers = ((b"vary", b"accept-encoding"),)


class Assets:
    """All of them in memory, small texts compressed once. `path` is where they are served."""

    def __init__(self) -> None:
        self._plain = {name: (kind, _bundle(name)) for name, kind in BUNDLES.items()}
        self._plain |= {name: (kind, (SOURCE / name).read_bytes()) for name, kind in FILES.items()}
        digest = hashlib.sha256(b"".join(body for _, body in self._plain.values())).hexdigest()[:16]
        self._packed = {name: gzip.compress(body, 9, mtime=0) for name, (_, body) in self._plain.items()}
        self._digest = digest
        self.path = f"/assets/{digest}"

    def find(self, digest: str, name: str, accepts: str) -> Answer | None:
        """Return an asset. Another version's digest gets this version's file, uncached: replicas can differ briefly."""
        if name not in self._plain:
            return None
        kind, body = self._plain[name]
        headers = VARY + (FOREVER if digest == self._digest else FOR_NOW)
        if "gzip" in accepts and len(self._packed[name]) < len(body):
            return Answer(200, self._packed[name], kind, (*headers, (b"content-encoding", b"gzip")))
        return Answer(200, body, kind, headers)


def _bundle(name: str) -> bytes:
    """The sources of that kind, in the order of their names."""
    suffix = name.removeprefix("app")
    sources = sorted((one for one in SOURCE.iterdir() if one.name.endswith(suffix)), key=lambda one: one.name)
    return b"\n".join(source.read_bytes() for source in sources)
