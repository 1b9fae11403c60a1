"""What a provider's page says of models, limits and errors, from the very data that requests are checked against."""

import inspect
import sys
from collections.abc import Mapping
from typing import get_args

from scripts.site.tables import code, codes, render_table
from service.core.account import Limits
from service.core.observation import Observation
from service.providers.base import Capabilities, Model, Option, Provider
from service.providers.checks import describe_pixels
from service.providers.registry import build_registry
from service.providers.replies import CODE_BY_STATUS

DAY_S = 24 * 3600
PROVIDERS = build_registry()


def render_part(provider_id: str, part: str) -> str:
    if part == "overview":
        return render_overview()
    provider = PROVIDERS[provider_id]
    parts = {"glance": render_glance, "models": render_models, "options": render_options, "errors": render_errors}
    return parts[part](provider)


def render_overview() -> str:
    rows = (
        (
            f"[{name}]({name}.md)",
            models,
            tracked_by(provider.capabilities),
            describe_life(provider.capabilities.result_life_s),
        )
        for name, provider in PROVIDERS.items()
        for models in [codes(model.name for model in provider.capabilities.models)]
    )
    return render_table(("Provider", "Models", "Tracked by", "A result's link lives"), rows)


def render_glance(provider: Provider) -> str:
    can, prefix = provider.capabilities, f"TASKHOOK_{provider.id.replace('-', '_').upper()}"
    rows = [
        ("Tracked by", tracked_by(can)),
        ("Base URL", f"{code(can.base_url)}, or {code(f'{prefix}_BASE_URL')}"),
        ("Key", code(f"{prefix}_API_KEY")),
        ("Submits of an account", f"{describe_limits(can.limits)}, or {code(f'{prefix}_SUBMITS_PER_S')}"),
        ("Tasks of it in flight", f"{can.limits.max_in_flight}, or {code(f'{prefix}_MAX_IN_FLIGHT')}"),
        ("A submit may take", f"{can.submit_timeout_s:g} s"),
        ("A result's link lives", describe_life(can.result_life_s)),
    ]
    return render_table(("", ""), rows)


def tracked_by(can: Capabilities) -> str:
    if can.blocking:
        return "the submit's own answer, held by the worker"
    return "a callback, and polls when it is late" if can.callbacks else "polls"


def describe_limits(limits: Limits) -> str:
    window = "second" if limits.window_s == 1 else f"{limits.window_s:g} s"
    return f"{limits.submits} in any {window}"


def describe_life(life_s: float | None) -> str:
    return "not documented" if life_s is None else f"{life_s / DAY_S:g} days"


def render_models(provider: Provider) -> str:
    head = ("Model", "Shape", "`n`", "`image_url`", "`output_format`", "`translate`")
    return render_table(head, (_model(provider.id, model) for model in provider.capabilities.models))


def _model(provider_id: str, model: Model) -> tuple[str, ...]:
    return (
        code(f"{provider_id}/{model.name}"),
        _shape(model),
        _count(model),
        "yes" if model.edits else "no",
        codes(model.output_formats) or "no",
        "yes" if model.translates else "no",
    )


def _shape(model: Model) -> str:
    forms = []
    if model.aspect_ratios:
        forms.append(f"`aspect_ratio`: {codes(model.aspect_ratios)}")
    if model.sizes:
        forms.append(f"`size`: {codes(model.sizes)}")
    if model.pixels is not None:
        forms.append(f"`size`: {describe_pixels(model.pixels)}")
    return "; ".join(forms)


def _count(model: Model) -> str:
    made = "1" if model.max_images == 1 else f"1 to {model.max_images}"
    return (
        f"{made}, edits {model.max_images_edit}" if model.edits and model.max_images_edit != model.max_images else made
    )


def render_options(provider: Provider) -> str:
    """Options of all the models; those that Taskhook sets itself can't be given."""
    declared = {option.name: option for model in provider.capabilities.models for option in model.options}
    taken = f"Set by Taskhook, and refused as options: {codes(sorted(provider.capabilities.reserved_options))}."
    if not declared:
        return f"None are declared. Others are passed on as they are.\n\n{taken}"
    rows = ((code(option.name), _values(option), option.note) for option in declared.values())
    return f"{render_table(('Option', 'Value', ''), rows)}\n\nOthers are passed on as they are. {taken}"


def _values(option: Option) -> str:
    words = [option.type, codes(option.choices)]
    if option.minimum is not None or option.maximum is not None:
        words.append(f"{option.minimum:g} to {option.maximum:g}")
    if option.maximum_edit is not None:
        words.append(f"(edits: to {option.maximum_edit:g})")
    return " ".join(word for word in words if word)


def render_errors(provider: Provider) -> str:
    """The provider's own codes first, then what a status says where there is none."""
    own: Mapping[object, str] = getattr(sys.modules[type(provider).__module__], "CODES", {})
    without = " without such a code" if own else ""
    rows = [(code(theirs), code(ours)) for theirs, ours in own.items()]
    rows += [(f"HTTP {status}{without}", code(ours)) for status, ours in CODE_BY_STATUS.items()]
    rows += [(f"any other 4xx{without}", code("invalid_request")), ("anything else it says", code("provider_error"))]
    return render_table(("The provider says", "`error.code`"), rows)


def render_observations() -> str:
    """Each value that a reader can answer with, in its own words."""
    rows = ((code(kind.__name__), inspect.cleandoc(kind.__doc__ or "")) for kind in get_args(Observation))
    return render_table(("Observation", "The provider says"), rows)
