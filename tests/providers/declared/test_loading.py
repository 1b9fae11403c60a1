"""A declaration is checked whole when it is loaded, and each mistake is named with its place and what is meant."""

from pathlib import Path

import pytest

from service.providers.declared.loading import DeclarationError, load

MINIMAL = """\
schema = 1
id = "acme"
base_url = "https://api.acme.test/v1"
hosts = ["api.acme.test"]

[auth]
header = "Authorization"
value = "Bearer {key}"

[submit]
path = "/tasks"
id = "body.id"
remember = { status = "body.status_url" }

[poll]
path = "/tasks/{id}"
state = "body.state"
states = { "0" = "queued", "1" = "running", done = "succeeded" }

[result]
urls = "body.urls"

[callback]
place = "body:callback.url"
id = "body.id"

[models."acme/one"]
kind = "image"
"""


def faults(text: str) -> list[str]:
    with pytest.raises(DeclarationError) as refusal:
        load(text, "acme.toml")
    return [str(fault) for fault in refusal.value.faults]


def test_a_declaration_becomes_typed_values() -> None:
    declaration = load(MINIMAL, "acme.toml")
    assert declaration.id == "acme"
    assert declaration.poll is not None
    assert declaration.poll.states == {"0": "queued", "1": "running", "done": "succeeded"}
    assert declaration.callback.place.path == ("callback", "url")
    assert declaration.auth[0].header == "Authorization"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("schema = 1", "schema = 2", "1:1: schema: must be one of 1, not 2"),
        ("state = ", "stat = ", "17:1: poll.stat: unknown key; did you mean state?"),
        ('id = "body.id"\nrem', "rem", "10:1: submit: needs id, own_id or final"),
        ('path = "/tasks"', "", "10:1: submit: path is missing in submit"),
        ('path = "/tasks/{id}"', 'path = "/tasks/{ident}"', "16:1: poll.path: uses {ident}, which has no value here"),
        ('path = "/tasks/{id}"', 'url = "{statu}"', "16:1: poll.url: uses {statu}, which has no value here; did you"),
        ('path = "/tasks"', 'path = "/{id}"', "11:1: submit.path: uses {id}, which has no value here"),
        ('"running"', '"busy"', "18:28: poll.states.1: must be one of queued, running"),
        ('"body.state"', '"state"', "17:1: poll.state: reads state, but an expression here starts with body"),
        ('"body.state"', '"body.state ="', "17:1: poll.state: is no JMESPath expression"),
        ('"body.state"', "5", "17:1: poll.state: must be a text, not a number"),
        ('place = "body:callback.url"', 'place = "body"', "24:1: callback.place: must be none, account, body:PATH"),
        ('place = "body:callback.url"', 'place = "account"', "24:1: callback.place: account needs [callback.verify]"),
        ('"https://api.acme.test/v1"', '"api.acme.test"', "3:1: base_url: 'api.acme.test' is no absolute"),
        ('["api.acme.test"]', '["https://api.acme.test"]', "4:10: hosts[0]: 'https://api.acme.test' is no host"),
        ('id = "acme"', 'id = "Acme_1"', "2:1: id: 'Acme_1' is no provider id"),
        ('value = "Bearer {key}"', 'value = "Bearer {token}"', "8:1: auth[0].value: uses {token}"),
        ('kind = "image"', 'aspect_ratio = "1:1"', '28:1: models."acme/one".aspect_ratio: unknown key, and no'),
        ('kind = "image"', 'options = [1]', '28:1: models."acme/one".options: must be a table, not a list'),
        ('kind = "image"', 'endpoint = ["x"]', '28:1: models."acme/one".endpoint: unknown key'),
        ('kind = "image"', 'accepts = ["prompt", "sede"]', "28:22: models."),
        ('header = "Authorization"', 'header = "Author ization"', "7:1: auth[0].header: 'Author iz"),
        ('header = "Authorization"', 'header = "A"\nquery = "b"', "6:1: auth[0]: needs either header or query"),
        ("[models", "[cancel]\n[models", '27:1: cancel: needs path or url, or method = "none"'),
        ("[models", "[lookup]\npath='/x'\nid='body.id'\n[models", "27:1: lookup: needs submit.reference"),
        ("[callback]", "[callback]\ntrust='hint'\n[poll2]", "unknown key; did you mean poll?"),
        ("remember = {", "remember = { model = \"body.x\",", "13:14: submit.remember.model: model has a"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place_and_what_is_meant(old: str, new: str, says: str) -> None:
    assert old in MINIMAL
    found = faults(MINIMAL.replace(old, new, 1))
    assert any(says in fault for fault in found), found


def test_all_mistakes_are_named_in_the_order_of_the_file() -> None:
    found = faults(MINIMAL.replace("state =", "stat =").replace("urls =", "url =").replace("place =", "plaice ="))
    assert [fault.split(": ")[1] for fault in found] == ["poll.stat", "result.url", "callback.plaice"]


@pytest.mark.parametrize(
    ("text", "place"),
    [("schema = ", "1:10: "), ("a = 1\nb = [1,\n", "2:8: "), ("[x\n", "1:3: "), ("a = 1\na = 2\n", "2:6: ")],
)
def test_what_is_no_toml_is_named_with_its_place(text: str, place: str) -> None:
    assert faults(text)[0].startswith(f"{place}is no TOML")


def test_the_error_is_one_line_with_file_place_and_key() -> None:
    with pytest.raises(DeclarationError) as refusal:
        load(MINIMAL.replace("state =", "stat ="), "providers/acme.toml")
    assert str(refusal.value).startswith("providers/acme.toml:17:1: poll.stat: unknown key; did you mean state?")
    assert "\n" not in str(refusal.value)


def test_signatures_must_be_complete() -> None:
    table = '[callback.verify]\nalgorithm = "hmac-sha256"\nsignature = { header = "x" }\n'
    assert "needs message" in faults(MINIMAL + table)[0]
    assert "webhook_secret is not in secrets" in faults(MINIMAL + table + 'message = "{raw}"')[0]
    secrets = MINIMAL.replace("hosts", 'secrets = ["key", "webhook_secret"]\nhosts')
    assert "needs timestamp" in faults(secrets + table + 'message = "{timestamp}.{raw}"')[0]
    assert "uses {rw}; known are {raw}" in faults(secrets + table + 'message = "{rw}"')[0]
    load(secrets + table + 'message = "{raw}"', "acme.toml")


def test_the_sample_of_the_documentation_is_a_declaration() -> None:
    page = (Path(__file__).parents[3] / "docs" / "declarations.md").read_text()
    assert load(page.partition("```toml\n")[2].partition("```")[0], "sample.toml").id == "acme"


def test_what_is_not_supported_is_refused_instead_of_ignored() -> None:
    assert (
        "result.encoding: is not supported yet" in faults(MINIMAL.replace("[result]", '[result]\nencoding="base64"'))[0]
    )
