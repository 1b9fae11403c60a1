"""Checks of an input against the declared limits of a model; each message says what is allowed."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from service.core.problems import FieldError
from service.core.task import TaskInput
from service.providers.base import Model, Option, PixelRange, is_too_deep, is_web_url

PIXELS = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})", re.ASCII)
TYPES: dict[str, tuple[str, tuple[type, ...]]] = {
    "boolean": ("true or false", (bool,)),
    "integer": ("an integer", (int,)),
    "number": ("a number", (int, float)),
    "string": ("a string", (str,)),
}


def check_declared(model: Model, task_input: TaskInput, reserved: frozenset[str] = frozenset()) -> list[FieldError]:
    """Every field that this model does not take as given; `reserved` names the options that are Taskhook's to set."""
    return [
        *_check_prompt(model, task_input.prompt),
        *_check_accepted(model, task_input),
        *_check_aspect_ratio(model, task_input.aspect_ratio),
        *_check_size(model, task_input),
        *_check_count(model, task_input),
        *_check_picture(model, task_input.image_url),
        *_check_format(model, task_input.output_format),
        *_check_translation(model, task_input.translate),
        *_check_options(model, task_input, reserved),
    ]


def _error(msg: str, *path: str) -> FieldError:
    return FieldError(loc=["body", "input", *path], msg=msg)


def _check_accepted(model: Model, task_input: TaskInput) -> Iterator[FieldError]:
    """Fields that would reach nobody, and those that the model can't do without."""
    for name in task_input.__struct_fields__:
        value = getattr(task_input, name)
        is_given = value not in (None, "", [], {}) and not (name == "n" and value == 1)
        field = "image_urls" if name == "image_url" else name
        if is_given and model.accepts is not None and field not in model.accepts and name != "options":
            yield _error("is not supported by this model; leave it out", name)
        if not is_given and field in model.requires and name not in ("prompt", "n"):
            yield _error("is required for this model", name)


def _allows_any(model: Model, choices: Sequence[object]) -> bool:
    """Whether any value is allowed: the field reaches the provider and no choices are declared."""
    return model.accepts is not None and not choices


def _check_prompt(model: Model, prompt: str) -> Iterator[FieldError]:
    if "prompt" not in model.requires and not prompt:
        return
    if not prompt.strip():
        yield _error("must not be blank", "prompt")
    elif not _is_encodable(prompt):
        yield _error("must be text that UTF-8 can carry: it holds lone surrogates", "prompt")


def _check_choice(name: str, value: str | None, allowed: Sequence[str], otherwise: str) -> Iterator[FieldError]:
    if value is None or value in allowed:
        return
    if allowed:
        yield _error(f"must be one of {', '.join(allowed)}", name)
    else:
        yield _error(f"is not supported by this model; {otherwise}", name)


def _check_aspect_ratio(model: Model, value: str | None) -> Iterator[FieldError]:
    if _allows_any(model, model.aspect_ratios):
        return
    sizes = _describe_sizes(model)
    otherwise = f"give size: {sizes}" if sizes else "leave it out"
    yield from _check_choice("aspect_ratio", value, model.aspect_ratios, otherwise)


def _check_size(model: Model, task_input: TaskInput) -> Iterator[FieldError]:
    size = task_input.size
    if size is None or _allows_any(model, (*model.sizes, *([model.pixels] if model.pixels else []))):
        return
    allowed = _describe_sizes(model)
    if not allowed:
        ratios = ", ".join(model.aspect_ratios)
        otherwise = f"give aspect_ratio: one of {ratios}" if ratios else "leave it out"
        yield _error(f"is not supported by this model; {otherwise}", "size")
    elif size not in model.sizes and not _fits(size, model.pixels):
        yield _error(f"must be {allowed}", "size")
    elif task_input.aspect_ratio in model.aspect_ratios:
        yield _error("give size or aspect_ratio, not both", "size")


def _describe_sizes(model: Model) -> str:
    forms = []
    if model.sizes:
        forms.append("one of " + ", ".join(model.sizes))
    if model.pixels is not None:
        forms.append(describe_pixels(model.pixels))
    return ", or ".join(forms)


def describe_pixels(pixels: PixelRange) -> str:
    limit = f"of at least {pixels.minimum}" if pixels.maximum is None else f"from {pixels.minimum} to {pixels.maximum}"
    return f"WIDTHxHEIGHT with each side {limit} pixels and a multiple of {pixels.multiple}"


def _fits(size: str, pixels: PixelRange | None) -> bool:
    sides = PIXELS.fullmatch(size)
    if sides is None or pixels is None:
        return False
    return all(_side_fits(int(side), pixels) for side in sides.groups())


def _side_fits(side: int, pixels: PixelRange) -> bool:
    return side >= pixels.minimum and side <= (pixels.maximum or side) and side % pixels.multiple == 0


def _check_count(model: Model, task_input: TaskInput) -> Iterator[FieldError]:
    editing = task_input.image_url is not None
    limit = model.max_images_edit if editing else model.max_images
    if 1 <= task_input.n <= limit:
        return
    allowed = "1" if limit == 1 else f"from 1 to {limit}"
    yield _error(f"must be {allowed} for this model{' when image_url is given' if editing else ''}", "n")


def _check_picture(model: Model, url: str | None) -> Iterator[FieldError]:
    if url is None:
        return
    if not model.edits:
        yield _error("is not supported by this model, which makes pictures from text alone; leave it out", "image_url")
    elif not is_web_url(url):
        yield _error("must be an absolute http or https URL", "image_url")


def _check_format(model: Model, value: str | None) -> Iterator[FieldError]:
    if not _allows_any(model, model.output_formats):
        yield from _check_choice("output_format", value, model.output_formats, "leave it out")


def _check_translation(model: Model, translate: bool | None) -> Iterator[FieldError]:
    if translate and not model.translates:
        yield _error("is not supported by this model; leave it out and write the prompt in English", "translate")


def _check_options(model: Model, task_input: TaskInput, reserved: frozenset[str]) -> Iterator[FieldError]:
    if not task_input.options:
        return
    declared = {option.name: option for option in model.options}
    taken = {_plain(name) for name in reserved}
    for name, value in task_input.options.items():
        if not _is_encodable({name: value}):
            yield _error("must be JSON that UTF-8 can carry, no deeper than 100 levels", "options", _readable(name))
        elif _plain(name) in taken:
            yield _error("is set by Taskhook from the other fields; leave it out of options", "options", name)
        elif name in declared:
            yield from _check_option(declared[name], value, editing=task_input.image_url is not None)


def _check_option(option: Option, value: Any, *, editing: bool) -> Iterator[FieldError]:
    maximum = option.maximum_edit if editing and option.maximum_edit is not None else option.maximum
    if _has_type(option, value) and _in_range(value, option.minimum, maximum) and _is_chosen(option, value):
        return
    limits = [TYPES[option.type][0]]
    if option.minimum is not None:
        limits.append(f"from {option.minimum:g}")
    if maximum is not None:
        limits.append(f"to {maximum:g}")
    if option.choices:
        limits.append(f"out of {', '.join(option.choices)}")
    where = " when image_url is given" if maximum != option.maximum else ""
    yield _error(f"must be {' '.join(limits)}{where}", "options", option.name)


def _has_type(option: Option, value: Any) -> bool:
    return isinstance(value, TYPES[option.type][1]) and (option.type == "boolean" or not isinstance(value, bool))


def _in_range(value: Any, minimum: float | None, maximum: float | None) -> bool:
    return (minimum is None or value >= minimum) and (maximum is None or value <= maximum)


def _is_chosen(option: Option, value: Any) -> bool:
    return not option.choices or value in option.choices


def _plain(name: str) -> str:
    """`callBackUrl`, `callback_url` and `CALLBACK-URL` are one name, as some servers read them."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _is_encodable(value: Any) -> bool:
    if is_too_deep(value):
        return False
    try:
        msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return False
    return True


def _readable(name: str) -> str:
    return name.encode("utf-8", "replace").decode()
