"""Whether a key could be guessed."""

import re

KEY_MIN = 16
DISTINCT_MIN = 8
"""Random text of any alphabet has more distinct characters in 32 than this."""
OWN_MIN = 6
"""Letters and digits that a key must have besides the words of examples."""
PLACEHOLDERS = re.compile(
    "change.?me|example|insert|replace|password|passwd|secret|random|please|your|here|with|long|text|value|key|xxxx"
    "|[^a-z0-9]"
)


def find_weakness(key: str, own_min: int = OWN_MIN) -> str | None:
    """Return why a key could be guessed, or None."""
    if len(key) < KEY_MIN:
        return f"is shorter than {KEY_MIN} characters"
    if len(set(key)) < DISTINCT_MIN:
        return f"has fewer than {DISTINCT_MIN} different characters"
    if len(PLACEHOLDERS.sub("", key.lower())) < own_min:
        return "looks like a placeholder"
    return None
