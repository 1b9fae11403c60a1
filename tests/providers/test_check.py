"""Input that can't work is refused before anything is sent, by field, with the allowed values."""

from typing import Any

import msgspec
import pytest

from service.core.problems import FieldError
from service.core.task import TaskInput
from service.providers.base import Model, Option
from service.providers.checks import check_declared
from tests.providers.material import model
from tests.support.registry import PROVIDERS

PICTURE = "https://example.com/in.png"
DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]


def check(provider: str, name: str, **given: Any) -> list[FieldError]:
    return PROVIDERS[provider].check(model(provider, name), TaskInput(**{"prompt": "a lighthouse", **given}))


@pytest.mark.parametrize(
    ("provider", "name", "given"),
    [
        ("flux-context", "flux-kontext-pro", {}),
        ("flux-context", "flux-kontext-max", {"aspect_ratio": "9:21", "image_url": PICTURE, "translate": True}),
        ("flux-context", "gpt-4o", {"aspect_ratio": "2:3", "options": {"quality": "high"}}),
        ("fluxapi-ai", "flux-kontext-pro", {"aspect_ratio": "16:21", "output_format": "png", "translate": False}),
        (
            "fluxapi-ai",
            "flux-kontext-pro",
            {"options": {"safetyTolerance": 6, "promptUpsampling": True, "watermark": "w"}},
        ),
        (
            "fluxapi-ai",
            "flux-kontext-max",
            {"image_url": PICTURE, "options": {"safetyTolerance": 2, "uploadCn": False}},
        ),
        ("acedata", "flux-dev", {"size": "256x1440", "n": 10}),
        ("acedata", "flux-2-pro", {"size": "64x2048", "options": {"seed": 7}}),
        ("acedata", "flux-kontext-pro", {"aspect_ratio": "4:5", "image_url": PICTURE}),
        ("fluxapi-org", "flux-pro-1-1", {"size": "1536x1024", "n": 10}),
    ],
)
def test_what_a_model_takes_is_not_refused(provider: str, name: str, given: dict[str, Any]) -> None:
    assert check(provider, name, **given) == []


@pytest.mark.parametrize(
    ("provider", "name", "given", "field", "says"),
    [
        ("flux-context", "flux-kontext-pro", {"aspect_ratio": "5:1"}, "aspect_ratio", "must be one of 21:9, 16:9"),
        ("flux-context", "gpt-4o", {"aspect_ratio": "16:9"}, "aspect_ratio", "must be one of 1:1, 3:2, 2:3"),
        ("flux-context", "gpt-4o", {"size": "1024x1024"}, "size", "give aspect_ratio: one of 1:1, 3:2, 2:3"),
        ("flux-context", "flux-kontext-pro", {"n": 2}, "n", "must be 1 for this model"),
        ("flux-context", "flux-kontext-pro", {"output_format": "png"}, "output_format", "leave it out"),
        ("fluxapi-ai", "flux-kontext-pro", {"aspect_ratio": "3:2"}, "aspect_ratio", "16:21"),
        ("fluxapi-ai", "flux-kontext-pro", {"output_format": "webp"}, "output_format", "must be one of jpeg, png"),
        ("fluxapi-ai", "flux-kontext-pro", {"size": "1024x1024"}, "size", "give aspect_ratio"),
        ("fluxapi-ai", "flux-kontext-pro", {"n": 2}, "n", "must be 1"),
        ("acedata", "flux-dev", {"size": "1024x1472"}, "size", "from 256 to 1440 pixels and a multiple of 32"),
        ("acedata", "flux-dev", {"size": "224x1024"}, "size", "from 256 to 1440"),
        ("acedata", "flux-dev", {"size": "1000x1024"}, "size", "multiple of 32"),
        ("acedata", "flux-dev", {"size": "1024X1024"}, "size", "WIDTHxHEIGHT"),
        ("acedata", "flux-dev", {"size": "1:1"}, "size", "WIDTHxHEIGHT"),
        ("acedata", "flux-dev", {"size": "0x0"}, "size", "WIDTHxHEIGHT"),
        ("acedata", "flux-pro-1.1", {"aspect_ratio": "1:1"}, "aspect_ratio", "give size: WIDTHxHEIGHT"),
        ("acedata", "flux-2-max", {"size": "32x64"}, "size", "of at least 64 pixels and a multiple of 32"),
        ("acedata", "flux-pro-1.1-ultra", {"size": "1024x1024"}, "size", "give aspect_ratio"),
        ("acedata", "flux-kontext-max", {"aspect_ratio": "16:21"}, "aspect_ratio", "must be one of 1:1"),
        ("acedata", "flux-dev", {"n": 11}, "n", "must be from 1 to 10"),
        ("acedata", "flux-kontext-pro", {"n": 2, "image_url": PICTURE}, "n", "when image_url is given"),
        ("acedata", "flux-dev", {"image_url": PICTURE}, "image_url", "text alone"),
        ("acedata", "flux-dev", {"translate": True}, "translate", "leave it out"),
        ("fluxapi-org", "flux-dev", {"aspect_ratio": "16:9"}, "aspect_ratio", "give size: one of 256x256"),
        ("fluxapi-org", "flux-dev", {"size": "1000x1000"}, "size", "must be one of 256x256, 512x512, 1024x1024"),
        ("fluxapi-org", "flux-dev", {"n": 0}, "n", "must be from 1 to 10"),
        ("fluxapi-org", "flux-dev", {"image_url": PICTURE}, "image_url", "is not supported"),
        ("fluxapi-org", "flux-dev", {"translate": True}, "translate", "is not supported"),
        ("fluxapi-ai", "flux-kontext-pro", {"image_url": "ftp://example.com/x"}, "image_url", "http or https"),
        ("fluxapi-ai", "flux-kontext-pro", {"image_url": "https://example.com/\ud800"}, "image_url", "http or https"),
        ("fluxapi-ai", "flux-kontext-pro", {"prompt": " \n"}, "prompt", "blank"),
        ("fluxapi-ai", "flux-kontext-pro", {"prompt": "a \ud800"}, "prompt", "lone surrogates"),
    ],
)
def test_a_refusal_names_the_field_and_what_is_allowed(
    provider: str, name: str, given: dict[str, Any], field: str, says: str
) -> None:
    (error,) = check(provider, name, **given)
    assert error.loc == ["body", "input", field]
    assert says in error.msg


@pytest.mark.parametrize(
    ("options", "given", "says"),
    [
        ({"safetyTolerance": 7}, {}, "must be an integer from 0 to 6"),
        ({"safetyTolerance": -1}, {}, "must be an integer from 0 to 6"),
        ({"safetyTolerance": 3}, {"image_url": PICTURE}, "must be an integer from 0 to 2 when image_url is given"),
        ({"safetyTolerance": 2.0}, {}, "must be an integer"),
        ({"safetyTolerance": True}, {}, "must be an integer"),
        ({"safetyTolerance": None}, {}, "must be an integer"),
        ({"promptUpsampling": "yes"}, {}, "must be true or false"),
        ({"promptUpsampling": 1}, {}, "must be true or false"),
        ({"watermark": 5}, {}, "must be a string"),
        ({"callBackUrl": "https://example.com"}, {}, "set by Taskhook"),
        ({"callback_url": "https://example.com"}, {}, "set by Taskhook"),
        ({"PROMPT": "x"}, {}, "set by Taskhook"),
        ({"seed": {"a": DEEP}}, {}, "must be JSON"),
        ({"seed": object()}, {}, "must be JSON"),
        ({"seed": "\udfff"}, {}, "must be JSON"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(list(value)),
)
def test_an_option_out_of_its_limits_is_refused(options: dict[str, Any], given: dict[str, Any], says: str) -> None:
    (error,) = check("fluxapi-ai", "flux-kontext-pro", options=options, **given)
    assert error.loc == ["body", "input", "options", next(iter(options))]
    assert says in error.msg


@pytest.mark.parametrize(
    ("provider", "name"),
    [
        (provider, name)
        for provider, adapter in PROVIDERS.items()
        for name in sorted(adapter.capabilities.reserved_options)
    ],
)
def test_no_option_names_a_field_that_taskhook_sets(provider: str, name: str) -> None:
    first = PROVIDERS[provider].capabilities.models[0].name
    (error,) = check(provider, first, options={name: "x"})
    assert error.loc == ["body", "input", "options", name]


def test_the_name_of_an_option_may_be_no_text() -> None:
    (error,) = check("acedata", "flux-dev", options={"\ud800": 1})
    msgspec.json.encode(error)


def test_several_wrong_fields_are_all_named() -> None:
    errors = check("fluxapi-org", "flux-dev", aspect_ratio="1:1", n=11, translate=True, options={"stream": True})
    assert [error.loc[2:] for error in errors] == [["aspect_ratio"], ["n"], ["translate"], ["options", "stream"]]


def test_size_and_ratio_exclude_each_other_where_a_model_has_both() -> None:
    both = Model(name="m", aspect_ratios=("1:1",), sizes=("512x512",))
    (error,) = check_declared(both, TaskInput(prompt="x", aspect_ratio="1:1", size="512x512"))
    assert (error.loc[-1], error.msg) == ("size", "give size or aspect_ratio, not both")


def test_a_model_without_shapes_asks_to_leave_them_out() -> None:
    errors = check_declared(Model(name="m"), TaskInput(prompt="x", aspect_ratio="1:1", size="512x512"))
    assert [error.msg for error in errors] == ["is not supported by this model; leave it out"] * 2


def test_an_option_may_have_choices_or_be_any_number() -> None:
    options = (Option(name="style", type="string", choices=("a", "b")), Option(name="scale", type="number"))
    declared = Model(name="m", options=options)
    assert check_declared(declared, TaskInput(prompt="x", options={"style": "a", "scale": 1.5})) == []
    (error,) = check_declared(declared, TaskInput(prompt="x", options={"style": "c", "scale": 1}))
    assert error.msg == "must be a string out of a, b"
