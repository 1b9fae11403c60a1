"""The parameters of a model as fields of a form, from its declared limits alone; and the form as a request."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from service.core.views import TaskView
from service.dashboard.forms import number_or_text
from service.providers.base import Model, Option
from service.providers.checks import describe_pixels

Kind = Literal["text", "area", "number", "choice", "url"]
FLAG = ("true", "false")
INPUT = "input."
OPTIONS = "input.options."


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A form field. `name` is its path in errors of the API; `suggestions` are values that a text field offers."""

    name: str
    label: str
    kind: Kind = "text"
    choices: tuple[str, ...] = ()
    suggestions: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    step: str = "any"
    hint: str = ""
    required: bool = False


def parameters_of(model: Model) -> list[Parameter]:
    """Return the parameters of a model, common names first."""
    return [*_common(model), *(_option(option) for option in model.options)]


def _common(model: Model) -> Iterator[Parameter]:
    yield Parameter(name=INPUT + "prompt", label="Prompt", kind="area", required=True)
    if model.edits:
        hint = "A picture makes it an edit."
        yield Parameter(name=INPUT + "image_url", label="Picture to edit", kind="url", hint=hint)
    if model.aspect_ratios:
        yield Parameter(name=INPUT + "aspect_ratio", label="Aspect ratio", kind="choice", choices=model.aspect_ratios)
    if model.pixels is not None:
        hint = describe_pixels(model.pixels)
        yield Parameter(name=INPUT + "size", label="Size", suggestions=model.sizes, hint=hint)
    elif model.sizes:
        yield Parameter(name=INPUT + "size", label="Size", kind="choice", choices=model.sizes)
    if model.max_images > 1:
        yield _count(model)
    if model.output_formats:
        yield Parameter(name=INPUT + "output_format", label="Format", kind="choice", choices=model.output_formats)
    if model.translates:
        hint = "Into English, before it is sent to the model."
        yield Parameter(name=INPUT + "translate", label="Translate the prompt", kind="choice", choices=FLAG, hint=hint)


def _count(model: Model) -> Parameter:
    hint = f"1 to {model.max_images}"
    if model.edits and model.max_images_edit != model.max_images:
        hint += f"; edits make {model.max_images_edit} at most"
    return Parameter(
        name=INPUT + "n", label="Pictures", kind="number", minimum=1, maximum=model.max_images, step="1", hint=hint
    )


def _option(option: Option) -> Parameter:
    choices = FLAG if option.type == "boolean" else option.choices
    number = option.type in ("integer", "number")
    return Parameter(
        name=OPTIONS + option.name,
        label=option.name,
        kind="choice" if choices else "number" if number else "text",
        choices=choices,
        minimum=option.minimum,
        maximum=option.maximum,
        step="1" if option.type == "integer" else "any",
        hint=_hint(option),
    )


def _hint(option: Option) -> str:
    bounds = ""
    if option.minimum is not None and option.maximum is not None:
        bounds = f"{option.minimum:g} to {option.maximum:g}"
    if option.maximum_edit is not None:
        bounds += f"; {option.maximum_edit:g} at most for edits"
    return " ".join(part for part in (bounds + "." if bounds and option.note else bounds, option.note) if part)


def read_request(model: Model | None, name: str, form: Mapping[str, str]) -> dict[str, Any]:
    """The body that the form asks for: what was left empty is left out, what is no number stays text and is refused."""
    body: dict[str, Any] = {"model": name, "input": {}}
    if model is None:
        return body
    options = {}
    for parameter in parameters_of(model):
        text = form.get(parameter.name, "")
        if not text.strip() and not parameter.required:
            continue
        value = _value(parameter, text)
        if parameter.name.startswith(OPTIONS):
            options[parameter.name.removeprefix(OPTIONS)] = value
        else:
            body["input"][parameter.name.removeprefix(INPUT)] = value
    return body if not options else {**body, "input": {**body["input"], "options": options}}


def _value(parameter: Parameter, text: str) -> str | int | float | bool:
    if parameter.choices == FLAG:
        return text == "true" if text in FLAG else text
    return number_or_text(text) if parameter.kind == "number" else text if parameter.kind == "area" else text.strip()


def entered_of(task: TaskView) -> dict[str, str]:
    """The form that makes this task again; of an erased one the model alone is left."""
    given = task.input if isinstance(task.input, dict) else msgspec.to_builtins(task.input)
    options = given.get("options") or {}
    named = {INPUT + name: value for name, value in given.items() if name != "options"}
    named |= {OPTIONS + name: value for name, value in options.items()}
    texts = {name: _text(value) for name, value in named.items() if value is not None}
    return {"model": f"{task.provider}/{task.model}", **texts}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
