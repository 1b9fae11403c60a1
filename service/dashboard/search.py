"""The search box of the task list: `name:value` narrows by columns, `key=value` by metadata, the rest by prompt."""

import re
from collections.abc import Container
from datetime import datetime
from typing import get_args

import msgspec

from service.core.problems import InvalidRequest
from service.core.task import Status
from service.store.queries import TaskFilter
from service.web.calls import ID_SHAPES
from service.web.queries import read_model, read_time

NAMES = ("status", "provider", "account", "model", "id", "after", "before")
TEXT_MAX = 300
WORDS_MAX = 8
_TOKEN = re.compile(r'(?:(?P<name>[a-z]+):)?(?:"(?P<quoted>[^"]*)"?|(?P<plain>\S+))')
_PAIR = re.compile(r'(?P<key>[^\s="]{1,64})=(?:"(?P<quoted>[^"]*)"?|(?P<plain>\S*))')


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed search: `words` are searched in prompts, `said` describes it, `wrong` lists what was not understood."""

    filter: TaskFilter
    words: tuple[str, ...] = ()
    task_id: str | None = None
    said: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()

    @property
    def lone_word(self) -> str | None:
        """It may be the id that a provider gave."""
        return self.words[0] if len(self.words) == 1 and " " not in self.words[0] else None


class _Reader:
    def __init__(self) -> None:
        self.given: dict[str, str] = {}
        self.metadata: dict[str, str] = {}
        self.words: list[str] = []

    def read(self, text: str) -> None:
        at = 0
        while at < len(text):
            if text[at].isspace():
                at += 1
                continue
            if pair := _PAIR.match(text, at):
                self.metadata[pair["key"].removeprefix("metadata.")] = _value(pair)
                at = pair.end()
                continue
            token = _TOKEN.match(text, at)
            if token is None:
                break
            self._take(token["name"], _value(token))
            at = max(token.end(), at + 1)

    def _take(self, name: str | None, value: str) -> None:
        if name in NAMES and value:
            self.given[name] = value
        elif name is not None:
            self.words.append(f"{name}:{value}")
        elif value:
            self.words.append(value)


def read_search(text: str, known: Container[str], status: str = "", provider: str = "") -> Asked:
    """`known` are the providers; `status` and `provider` are the selects next to the box; a token in the box wins."""
    reader = _Reader()
    reader.read(text[:TEXT_MAX])
    beside = {"status": status, "provider": provider}
    given = {**{name: value for name, value in beside.items() if value}, **reader.given}
    wrong: list[str] = []
    if given.get("status") not in (None, *get_args(Status)):
        wrong.append(f"There is no status {given.pop('status')}: it is one of {', '.join(get_args(Status))}.")
    times = {name: _time(given, name, wrong) for name in ("after", "before")}
    task_id = given.pop("id", None) or next((word for word in reader.words if ID_SHAPES["task"].fullmatch(word)), None)
    words = tuple(word for word in reader.words if word != task_id)[:WORDS_MAX]
    named, model = read_model(given.get("model"), given.get("provider"), known)
    wanted = TaskFilter(
        status=given.get("status"),
        provider=named,
        account=given.get("account"),
        model=model,
        metadata=reader.metadata,
        created_after=times["after"],
        created_before=times["before"],
    )
    said = [f"{name} {value}" for name, value in given.items()]
    said += [f"metadata {key} = {value}" for key, value in reader.metadata.items()]
    said += [f"prompt has “{word}”" for word in words]
    return Asked(filter=wanted, words=words, task_id=task_id, said=tuple(said), wrong=tuple(wrong))


def _value(found: re.Match[str]) -> str:
    return found["quoted"] if found["quoted"] is not None else found["plain"] or ""


def _time(given: dict[str, str], name: str, wrong: list[str]) -> datetime | None:
    try:
        return read_time(given.get(name), "query", name)
    except InvalidRequest as problem:
        wrong.append(f"{name}:{given.pop(name)} {problem.errors[0].msg}.")
        return None
