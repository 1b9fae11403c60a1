"""The state of a task in a reply: ordered rules first, then a word, an integer or a boolean looked up in a map."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from service.providers.declared.document import Document
from service.providers.declared.expressions import Expression
from service.providers.declared.schema import Rule, State

WORD_MAX = 64


class Found(NamedTuple):
    """The state, None if the reply has none; `unknown` is a word that the declaration does not list."""

    state: State | None
    unknown: str | None = None


def read_state(
    rules: Sequence[Rule], state: Expression | None, states: Mapping[str, State], document: Document
) -> Found:
    for rule in rules:
        if rule.when.holds(document):
            return Found(rule.is_)
    if state is None:
        return Found("running" if document.values["body"] is not None else None)
    word = as_word(state.find(document))
    if word is None:
        return Found(None)
    known = {name.lower(): found for name, found in states.items()}.get(word.lower())
    return Found(known or "running", None if known else word[:WORD_MAX])


def as_word(value: Any) -> str | None:
    """`2` for 2, `true` for true; None for what is no word."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, str | int | float) and value != "" else None
