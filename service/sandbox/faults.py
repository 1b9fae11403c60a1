"""The magic prompts: words in a prompt that make the providers misbehave, like a payment provider's test cards."""

import re
from collections import OrderedDict
from typing import Final

FAULTS: Final[dict[str, str]] = {
    "moderated": "The content filter rejects the prompt: acedata and fluxapi-org at submit, the others later.",
    "failed": "The generation fails.",
    "slow": "The generation takes ten times as long.",
    "stuck": "The generation never ends; a provider that blocks gives up with a gateway timeout.",
    "no-picture": "The generation succeeds, but the result holds no picture URL.",
    "bad-key": "The submit is refused as if the API key were wrong.",
    "no-credits": "The submit is refused because the account has no credits left.",
    "throttled": "The first two submits of this prompt are refused by the rate limit, later ones are fine.",
    "unavailable": "The first two submits of this prompt get a 503, later ones are fine.",
    "html-error": "The submit gets a 502 with an HTML page, as from a proxy; no generation starts.",
    "cut-connection": "The connection breaks during the submit's answer; the generation runs and its callback comes.",
    "cut-lost": "The connection breaks during the submit's answer; no generation starts and no callback ever comes.",
    "lost-callback": "No callback is sent; polling finds the result.",
    "early-callback": "The callback arrives before the submit is answered.",
    "late-callback": "The callback arrives sixty times the usual duration after the generation has ended.",
    "duplicate-callback": "The callback is sent three times.",
    "contradictory-callback": "A callback that reports success is followed by one that reports failure.",
    "garbage-callback": "The callback's body is not JSON and no good callback follows; polling finds the result.",
    "wrong-id": "The callback names another task and no good callback follows; polling finds the result.",
    "html-poll": "The first two polls get a 502 with an HTML page, as from a proxy.",
    "unknown-status": "The first two polls report a status that no document mentions.",
    "not-found": "The first two polls say that there is no such task.",
}
"""Effect of each name. A name that cannot apply to a provider (no callbacks, no polling) is ignored there."""

_MAGIC: Final = re.compile(r"\bsandbox:([a-z]+(?:-[a-z]+)*)")


def parse_faults(prompt: str) -> frozenset[str]:
    """Return the known fault names in a prompt; an unknown name is an ordinary word."""
    return frozenset(_MAGIC.findall(prompt.lower())) & FAULTS.keys()


class Tally:
    """Counts events per key for a bounded number of keys; the least recently used key is dropped."""

    def __init__(self, size: int = 1000) -> None:
        self._size = size
        self._counts: OrderedDict[tuple[str, ...], int] = OrderedDict()

    def first(self, times: int, *thing: str) -> bool:
        """Return whether this is one of the first `times` calls for this key."""
        count = self._counts.pop(thing, 0) + 1
        self._counts[thing] = count
        if len(self._counts) > self._size:
            self._counts.popitem(last=False)
        return count <= times
