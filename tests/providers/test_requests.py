"""The exact requests that go out."""

from typing import Any

import msgspec
import pytest

from service.core.task import Task
from service.providers.base import HttpRequest
from tests.providers.material import KEY, account, task
from tests.support.registry import PROVIDERS


def polled(provider: str, task_id: str) -> Task:
    return msgspec.structs.replace(task(provider, "-"), provider_task_id=task_id)


PICTURE = "https://example.com/in.png"
CALLBACK = "https://hooks.example.com/callbacks/x/token"
PROMPT = {"prompt": "a lighthouse at dusk"}


def submit(provider: str, model: str, callback_url: str | None = None, **given: Any) -> HttpRequest:
    return PROVIDERS[provider].build_submit(task(provider, model, **given), account(provider), callback_url)


@pytest.mark.parametrize(
    ("provider", "model", "given", "callback_url", "body"),
    [
        ("flux-context", "flux-kontext-pro", {}, None, {**PROMPT, "model": "flux-kontext-pro"}),
        (
            "flux-context",
            "flux-kontext-max",
            {"aspect_ratio": "16:9", "image_url": PICTURE, "translate": True, "options": {"x": None}},
            None,
            {
                **PROMPT,
                "model": "flux-kontext-max",
                "aspect_ratio": "16:9",
                "input_image": PICTURE,
                "enable_translation": True,
                "x": None,
            },
        ),
        (
            "flux-context",
            "gpt-4o",
            {"translate": False},
            None,
            {**PROMPT, "model": "gpt-4o", "enable_translation": False},
        ),
        (
            "fluxapi-ai",
            "flux-kontext-pro",
            {},
            CALLBACK,
            {
                **PROMPT,
                "model": "flux-kontext-pro",
                "aspectRatio": "16:9",
                "outputFormat": "jpeg",
                "enableTranslation": True,
                "callBackUrl": CALLBACK,
            },
        ),
        (
            "fluxapi-ai",
            "flux-kontext-max",
            {"image_url": PICTURE, "output_format": "png", "translate": False, "options": {"safetyTolerance": 1}},
            None,
            {
                **PROMPT,
                "model": "flux-kontext-max",
                "outputFormat": "png",
                "inputImage": PICTURE,
                "enableTranslation": False,
                "safetyTolerance": 1,
            },
        ),
        (
            "fluxapi-ai",
            "flux-kontext-max",
            {"image_url": PICTURE, "aspect_ratio": "1:1"},
            None,
            {
                **PROMPT,
                "model": "flux-kontext-max",
                "aspectRatio": "1:1",
                "outputFormat": "jpeg",
                "inputImage": PICTURE,
                "enableTranslation": True,
            },
        ),
        (
            "acedata",
            "flux-dev",
            {"n": 2, "options": {"seed": 7}},
            CALLBACK,
            {
                **PROMPT,
                "action": "generate",
                "model": "flux-dev",
                "size": "1024x1024",
                "count": 2,
                "callback_url": CALLBACK,
                "seed": 7,
            },
        ),
        (
            "acedata",
            "flux-2-pro",
            {"size": "512x768"},
            None,
            {**PROMPT, "action": "generate", "model": "flux-2-pro", "size": "512x768", "count": 1, "async": True},
        ),
        (
            "acedata",
            "flux-pro-1.1-ultra",
            {},
            None,
            {**PROMPT, "action": "generate", "model": "flux-pro-1.1-ultra", "size": "1:1", "count": 1, "async": True},
        ),
        (
            "acedata",
            "flux-kontext-pro",
            {"image_url": PICTURE},
            CALLBACK,
            {
                **PROMPT,
                "action": "edit",
                "model": "flux-kontext-pro",
                "image_url": PICTURE,
                "callback_url": CALLBACK,
            },
        ),
        (
            "acedata",
            "flux-kontext-pro",
            {"image_url": PICTURE, "aspect_ratio": "3:2"},
            None,
            {
                **PROMPT,
                "action": "edit",
                "model": "flux-kontext-pro",
                "size": "3:2",
                "image_url": PICTURE,
                "async": True,
            },
        ),
        (
            "fluxapi-org",
            "flux-pro-1-1",
            {"size": "1536x1024", "n": 3, "options": {"user": "u1"}},
            None,
            {**PROMPT, "model": "flux-pro-1-1", "size": "1536x1024", "n": 3, "response_format": "url", "user": "u1"},
        ),
        ("fluxapi-org", "flux-dev", {}, None, {**PROMPT, "model": "flux-dev", "n": 1, "response_format": "url"}),
    ],
)
def test_a_submit_has_exactly_these_fields(
    provider: str, model: str, given: dict[str, Any], callback_url: str | None, body: dict[str, Any]
) -> None:
    request = submit(provider, model, callback_url, **given)
    assert request.body is not None
    assert msgspec.json.decode(request.body) == body


@pytest.mark.parametrize(
    ("provider", "url", "timeout_s"),
    [
        ("flux-context", "https://api.flux-context.org/v1/images/generations", 60),
        ("fluxapi-ai", "https://api.fluxapi.ai/api/v1/flux/kontext/generate", 60),
        ("acedata", "https://api.acedata.cloud/flux/images", 300),
        ("fluxapi-org", "https://api.fluxapi.org/v1/images/generations", 600),
    ],
)
def test_a_submit_is_posted_with_the_key_and_a_name(provider: str, url: str, timeout_s: float) -> None:
    request = submit(provider, PROVIDERS[provider].capabilities.models[0].name)
    assert (request.method, request.url, request.timeout_s) == ("POST", url, timeout_s)
    agent = request.headers.pop("user-agent")
    assert agent.startswith("Taskhook/")
    assert request.headers == {
        "authorization": f"Bearer {KEY}",
        "accept": "application/json",
        "content-type": "application/json",
    }


@pytest.mark.parametrize(
    ("provider", "method", "url", "body"),
    [
        ("flux-context", "GET", "https://api.flux-context.org/v1/images/generations/a%2Fb%3Fc", None),
        ("fluxapi-ai", "GET", "https://api.fluxapi.ai/api/v1/flux/kontext/record-info?taskId=a%2Fb%3Fc", None),
        ("acedata", "POST", "https://api.acedata.cloud/flux/tasks", b'{"action":"retrieve","id":"a/b?c"}'),
    ],
)
def test_a_poll_names_the_task(provider: str, method: str, url: str, body: bytes | None) -> None:
    request = PROVIDERS[provider].build_poll(polled(provider, "a/b?c"), account(provider))
    assert (request.method, request.url, request.body) == (method, url, body)
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["user-agent"].startswith("Taskhook/")
    assert ("content-type" in request.headers) == (body is not None)


def test_a_blocking_provider_has_nothing_to_poll() -> None:
    with pytest.raises(NotImplementedError):
        PROVIDERS["fluxapi-org"].build_poll(polled("fluxapi-org", "t"), account("fluxapi-org"))


def test_a_base_url_may_end_in_a_slash() -> None:
    own = msgspec.structs.replace(account("acedata"), base_url="http://127.0.0.1:8000/sandbox/")
    assert (
        PROVIDERS["acedata"].build_poll(polled("acedata", "t"), own).url == "http://127.0.0.1:8000/sandbox/flux/tasks"
    )
