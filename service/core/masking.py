"""What others send back may hold what they were sent: secrets are taken out before it is kept, shown or logged."""

from collections.abc import Iterable
from urllib.parse import parse_qsl, quote, unquote, urlsplit

MASKED = "***"
SECRET_MIN = 8
"""What is shorter is no secret, and would mask half of the text."""
SEGMENT_MIN = 20
"""A path has words, too; what is that long is taken for a token."""


def mask(text: str, secrets: Iterable[str]) -> str:
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= SECRET_MIN:
            text = text.replace(secret, MASKED).replace(quote(secret, safe=""), MASKED)
    return text


def secrets_in_url(url: str) -> list[str]:
    """The values of its query, and the parts of its path that are long enough to be a token."""
    parts = urlsplit(url)
    values = [value for _, value in parse_qsl(parts.query)]
    segments = [segment for segment in parts.path.split("/") if len(segment) >= SEGMENT_MIN]
    return [*values, *segments, *map(unquote, segments)]
