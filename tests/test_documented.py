"""The documentation names everything that the code has."""

import re
from pathlib import Path

import pytest

from service.core.event import EVENT_TYPES
from service.core.task import ERROR_CODES
from service.sandbox.faults import FAULTS
from service.settings import load
from service.telemetry import Metrics
from tests.support.registry import PROVIDERS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text()


@pytest.mark.parametrize("code", ERROR_CODES)
def test_every_error_code_is_explained(code: str) -> None:
    assert f"| `{code}` |" in page("api")


@pytest.mark.parametrize("kind", EVENT_TYPES)
def test_every_event_type_is_explained(kind: str) -> None:
    assert f"`{kind}`" in page("api")


def test_every_setting_is_explained() -> None:
    settings = load({"TASKHOOK_SANDBOX": "true"}, None)
    for name, _ in settings.public_items():
        for provider in PROVIDERS:
            name = name.replace(provider.replace("-", "_").upper(), "<PROVIDER>")  # noqa: PLW2901
        assert f"`{name}`" in page("settings"), name


def test_every_metric_is_explained() -> None:
    for metric in Metrics().registry.collect():
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        assert f"`{name}`" in page("operations"), name


@pytest.mark.parametrize(("name", "meaning"), FAULTS.items())
def test_every_magic_prompt_is_explained_in_the_sandboxs_own_words(name: str, meaning: str) -> None:
    assert f"| `sandbox:{name}` | {meaning} |" in page("sandbox")


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_provider_is_named_with_its_settings(provider: str) -> None:
    assert f"`{provider}`" in README
    assert f"`{provider.replace('-', '_').upper()}`" in page("settings")


def test_every_link_leads_somewhere() -> None:
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            assert target.startswith("https://") or (document.parent / target).exists(), (document.name, target)
