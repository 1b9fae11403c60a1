"""Values in templates stay in the place they are put in."""

import pytest

from service.providers.declared.bodies import BodyPath, TemplateTree, encode_multipart, put
from service.providers.declared.templates import Template, WrongTemplateError

EVIL = "a/../b?x=1&y#z\r\nX-Evil: 1 é{key}"


@pytest.mark.parametrize(
    ("template", "value", "path"),
    [
        ("/tasks/{id}", "abc-1", "/tasks/abc-1"),
        ("/tasks/{id}", EVIL, "/tasks/a%2F..%2Fb%3Fx%3D1%26y%23z%0D%0AX-Evil%3A%201%20%C3%A9%7Bkey%7D"),
        ("/{+id}", "models/veo/operations/x y", "/models/veo/operations/x%20y"),
        ("/{+id}", "a:b@c", "/a%3Ab%40c"),
        ("/{id}", "..", None),
        ("/{id}", ".", None),
        ("/{id}", "", None),
        ("/{+id}", "a/../b", None),
        ("/{+id}", "/evil.example/x", None),
        ("/{id}/cancel", None, None),
        ("/{{x}}/{id}", "1", "/{x}/1"),
    ],
)
def test_a_value_in_a_path_is_one_segment(template: str, value: str | None, path: str | None) -> None:
    assert Template(template).fill_path({"id": value}) == path


def test_a_value_can_not_add_a_header() -> None:
    assert Template("Key {key}").fill_header({"key": "a\r\nX: é\x00"}) == "Key a%0D%0AX: %C3%A9%00"


def test_a_text_is_filled_as_it_is() -> None:
    assert Template("{id}-{id}").fill({"id": "{x}"}) == "{x}-{x}"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("/{id", "has a { at character 2"),
        ("/id}", "has a } at character 4"),
        ("/{ID}", "has a {"),
        ("/{mdel}", "did you mean {model}?"),
        ("/{nothing}", "known are id, model"),
    ],
)
def test_a_wrong_template_is_refused(source: str, says: str) -> None:
    with pytest.raises(WrongTemplateError) as refusal:
        Template(source, frozenset({"id", "model"}))
    assert says in str(refusal.value)


def test_constants_are_filled_and_texts_without_a_value_are_left_out() -> None:
    tree = TemplateTree(
        {"model": "{model}", "secret": "{webhook_secret}", "list": ["{callback_url}", 1, True], "o": {"x": "{none}"}}
    )
    filled = tree.fill({"model": "m", "callback_url": "https://us.example/cb"})
    assert filled == {"model": "m", "list": ["https://us.example/cb", 1, True], "o": {}}


def test_a_path_leads_through_objects_and_lists() -> None:
    body: dict[str, object] = {}
    for path, value in {
        "instances[0].prompt": "p",
        "instances[0].image.url": "u",
        "uris[0]": "c",
        "a": 1,
        "b": None,
    }.items():
        put(body, BodyPath.parse(path), value)
    assert body == {"instances": [{"prompt": "p", "image": {"url": "u"}}], "uris": ["c"], "a": 1}


@pytest.mark.parametrize("text", [".a", "a..b", "a[", "a[x]", "[0]", "a.", "a]b"])
def test_a_wrong_path_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no path"):
        BodyPath.parse(text)


def test_form_fields_can_not_end_their_part() -> None:
    body, content_type = encode_multipart({"prompt": "x\r\n--boundary--", 'a"b': 5})
    boundary = content_type.partition("boundary=")[2].encode()
    assert body.count(b"--" + boundary) == 3
    assert b'name="a%22b"\r\n\r\n5\r\n' in body
