"""Two keys of `[callback]` with a small grammar: where our URL is put in a submit, and what a callback is answered."""

import re

import msgspec

from service.providers.declared.bodies import BodyPath

_ANSWER = re.compile(r"(2\d\d)(?: +(.+))?", re.DOTALL)
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Place:
    """Where a submit carries the callback URL: `none`, `body:PATH`, `query:NAME`, `header:NAME`, or `account`.

    `account` means that no submit carries it: somebody sets it up once at the provider.
    """

    def __init__(self, source: str) -> None:
        """Raise ValueError for a place that does not exist."""
        self.source = source
        self.kind, _, self.name = source.partition(":")
        self.path = BodyPath.parse(self.name) if self.kind == "body" else BodyPath()
        is_bare = self.kind in ("none", "account") and not self.name
        is_named = self.kind in ("query", "header") and _NAME.fullmatch(self.name)
        if not (is_bare or is_named or self.path):
            raise ValueError("must be none, account, body:PATH, query:NAME or header:NAME")

    def __repr__(self) -> str:
        return f"Place({self.source!r})"


class CallbackAnswer:
    """A status and a JSON body, written as `200 {"received": true}`."""

    def __init__(self, source: str) -> None:
        """Raise ValueError for another form."""
        match = _ANSWER.fullmatch(source.strip())
        if match is None:
            raise ValueError('must be a status of 200 to 299 and a JSON body, such as 200 {"received": true}')
        self.source = source
        self.status, self.body = int(match[1]), (match[2] or "{}").encode()
        try:
            msgspec.json.decode(self.body)
        except msgspec.DecodeError as error:
            raise ValueError(f"has a body that is no JSON: {error}") from None

    def __repr__(self) -> str:
        return f"CallbackAnswer({self.source!r})"
