"""Requests of a declared provider: submit, poll, fetch, cancel and check, with their bodies and credentials."""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, Literal
from urllib.parse import quote, urlencode

import msgspec

from service.core.account import Account
from service.core.task import Task, TaskInput
from service.providers.base import POLL_TIMEOUT_S, USER_AGENT, CallError, HttpRequest
from service.providers.declared.bodies import BodyPath, TemplateTree, encode_json, encode_multipart, merge, put
from service.providers.declared.document import INPUT_FIELDS, Document
from service.providers.declared.hosts import Hosts
from service.providers.declared.schema import Auth, Declaration, ModelTable, Overlay
from service.providers.declared.signatures import mint_hs256
from service.providers.declared.templates import Template, Values

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A request before its templates are filled. `path` is used if `url` is absent or refused."""

    method: Method
    path: Template | None = None
    url: Template | None = None
    query: Mapping[str, Template] = {}
    headers: Mapping[str, Template] = {}
    body: tuple[bytes, str] | None = None
    timeout_s: float = POLL_TIMEOUT_S


class Calls:
    """Builds the requests of one declaration at one time."""

    def __init__(self, declaration: Declaration, now: datetime) -> None:
        self._it = declaration
        self._now = int(now.timestamp())

    def submit(self, task: Task, account: Account, callback_url: str | None) -> HttpRequest:
        """Raise CallError if the model's name does not fit into the path."""
        submit, model = self._it.submit, find_model(self._it, task.model)
        values = self._values(task, account) | {
            "callback_url": callback_url,
            "token": callback_url.rpartition("/")[2] if callback_url else None,
        }
        overlay = submit.with_images if submit.with_images and _images(task.input) else Overlay()
        path = model.path or overlay.path or submit.path
        query, headers = dict(submit.query), dict(submit.headers)
        place = self._it.callback.place
        if callback_url and place.kind in ("query", "header"):
            target = query if place.kind == "query" else headers
            target[place.name] = Template("{callback_url}")
        body = self._body(task, model, overlay, values, callback_url)
        encode = encode_multipart if submit.encoding == "multipart" else encode_json
        call = Call(
            method=submit.method,
            path=path,
            query=query,
            headers=headers,
            body=encode([body] if submit.wrap else body),  # type: ignore[arg-type]
            timeout_s=submit.timeout_s,
        )
        return self._request(call, account, values)

    def poll(self, task: Task, account: Account, step: str) -> HttpRequest:
        """Raise CallError if no allowed URL leads to the task."""
        values = self._values(task, account)
        table = self._it.result.fetch if step == "result" else self._it.poll
        if table is None:
            raise CallError("the declaration has no such call")
        body = _fill(table.body, values)
        method: Method = table.method or ("POST" if body else "GET")
        call = Call(
            method=method,
            path=table.path,
            url=table.url,
            query=table.query,
            headers=table.headers,
            body=encode_json(body) if body else None,
        )
        return self._request(call, account, values)

    def cancel(self, task: Task, account: Account) -> HttpRequest | None:
        """None if the provider can't cancel. Raise CallError if no allowed URL leads to the task."""
        cancel = self._it.cancel
        if cancel is None or cancel.method == "none":
            return None
        values = self._values(task, account)
        body = _fill(cancel.body, values)
        encoded = encode_json(body) if body else None
        call = Call(method=cancel.method, path=cancel.path, url=cancel.url, query=cancel.query, body=encoded)
        return self._request(call, account, values)

    def check(self, account: Account) -> HttpRequest | None:
        if self._it.check is None:
            return None
        check, values = self._it.check, self._always(account)
        body = _fill(check.body, values)
        call = Call(method=check.method, path=check.path, query=check.query, body=encode_json(body) if body else None)
        return self._request(call, account, values)

    # --- values and bodies --------------------------------------------------------------------------------------------

    def _always(self, account: Account) -> dict[str, str | None]:
        return {**account.secrets, "now": str(self._now)}

    def _values(self, task: Task, account: Account) -> dict[str, str | None]:
        model = find_model(self._it, task.model)
        variables = {name: str(value) for name, value in model.variables.items()}
        return {
            **task.links,
            **variables,
            **self._always(account),
            "model": model.alias or task.model,
            "reference": task.id,
            "id": task.provider_task_id or (own_id(task) if self._it.submit.own_id else None),
        }

    def _body(
        self, task: Task, model: ModelTable, overlay: Overlay, values: Values, callback_url: str | None
    ) -> dict[str, Any]:
        submit, body = self._it.submit, dict[str, Any]()
        given = read_input(task.input, model)
        document = Document({"input": given, "model": values["model"], "task": {"id": task.id}})
        rules = submit.map | overlay.map
        for path, expression in rules.items():
            put(body, path, expression.find(document))
        if not rules:
            for name, value in given.items():
                put(
                    body,
                    BodyPath((*submit.input, name)),
                    None if value == [] or (name == "n" and value == 1) else value,
                )
        constants = submit.set | overlay.set | model.set | (self._it.callback.set if callback_url else {})
        for path, tree in constants.items():
            put(body, path, tree.fill(values))
        defaults = {name: value for name, value in model.defaults.items() if name not in INPUT_FIELDS}
        merge(_member(body, submit.input), defaults | task.input.options)
        if submit.reference:
            put(body, submit.reference, task.id)
        if self._it.callback.place.kind == "body":
            put(body, self._it.callback.place.path, callback_url)
        return body

    # --- the request itself -------------------------------------------------------------------------------------------

    def _request(self, call: Call, account: Account, values: Values) -> HttpRequest:
        always = self._always(account)
        headers = {"accept": "application/json", "user-agent": USER_AGENT}
        if call.body is not None:
            headers["content-type"] = call.body[1]
        headers |= _fill_headers(self._it.headers, always) | _fill_headers(call.headers, values)
        query = {name: text for name, template in call.query.items() if (text := template.fill(values)) is not None}
        self._authenticate(account, headers, query)
        url = self._url(call, account, values)
        if query:
            url += ("&" if "?" in url else "?") + urlencode(query, quote_via=quote)
        body = call.body[0] if call.body else None
        return HttpRequest(method=call.method, url=url, headers=headers, body=body, timeout_s=call.timeout_s)

    def _url(self, call: Call, account: Account, values: Values) -> str:
        hosts, refusal = Hosts(self._it.hosts, self._it.base_url, account.base_url), "its address is not known"
        if call.url is not None:
            whole = call.url.only_name
            url = values.get(whole) if whole else call.url.fill_path(values)
            problem = hosts.refusal(url) if url else refusal
            if url and not problem:
                return url
            refusal = problem or refusal
        path = call.path.fill_path(values) if call.path else None
        if path is None:
            raise CallError(refusal)
        url = account.base_url.rstrip("/") + path
        if problem := hosts.refusal(url):
            raise CallError(problem)
        return url

    def _authenticate(self, account: Account, headers: dict[str, str], query: dict[str, str]) -> None:
        """The first entry of `[auth]` whose secrets the account has."""
        for auth in self._it.auth:
            if auth.when_secret is None or auth.when_secret in account.secrets:
                values = self._always(account) | {"minted": self._mint(auth, account)}
                template = auth.value or Template("{minted}")
                if auth.header:
                    headers[auth.header.lower()] = template.fill_header(values) or ""
                elif auth.query:
                    query[auth.query] = template.fill(values) or ""
                return

    def _mint(self, auth: Auth, account: Account) -> str | None:
        """A token made for each call; that costs two microseconds."""
        if auth.mint is None or auth.signing_secret is None:
            return None
        texts = {name: template.fill(self._always(account)) or "" for name, template in auth.claims.items()}
        claims = {name: self._now + int(text) if _is_offset(text) else text for name, text in texts.items()}
        return mint_hs256(claims, account.secrets.get(auth.signing_secret, ""))


def find_model(it: Declaration, name: str) -> ModelTable:
    """The model's table, that of the first pattern that fits, or an empty one."""
    entries = it.models.entries
    if name in entries:
        return entries[name]
    return next(
        (model for pattern, model in entries.items() if "*" in pattern and fnmatchcase(name, pattern)), ModelTable()
    )


def own_id(task: Task) -> str:
    """A UUID of version 4 made from the task's id, so that every process finds the same."""
    digits = hashlib.sha256(task.id.encode()).hexdigest()
    return (
        f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{'89ab'[int(digits[16], 16) % 4]}{digits[17:20]}-{digits[20:32]}"
    )


def read_input(given: TaskInput, model: ModelTable) -> dict[str, Any]:
    """The input as expressions see it: every field, with the model's defaults for those that are null."""
    fields = {name: getattr(given, name, None) for name in INPUT_FIELDS}
    fields["image_urls"] = _images(given)
    defaults = {name: value for name, value in model.defaults.items() if name in fields}
    return fields | {name: value for name, value in defaults.items() if fields[name] in (None, [])}


def _images(given: TaskInput) -> list[str]:
    urls = getattr(given, "image_urls", None) or ([given.image_url] if getattr(given, "image_url", None) else [])
    return list(urls)


def _member(body: dict[str, Any], path: BodyPath) -> dict[str, Any]:
    """The object at this path; it is made if there is none."""
    place: Any = body
    for step in path:
        if isinstance(place, dict) and not isinstance(place.get(step), dict | list):
            put(body, path, {})
            return _member(body, path)
        place = place[step]
    return place  # type: ignore[no-any-return]


def _fill(tables: Mapping[BodyPath, TemplateTree], values: Values) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for path, tree in tables.items():
        put(body, path, tree.fill(values))
    return body


def _fill_headers(templates: Mapping[str, Template], values: Values) -> dict[str, str]:
    filled = {name.lower(): template.fill_header(values) for name, template in templates.items()}
    return {name: value for name, value in filled.items() if value is not None}


def _is_offset(text: str) -> bool:
    return text[:1] in ("+", "-") and text[1:].isdigit()
