"""Checks across the tables of a declaration: what one key says must fit what the others say."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from service.providers.declared.bodies import TemplateTree
from service.providers.declared.converting import Fault, hint
from service.providers.declared.document import INPUT_FIELDS
from service.providers.declared.hosts import is_host, is_url
from service.providers.declared.positions import Path
from service.providers.declared.schema import Auth, Declaration, Fetch, ModelTable, Verify
from service.providers.declared.templates import Template, WrongTemplateError

ID_SHAPE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", re.ASCII)
SECRET_NAME = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
MODEL_KEYS = frozenset(ModelTable.__struct_fields__) - {"variables"}
ALWAYS = frozenset({"now"})
IN_SUBMIT = frozenset({"model", "callback_url", "token", "reference", "id"})
AFTER_SUBMIT = frozenset({"model", "reference", "id"})


def check(it: Declaration) -> Iterator[Fault]:
    """Everything that is wrong with a declaration whose tables are well-formed."""
    yield from _check_identity(it)
    yield from _check_auth(it)
    yield from _check_calls(it)
    yield from _check_callback(it)
    yield from _check_headers(it)
    yield from _check_templates(it)
    yield from _check_models(it)
    yield from _check_supported(it)


def _check_supported(it: Declaration) -> Iterator[Fault]:
    """Refuse what would lose a paid result, instead of ignoring it."""
    unsupported: dict[Path, bool] = {
        ("result", "encoding"): it.result.encoding != "url",
        ("result", "link_auth"): it.result.link_auth,
        ("submit", "own_id"): it.submit.own_id is not None,
        ("lookup",): it.lookup is not None,
    }
    yield from (Fault(path, "is not supported yet") for path, is_used in unsupported.items() if is_used)


# --- names and addresses ----------------------------------------------------------------------------------------------


def _check_identity(it: Declaration) -> Iterator[Fault]:
    if not ID_SHAPE.fullmatch(it.id):
        yield Fault(("id",), f"{it.id!r} is no provider id; use lower-case words joined by hyphens")
    urls: dict[Path, str] = {("base_url",): it.base_url} | {("regions", name): url for name, url in it.regions.items()}
    for path, url in urls.items():
        if not is_url(url):
            yield Fault(path, f"{url!r} is no absolute http or https URL")
    for number, entry in enumerate(it.hosts):
        if not is_host(entry):
            yield Fault(("hosts", number), f"{entry!r} is no host; write name, *.name or name:port in lower case")
    for number, name in enumerate(it.secrets):
        if not SECRET_NAME.fullmatch(name) or name in ALWAYS | IN_SUBMIT | {"minted"}:
            yield Fault(("secrets", number), f"{name!r} can't be the name of a secret; use a word like webhook_secret")


def _check_auth(it: Declaration) -> Iterator[Fault]:
    for number, auth in enumerate(it.auth):
        for message in _auth_problems(auth):
            yield Fault(("auth", number), message)
        for key, name in (("signing_secret", auth.signing_secret), ("when_secret", auth.when_secret)):
            yield from _check_secret(it, ("auth", number, key), name)


def _auth_problems(auth: Auth) -> Iterator[str]:
    if (auth.header is None) == (auth.query is None):
        yield "needs either header or query, which says where the credential is sent"
    if auth.value is None and auth.mint is None:
        yield 'needs value, such as value = "Bearer {key}"'
    if (auth.mint is None) != (auth.signing_secret is None):
        yield "needs mint and signing_secret together"


def _check_secret(it: Declaration, path: Path, name: str | None) -> Iterator[Fault]:
    if name is not None and name not in it.secrets:
        yield Fault(path, f"{name} is not in secrets{hint(name, it.secrets)}")


# --- calls ------------------------------------------------------------------------------------------------------------


def _check_calls(it: Declaration) -> Iterator[Fault]:
    submit, poll, result = it.submit, it.poll, it.result
    if submit.id is None and submit.own_id is None and submit.final is None:
        yield Fault(("submit",), "needs id, own_id or final: otherwise no task could be followed")
    if submit.retry == "same_id" and submit.own_id is None:
        yield Fault(("submit", "retry"), "same_id needs own_id")
    if poll is not None and poll.none == (poll.path is not None or poll.url is not None):
        yield Fault(("poll",), "needs path or url, or none = true if the provider can't be polled")
    if result.fetch is not None:
        yield from _check_address(("result", "fetch"), result.fetch)
    if (
        result.urls is None
        and result.encoding != "bytes"
        and not all(m.result.urls for m in it.models.entries.values())
    ):
        yield Fault(("result",), "needs urls, an expression that finds the outputs")
    if it.cancel and (it.cancel.method != "none") != bool(it.cancel.path or it.cancel.url):
        yield Fault(("cancel",), 'needs path or url, or method = "none"')
    if it.lookup and submit.reference is None:
        yield Fault(("lookup",), "needs submit.reference, the field in which the provider gets our id")


def _check_address(path: Path, call: Fetch) -> Iterator[Fault]:
    if call.path is None and call.url is None:
        yield Fault(path, "needs path or url")


def is_polled(it: Declaration) -> bool:
    return it.poll is not None and not it.poll.none


def _check_callback(it: Declaration) -> Iterator[Fault]:
    callback = it.callback
    if not is_polled(it):
        hints = {"thin": callback.thin, "trust": callback.trust == "hint", "result_missing": callback.result_missing}
        for key in (key for key, value in hints.items() if value):
            yield Fault(("callback", key), "needs [poll]: the result has to be fetched")
    if callback.place.kind == "account" and callback.verify is None:
        yield Fault(
            ("callback", "place"), "account needs [callback.verify]: its URL names no task, so only a signature counts"
        )
    if callback.place.kind == "account" and callback.id is None and callback.reference is None:
        yield Fault(("callback", "place"), "account needs callback.id or callback.reference, or no task could be found")
    if callback.verify is not None:
        yield from _check_verify(it, callback.verify)


def _check_verify(it: Declaration, verify: Verify) -> Iterator[Fault]:
    path: Path = ("callback", "verify")
    if verify.algorithm != "equals" and verify.message is None:
        yield Fault(path, "needs message, the text that is signed")
    if verify.message and verify.message.has_timestamp and verify.timestamp is None:
        yield Fault(path, "needs timestamp, since message contains {timestamp}")
    if (verify.algorithm == "ed25519") != (verify.keys is not None):
        yield Fault(path, "needs keys.jwks for ed25519, and only for it")
    if verify.keys and not is_url(verify.keys.jwks):
        yield Fault((*path, "keys", "jwks"), f"{verify.keys.jwks!r} is no absolute http or https URL")
    if verify.algorithm != "ed25519":
        yield from _check_secret(it, (*path, "when_secret"), verify.when_secret or verify.secret)


def _check_headers(it: Declaration) -> Iterator[Fault]:
    tables: dict[Path, Mapping[str, Template]] = {("headers",): it.headers, ("submit", "headers"): it.submit.headers}
    if it.poll:
        tables["poll", "headers"] = it.poll.headers
    if it.result.fetch:
        tables["result", "fetch", "headers"] = it.result.fetch.headers
    named = [((*path, name), name) for path, table in tables.items() for name in table]
    named += [(("auth", number, "header"), auth.header) for number, auth in enumerate(it.auth) if auth.header]
    for path, name in named:
        if not HEADER_NAME.fullmatch(name):
            yield Fault(path, f"{name!r} is no header name")


# --- templates --------------------------------------------------------------------------------------------------------


def _check_templates(it: Declaration) -> Iterator[Fault]:
    for path, template, known in _templates(it):
        try:
            template.check(known)
        except WrongTemplateError as error:
            yield Fault(path, str(error))
    for path, name in _remembered_names(it):
        if name in ALWAYS | IN_SUBMIT | set(it.secrets):
            yield Fault(path, f"{name} has a meaning already; remember it under another name")


def remembered(it: Declaration) -> frozenset[str]:
    return frozenset(name for _, name in _remembered_names(it))


def _remembered_names(it: Declaration) -> Iterator[tuple[Path, str]]:
    tables = {
        "submit": it.submit.remember,
        "callback": it.callback.remember,
        "poll": it.poll.remember if it.poll else {},
    }
    for table, names in tables.items():
        for name in names:
            yield (table, "remember", name), name


def _templates(it: Declaration) -> Iterator[tuple[Path, Template, frozenset[str]]]:
    """Every template, with the names that have a value where it is filled."""
    always = ALWAYS | set(it.secrets)
    variables = {name for model in it.models.entries.values() for name in model.variables}
    in_submit = always | variables | (IN_SUBMIT if it.submit.own_id else IN_SUBMIT - {"id"})
    later = always | variables | AFTER_SUBMIT | remembered(it)
    tables: list[tuple[Path, msgspec.Struct | None, frozenset[str]]] = [
        (("submit",), it.submit, in_submit),
        (("callback",), it.callback, in_submit),
        (("poll",), it.poll, later),
        (("result", "fetch"), it.result.fetch, later),
        (("cancel",), it.cancel, later),
        (("lookup",), it.lookup, later - {"id"} - remembered(it)),
        (("check",), it.check, always),
        *((("models", name), model, in_submit) for name, model in it.models.entries.items()),
        *((("auth", number), auth, always | {"minted"}) for number, auth in enumerate(it.auth)),
    ]
    yield from ((("headers", name), template, always) for name, template in it.headers.items())
    for path, table, known in tables:
        for where, template in _templates_in(table, path):
            yield where, template, known


def _templates_in(value: Any, path: Path) -> Iterator[tuple[Path, Template]]:
    if isinstance(value, Template):
        yield path, value
    elif isinstance(value, TemplateTree):
        yield from ((path, template) for template in value.templates)
    elif isinstance(value, dict):
        for key, child in value.items():
            yield from _templates_in(child, (*path, str(key)))
    elif isinstance(value, msgspec.Struct) and not isinstance(value, Verify):
        for name, key in zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True):
            yield from _templates_in(getattr(value, name), (*path, key))


# --- models -----------------------------------------------------------------------------------------------------------


def _check_models(it: Declaration) -> Iterator[Fault]:
    used = {name for _, template, _ in _templates(it) for name in template.names}
    needed = {path for path in (it.submit.path, it.poll and it.poll.path) if isinstance(path, Template)}
    for name, model in it.models.entries.items():
        path: Path = ("models", name)
        for variable in sorted(set(model.variables) - used):
            yield Fault((*path, variable), f"unknown key, and no template uses it{hint(variable, MODEL_KEYS)}")
        for key, fields in (("requires", model.requires), ("accepts", model.accepts or ())):
            yield from _check_fields((*path, key), fields)
        missing = {word for template in needed for word in template.names} & _variables(it) - set(model.variables)
        if missing and not is_pattern(name) and model.path is None:
            yield Fault(path, f"needs {', '.join(sorted(missing))}, which a path uses")


def is_pattern(name: str) -> bool:
    return "*" in name


def _variables(it: Declaration) -> set[str]:
    return {name for model in it.models.entries.values() for name in model.variables}


def _check_fields(path: Path, names: Iterable[str]) -> Iterator[Fault]:
    for number, name in enumerate(names):
        if name not in INPUT_FIELDS:
            yield Fault((*path, number), f"{name!r} is no field of an input{hint(name, INPUT_FIELDS)}")
