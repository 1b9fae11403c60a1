"""Promises that every provider in the registry keeps."""

import inspect
import re

import pytest

from service.core.task import TaskInput
from service.providers.base import Capabilities, Model, PixelRange, Provider
from tests.providers.material import account, task
from tests.support.registry import PROVIDERS

each_provider = pytest.mark.parametrize("provider", PROVIDERS)
each_model = pytest.mark.parametrize(
    ("provider", "model"),
    [(provider, model) for provider, adapter in PROVIDERS.items() for model in adapter.capabilities.models],
    ids=lambda value: value.name if isinstance(value, Model) else value,
)


def test_a_bare_model_name_finds_the_poll_only_provider_first() -> None:
    assert list(PROVIDERS) == ["flux-context", "fluxapi-ai", "acedata", "fluxapi-org"]


@each_provider
def test_a_provider_meets_the_protocol(provider: str) -> None:
    adapter = PROVIDERS[provider]
    assert adapter.id == provider
    assert re.fullmatch(r"[a-z][a-z0-9-]*", provider)
    assert isinstance(adapter.capabilities, Capabilities)
    for name, promised in inspect.getmembers(Provider, inspect.isfunction):
        if not name.startswith("_"):
            kept = getattr(type(adapter), name)
            assert list(inspect.signature(kept).parameters) == list(inspect.signature(promised).parameters)


@each_provider
def test_capabilities_do_not_contradict_each_other(provider: str) -> None:
    declared = PROVIDERS[provider].capabilities
    assert declared.blocking != (declared.polling or declared.callbacks)
    assert declared.base_url.startswith("https://")
    assert not declared.base_url.endswith("/")
    assert min(declared.limits.submits, declared.limits.window_s, declared.limits.max_in_flight) > 0
    assert declared.submit_timeout_s > 0
    assert {"prompt", "model"} <= declared.reserved_options
    names = [model.name for model in declared.models]
    assert names
    assert len(names) == len(set(names))
    assert declared.model(names[-1]) is declared.models[-1]
    assert declared.model("no-such-model") is None


@each_model
def test_a_models_limits_make_sense(provider: str, model: Model) -> None:
    assert all(re.fullmatch(r"[1-9]\d?:[1-9]\d?", ratio) for ratio in model.aspect_ratios)
    assert all(re.fullmatch(r"[1-9]\d*x[1-9]\d*", size) for size in model.sizes)
    for several in (model.aspect_ratios, model.sizes, model.output_formats, [option.name for option in model.options]):
        assert len(several) == len(set(several))
    assert model.max_images >= model.max_images_edit >= 1
    if isinstance(model.pixels, PixelRange):
        assert model.pixels.minimum % model.pixels.multiple == 0
    reserved = PROVIDERS[provider].capabilities.reserved_options
    assert not reserved & {option.name for option in model.options}


@each_model
def test_a_model_takes_everything_it_declares(provider: str, model: Model) -> None:
    adapter = PROVIDERS[provider]
    shapes = [{"aspect_ratio": ratio} for ratio in model.aspect_ratios] + [{"size": size} for size in model.sizes]
    inputs = [TaskInput(prompt="x", n=model.max_images, **shape) for shape in [{}, *shapes]]
    inputs += [TaskInput(prompt="x", output_format=name) for name in model.output_formats]
    for task_input in inputs:
        assert adapter.check(model, task_input) == []


@each_model
def test_what_a_submit_sets_no_option_can_name(provider: str, model: Model) -> None:
    adapter = PROVIDERS[provider]
    shape = {"aspect_ratio": model.aspect_ratios[0]} if model.aspect_ratios else {"size": "1024x1024"}
    full = {**shape, "translate": True if model.translates else None}
    picture = "https://example.com/in.png" if model.edits else None
    for callback_url in (None, "https://x.example/callbacks"):
        for image_url in {None, picture}:
            request = adapter.build_submit(
                task(provider, model.name, image_url=image_url, **full), account(provider), callback_url
            )
            sent = set(re.findall(rb'"(\w+)":', request.body or b""))
            assert {name.decode() for name in sent} <= adapter.capabilities.reserved_options
