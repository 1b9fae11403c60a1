"""Expressions are checked when they are compiled, and bounded and harmless when they are evaluated."""

from typing import Any

import jmespath
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.providers.declared.document import REPLY_NAMES, STEPS_MAX, TASK_NAMES, Document, read_json
from service.providers.declared.expressions import Expression, WrongExpressionError

BODY = {
    "id": "a1", "zero": 0, "flag": False, "empty": [], "text": "Hello", "n": 12345678901234567890123,
    "images": [{"url": "u1", "w": 2}, {"url": "u2", "w": 1}, {}], "image": {"url": "u3"},
    "nested": {"json": '{"urls": ["x"]}', "broken": "{"}, "by_node": {"1": {"u": "p"}, "2": {"u": "q"}},
}  # fmt: skip
DOCUMENT = {"http": 200, "headers": {"retry-after": "7"}, "body": BODY}


def find(source: str, document: dict[str, Any] = DOCUMENT) -> Any:
    return Expression(source, REPLY_NAMES).find(Document(document))


SOURCES = [
    "body.id",
    "http == `200` && body.text",
    "body.missing || body.zero || body.id",
    "!(body.empty)",
    "!body.zero",
    "body.images[?w > `1`].url | [0]",
    "body.[images[].url, image.url][]",
    "sort_by(body.images[?w], &w)[*].url",
    "body.by_node.*.u",
    '{a: body.id, b: headers."retry-after"}',
    "length(body.images) > `2`",
    "contains(to_string(body.images), 'u2')",
    "body.images[::2]",
    "body.n",
    "starts_with(body.text, 'He')",
]


@pytest.mark.parametrize("source", SOURCES)
def test_an_expression_means_what_it_means_in_jmespath(source: str) -> None:
    assert find(source) == jmespath.search(source, DOCUMENT)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("parse_json(body.nested.json).urls[0]", "x"),
        ("parse_json(body.nested.broken).urls", None),
        ("parse_json(body.zero)", None),
        ("lower(body.text)", "hello"),
        ("lower(body.missing)", None),
        ("contains(lower(to_string(body.missing)), 'null')", True),
    ],
)
def test_two_functions_are_added(source: str, value: Any) -> None:
    assert find(source) == value


@pytest.mark.parametrize(
    "source",
    ["sum(body.images)", "join(',', body.images)", "body.images[::0]", "to_number(body.images)", "max(body.id)"],
)
def test_an_expression_that_does_not_fit_a_body_is_null(source: str) -> None:
    assert find(source) is None


@pytest.mark.parametrize(
    ("source", "holds"),
    [("body.zero", True), ("body.flag", False), ("body.empty", False), ("body.x", False)],
)
def test_zero_is_true_as_in_jmespath(source: str, holds: bool) -> None:
    assert Expression(source, REPLY_NAMES).holds(Document(DOCUMENT)) is holds


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("", "is no JMESPath expression"),
        ("body.", "at character 6"),
        ("body[?x ==]", "at character 11"),
        ("body.state == 'open", "is no JMESPath expression"),
        ("lowr(body.id)", "did you mean lower()?"),
        ("lower(body.id, body.x)", "with 2 arguments; it takes 1"),
        ("status == 'x'", "did you mean body.status?"),
        ("body.x || input.prompt", "reads input"),
        ("body." + "x" * 3000, "has 3005 characters"),
    ],
)
def test_a_wrong_expression_is_refused_when_it_is_compiled(source: str, says: str) -> None:
    with pytest.raises(WrongExpressionError, match=says.replace("(", r"\(").replace(")", r"\)").replace("?", r"\?")):
        Expression(source, REPLY_NAMES)


def test_names_inside_projections_and_functions_are_not_names_of_the_document() -> None:
    for source in (
        "body.list[?x == 'y'].z",
        "sort_by(body.list, &x)",
        "body.{a: b, c: d}",
        "body | id",
        "@",
        "body.*.x",
    ):
        Expression(source, REPLY_NAMES)


def test_the_members_that_an_expression_reads_are_known() -> None:
    source = "{a: input.prompt, b: input.image_urls[*].{u: @}, c: lower(input.size || model)}"
    assert Expression(source, TASK_NAMES).reads("input") == {"prompt", "image_urls", "size"}


def test_steps_are_shared_by_all_expressions_over_a_document() -> None:
    document = Document({"body": [[[1] * 100] * 100] * 20})
    everything = Expression("body[*][*][*].x", REPLY_NAMES)
    assert everything.find(document) is None
    assert document.steps_left < 0
    assert Expression("body", REPLY_NAMES).find(document) is None


def test_functions_that_read_much_use_up_the_steps() -> None:
    document = Document({"body": {"list": [{"a": "x"} for _ in range(190_000)]}})
    assert (
        Expression("body | [to_string(@), to_string(@), to_string(@), to_string(@)]", REPLY_NAMES).find(document)
        is None
    )
    assert -STEPS_MAX < document.steps_left < 0


NAMES = st.sampled_from(["id", "images", "url", "w", "text", "nested", "json"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner),
)


@given(JSON)
def test_no_body_makes_an_expression_raise(body: Any) -> None:
    for source in (*SOURCES, "parse_json(body.nested.json)", "join('', body.images)", "sum(body.images[].w)"):
        find(source, {"http": 200, "headers": {}, "body": body})


def test_what_is_no_json_or_too_deep_is_null() -> None:
    assert read_json(b"<html>") is None
    assert read_json(b"[" * 200 + b"]" * 200) is None
    assert read_json(b"[" * 100_000) is None
