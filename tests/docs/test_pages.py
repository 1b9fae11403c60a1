"""Every sample of every page is run by some test or named with the reason why not; what no shell runs is read here."""

import json
import re

import pytest
import yaml
from jsonschema import Draft202012Validator

from scripts.site.made import fill, find_sample
from scripts.site.reference import document
from service.providers.declared.loading import load as load_declaration
from service.settings import load
from tests.docs.samples import BY_OTHER_TESTS, NOT_RUN, PAGES, ROOT, SAMPLES, Sample, find_shown, of_kind

OTHER_NAMES = {"TASKHOOK_URL", "TASKHOOK_API_KEY", "TASKHOOK_SECRET", "TASKHOOK_DOMAIN", "TASKHOOK_FLUXAPI_AI_HMAC_KEY"}
"""Read by the command line, endpoints and a compose file, and a former name that is still accepted."""


def test_every_sample_is_run_or_named_with_a_reason() -> None:
    assert [str(sample) for sample in of_kind("nobody runs it")] == []
    assert len(of_kind("not run")) >= len(NOT_RUN)
    for page, beginning in NOT_RUN:
        assert any(sample.page == page and sample.first_line.startswith(beginning) for sample in SAMPLES), beginning
    assert len(SAMPLES) > 80 and len(of_kind("shell")) > 40


def test_what_other_tests_run_exists() -> None:
    for (page, language), test in BY_OTHER_TESTS.items():
        path, _, name = test.partition("::")
        assert find_sample((ROOT / page).read_text(), language)
        assert f"def {name}(" in (ROOT / path).read_text()


def test_every_file_that_a_page_shows_is_run_by_the_tests_of_the_examples() -> None:
    tests = "".join(path.read_text() for path in (ROOT / "tests" / "examples").glob("test_*.py"))
    used = {"verify.mjs": "receiver.mjs", "fastapi_receiver.py": "fastapi_receiver:app"}
    shown = find_shown()
    assert len(shown) >= 10
    for path in shown:
        name = path.rpartition("/")[2]
        assert used.get(name, f'"{name}"') in tests, path


@pytest.mark.parametrize("page", PAGES)
def test_the_generated_parts_of_a_page_are_up_to_date(page: str) -> None:
    text = (ROOT / page).read_text()
    assert fill(text) == text, "run: make docs-parts"


@pytest.mark.parametrize("page", PAGES)
def test_every_setting_that_a_page_names_exists(page: str) -> None:
    known = {name for name, _ in load({"TASKHOOK_SANDBOX": "true"}, None).public_items()} | OTHER_NAMES
    named = set(re.findall(r"\bTASKHOOK_[A-Z_]*[A-Z]\b(?!_)", (ROOT / page).read_text()))
    without_account = {name: re.sub(r"__[A-Z0-9]+(?=_)", "", name.removesuffix("_FILE")) for name in named}
    unknown = {name for name, plain in without_account.items() if plain not in known}
    assert {name for name in unknown if not name.startswith("TASKHOOK_ACME_")} == set()  # the declared example


@pytest.mark.parametrize("sample", of_kind("json"), ids=str)
def test_a_json_sample_is_what_the_api_takes_or_sends(sample: Sample) -> None:
    schemas = document()["components"]
    body = json.loads(sample.text)
    named = {"sequence": ["Envelope", "TaskView"], "filter": ["CreateEndpoint"], "input": ["CreateTask"]}
    names = next((names for field, names in named.items() if field in body), ["TaskView"])
    for name, value in zip(names, (body, body.get("data")), strict=False):
        schema = {"$ref": f"#/components/schemas/{name}", "components": schemas}
        assert [error.message for error in Draft202012Validator(schema).iter_errors(value)] == []


@pytest.mark.parametrize("sample", of_kind("toml"), ids=str)
def test_a_toml_sample_is_a_valid_declaration(sample: Sample) -> None:
    assert load_declaration(sample.text, sample.page).id


@pytest.mark.parametrize("sample", of_kind("yaml"), ids=str)
def test_a_yaml_sample_can_be_read_and_names_what_is_there(sample: Sample) -> None:
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!override", lambda loader, node: loader.construct_mapping(node))  # type: ignore[type-var]
    read = yaml.load(sample.text, Loader)
    if read.get("kind") == "Kustomization":
        for path in (*read["resources"], *read["components"]):
            assert (ROOT.joinpath(path.removeprefix("../taskhook/")) / "kustomization.yaml").exists(), path
    else:
        ours = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]["taskhook"]
        assert f"FROM {ours['image']}\n" in read["services"]["taskhook"]["build"]["dockerfile_inline"]
