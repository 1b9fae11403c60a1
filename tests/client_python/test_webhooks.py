"""The client accepts signatures as the reference library makes them, and nothing else."""

import base64
import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook
from taskhook import (
    MissingHeaderError,
    PayloadError,
    SignatureError,
    TaskEvent,
    TimestampError,
    WebhookVerificationError,
    webhooks,
)
from taskhook._stream import Frames

from service.core.event import render_cloudevent
from tests.client_python.test_retries import FINAL
from tests.support.fuzz import examples

SECRET, OTHER = (f"whsec_{base64.b64encode(bytes([n]) * 24).decode()}" for n in (1, 2))
NOW = 1_800_000_000.0
EVENT: dict[str, Any] = {
    "id": "evt_1",
    "type": "task.succeeded",
    "timestamp": "2026-01-01T00:00:00.000Z",
    "sequence": 7,
    "data": FINAL,
}
BODY = json.dumps(EVENT).encode()


def signed(body: bytes = BODY, secret: str = SECRET) -> dict[str, str]:
    return webhooks.sign(body, secret, id="evt_1", timestamp=NOW)


def test_a_delivery_becomes_a_typed_event() -> None:
    event = webhooks.verify(BODY, {name.upper(): text for name, text in signed().items()}, SECRET, now=NOW + 299)
    assert isinstance(event, TaskEvent)
    assert (event.id, event.sequence, event.data.status) == ("evt_1", 7, "succeeded")
    assert event.data.outputs[0].url == "https://x.test/1.png"
    assert event.to_dict() == EVENT


def test_a_cloudevent_is_the_same_event() -> None:
    body = render_cloudevent(BODY, "https://taskhook.test", "task_1")
    event = webhooks.verify(body, signed(body), SECRET, now=NOW)
    assert event == webhooks.verify(BODY, signed(), SECRET, now=NOW)


def test_our_headers_are_those_of_standard_webhooks() -> None:
    headers = webhooks.sign(BODY, SECRET)
    assert Webhook(SECRET).verify(BODY.decode(), headers) == EVENT


def test_one_of_several_signatures_and_one_of_several_secrets_is_enough() -> None:
    both = signed() | {"webhook-signature": f"v1,AAAA {signed()['webhook-signature']}"}
    assert webhooks.verify(BODY.decode(), both, [OTHER, SECRET], now=NOW).id == "evt_1"


@pytest.mark.parametrize(
    ("headers", "now", "error"),
    [
        ({"webhook-id": ""}, NOW, MissingHeaderError),
        ({"webhook-signature": ""}, NOW, MissingHeaderError),
        ({"webhook-timestamp": "-1"}, NOW, MissingHeaderError),
        ({"webhook-timestamp": "١٢٣"}, NOW, MissingHeaderError),
        ({}, NOW + 301, TimestampError),
        ({}, NOW - 301, TimestampError),
        ({"webhook-id": "evt_2"}, NOW, SignatureError),
        ({"webhook-timestamp": str(int(NOW) + 1)}, NOW, SignatureError),
        ({"webhook-signature": "v1,é"}, NOW, SignatureError),
        (signed(secret=OTHER), NOW, SignatureError),
    ],
)
def test_what_does_not_hold_is_refused(headers: dict[str, str], now: float, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        webhooks.verify(BODY, signed() | headers, SECRET, now=now)
    assert isinstance(caught.value, WebhookVerificationError)


def test_an_altered_body_is_refused_and_a_longer_tolerance_is_kept_to() -> None:
    with pytest.raises(SignatureError):
        webhooks.verify(BODY + b" ", signed(), SECRET, now=NOW)
    assert webhooks.verify(BODY, signed(), SECRET, 1000, now=NOW + 999).id == "evt_1"
    with pytest.raises(TimestampError):
        webhooks.verify(BODY, signed(), SECRET, 0, now=NOW + 1)


@examples(40)
@given(
    st.one_of(
        st.binary(max_size=200), st.recursive(st.none() | st.text(), st.lists).map(lambda v: json.dumps(v).encode())
    )
)
def test_signed_bytes_that_are_no_event_are_a_payload_error(body: bytes) -> None:
    with pytest.raises(PayloadError):
        webhooks.verify(body, signed(body), SECRET, now=NOW)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_not base64", "hello!"])
def test_a_secret_that_is_none_is_the_callers_mistake(secret: str) -> None:
    with pytest.raises(ValueError, match="secret"):
        webhooks.verify(BODY, signed(), secret, now=NOW)


TEXT = ": hello\r\nid: 1\rdata: a\u2028b\ndata:  c\n\nid: 2\0\nretry: 5\n\ndata\n\nevent: x\ndata: cut".encode()


@examples(40)
@given(st.lists(st.integers(0, len(TEXT))))
def test_frames_are_the_same_whatever_the_pieces(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(TEXT)]
    frames = Frames()
    pieces = [TEXT[start:end] for start, end in itertools.pairwise(places)]
    found = [fields for piece in pieces for fields in frames.feed(piece)]
    assert found == [{"id": "1", "data": "a\u2028b\n c"}, {"retry": "5"}, {"data": ""}]
