"""The models of a declaration as capabilities: what the API, the checks and the pages know of a provider."""

import re
from collections.abc import Iterator

from service.core.account import NO_LIMITS, Limits
from service.core.problems import FieldError
from service.providers.base import Capabilities, Model, Option, PixelRange, Secret
from service.providers.declared.document import INPUT_FIELDS
from service.providers.declared.schema import Declaration, ModelTable, OptionTable

NAME_MAX = 200
_NAME = re.compile(r"[A-Za-z0-9][\w.:@+-]*(/[A-Za-z0-9][\w.:@+-]*)*", re.ASCII)


def build_capabilities(it: Declaration) -> Capabilities:
    polling = it.poll is not None and not it.poll.none
    callbacks = it.callback.place.kind not in ("none", "account")
    declared = {name: table for name, table in it.models.entries.items() if "*" not in name}
    return Capabilities(
        callbacks=callbacks,
        polling=polling,
        blocking=it.submit.id is None and it.submit.own_id is None,
        base_url=it.base_url,
        models=tuple(_build_model(it, name, table) for name, table in declared.items()),
        open_model=_open_model(it) if is_open(it) else None,
        limits=_build_limits(it),
        submit_timeout_s=it.submit.timeout_s,
        result_life_s=it.result.link_ttl_s,
        reserved_options=reserved_options(it),
        secrets=tuple(Secret(name=name, required=name not in optional_secrets(it)) for name in it.secrets),
        callback_methods=it.callback.methods,
        callback_answer=(it.callback.answer.status, it.callback.answer.body),
        simulated=False,
        poll_first_s=max(it.poll.every_s or 0, it.poll.min_every_s or 0) or None if it.poll else None,
        poll_max_s=it.poll.max_every_s if it.poll else None,
    )


def is_open(it: Declaration) -> bool:
    """A declaration without models accepts any name, as one that says `open = true`."""
    return it.models.open or not it.models.entries or any("*" in name for name in it.models.entries)


def check_model(name: str) -> Iterator[FieldError]:
    """A name goes into paths, so an undeclared one has letters, digits and few signs."""
    if len(name) > NAME_MAX or not _NAME.fullmatch(name):
        yield FieldError(loc=["body", "model"], msg="must be words of letters, digits and . _ : @ + - joined by /")


def optional_secrets(it: Declaration) -> set[str]:
    recipe = it.callback.verify
    names = {auth.when_secret for auth in it.auth} | {recipe.when_secret if recipe else None}
    return {name for name in names if name}


def reserved_options(it: Declaration) -> frozenset[str]:
    """Members of the body that Taskhook fills: an option may not replace them."""
    depth, prefix = len(it.submit.input), tuple(it.submit.input)
    paths = [*it.submit.map, *(it.submit.with_images.map if it.submit.with_images else ())]
    paths += [path for path, tree in it.submit.set.items() if tree.names]
    paths += [path for path in (it.callback.place.path, it.submit.reference) if path]
    inside = [path[depth] for path in paths if tuple(path[:depth]) == prefix and len(path) > depth]
    return frozenset(step for step in inside if isinstance(step, str))


def _build_limits(it: Declaration) -> Limits:
    rate, in_flight = it.limits.submits, it.limits.in_flight
    return Limits(
        submits=rate.count if rate else NO_LIMITS.submits,
        window_s=rate.per_s if rate else NO_LIMITS.window_s,
        max_in_flight=in_flight or NO_LIMITS.max_in_flight,
    )


def mapped_fields(it: Declaration) -> frozenset[str]:
    """Fields of the input that reach the provider; all of them if nothing is mapped."""
    maps = [it.submit.map, *([it.submit.with_images.map] if it.submit.with_images else [])]
    expressions = [expression for table in maps for expression in table.values()]
    read = {name for expression in expressions for name in expression.reads("input")}
    return frozenset(read if expressions else INPUT_FIELDS)


def _open_model(it: Declaration) -> Model:
    return Model(name="*", requires=(), accepts=mapped_fields(it), max_images=100, max_images_edit=100, edits=True)


def _build_model(it: Declaration, name: str, table: ModelTable) -> Model:
    accepts = mapped_fields(it) if table.accepts is None else frozenset(table.accepts)
    pixels = table.pixels
    return Model(
        name=name,
        requires=table.requires,
        accepts=accepts | set(table.requires),
        aspect_ratios=table.aspect_ratios,
        sizes=table.sizes,
        pixels=PixelRange(minimum=pixels.minimum, maximum=pixels.maximum, multiple=pixels.multiple) if pixels else None,
        max_images=table.n_max,
        max_images_edit=table.n_max_edit or table.n_max,
        edits=table.edits or "image_urls" in table.requires,
        output_formats=table.output_formats,
        translates="translate" in accepts,
        options=tuple(_build_option(key, option) for key, option in table.options.items()),
    )


def _build_option(name: str, table: OptionTable) -> Option:
    return Option(
        name=name,
        type=table.type,
        minimum=table.minimum,
        maximum=table.maximum,
        maximum_edit=table.maximum_edit,
        choices=table.choices,
        note=table.note,
    )
