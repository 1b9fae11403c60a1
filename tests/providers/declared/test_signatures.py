"""Recipes of signatures, with the vectors computed for each scheme; each fails when one byte is added to the body."""

import base64
import hmac
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from service.providers.base import HttpReply
from service.providers.declared.converting import Converter
from service.providers.declared.schema import Verify
from service.providers.declared.signatures import mint_hs256, read_key_set, verify

BODY = b'{"id":"w1","status":"completed","outputs":["https://x/1.png"]}'
SENT_AT = 1769670760
WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY_SET = b'{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg"}]}'

STANDARD_WEBHOOKS: dict[str, Any] = {
    "algorithm": "hmac-sha256",
    "message": "{header:webhook-id}.{timestamp}.{raw}",
    "key_strip": "whsec_",
    "key_encoding": "base64",
    "signature": {"header": "webhook-signature", "split": " ", "strip": "v1,", "encoding": "base64"},
    "timestamp": {"header": "webhook-timestamp", "tolerance": 300},
}
WAVESPEED = STANDARD_WEBHOOKS | {
    "key_encoding": "utf8",
    "signature": {"header": "webhook-signature", "strip": "v3,", "encoding": "hex"},
}
ELEVENLABS = {
    "algorithm": "hmac-sha256",
    "message": "{timestamp}.{raw}",
    "signature": {"header": "ElevenLabs-Signature", "item": "v0", "encoding": "hex"},
    "timestamp": {"header": "ElevenLabs-Signature", "item": "t", "tolerance": 1800},
}
BFL = {
    "algorithm": "hmac-sha256",
    "message": "{raw}",
    "signature": {"header": "X-BFL-Signature", "strip": "sha256=", "encoding": "hex"},
}
KIE = {
    "algorithm": "hmac-sha256",
    "message": "{body:body.data.taskId || body.{id: task_id}.id}.{timestamp}",
    "signature": {"header": "X-Webhook-Signature", "encoding": "base64"},
    "timestamp": {"header": "X-Webhook-Timestamp"},
}


def _ed25519(prefix: str, first: str) -> dict[str, Any]:
    return {
        "algorithm": "ed25519",
        "keys": {"jwks": "https://keys.example/jwks.json"},
        "message": f"{{header:{prefix}-{first}}}\n{{header:{prefix}-User-Id}}\n{{timestamp}}\n{{raw.sha256}}",
        "signature": {"header": f"{prefix}-Signature", "encoding": "hex"},
        "timestamp": {"header": f"{prefix}-Timestamp"},
    }


IDEOGRAM = _ed25519("X-Ideogram-Webhook", "Generation-Id")
FAL = _ed25519("X-Fal-Webhook", "Request-Id")
STATIC = {"algorithm": "equals", "signature": {"header": "Authorization"}, "prefix": "Bearer "}
FAL_ID = "123e4567-e89b-12d3-a456-426614174000"

VECTORS = {
    "Standard Webhooks": (
        STANDARD_WEBHOOKS,
        {"webhook-id": "msg_1", "webhook-signature": "v1,p7M7ds6gygo2tPZsCb6lBOPynhUvfnH8iP43tqH/rUk="},
        WHSEC,
        BODY,
    ),
    "WaveSpeed": (
        WAVESPEED,
        {
            "webhook-id": "msg_1",
            "webhook-signature": "v3,fd89d7f9bc819bf2144b5fb8714fbe28f127739390f7ab65f4ba54396d8e8e73",
        },
        WHSEC,
        BODY,
    ),
    "ElevenLabs": (
        ELEVENLABS,
        {
            "elevenlabs-signature": "t=1769670760,v0=25dee25c439189921a28662c9a8e5eff447ebfb3bceccb3b0fd53481bcdbdb3c",
        },
        "wsec_test",
        BODY,
    ),
    "Ideogram": (
        IDEOGRAM,
        {
            "x-ideogram-webhook-generation-id": "gen_1",
            "x-ideogram-webhook-user-id": "user_1",
            "x-ideogram-webhook-signature": "33835c1cfa85ac69cf4261abcbe6c515ca3569547c17f55ecd77bcf4035df526"
            "d5729b43cc396c5f0a7f2d90b48d00d3d8bc11b6995f0b2d6eb50b4b1228b700",
        },
        None,
        BODY,
    ),
    "fal": (
        FAL,
        {
            "x-fal-webhook-request-id": FAL_ID,
            "x-fal-webhook-user-id": "user_1",
            "x-fal-webhook-signature": "f15c247321f40821b07e5c11111147c1ff244795151ba0b63f899802e30631ae"
            "63635d4b97385df9053e8466622067338a8d28a9b78039548580c74d91933e0c",
        },
        None,
        b'{"request_id":"123e4567-e89b-12d3-a456-426614174000","status":"OK"}',
    ),
    "BFL": (
        BFL,
        {"x-bfl-signature": "sha256=b5a6cebfe3420464c6c469d6db248cc72f4d2d44eedb4d9065f6af4a2ead74fb"},
        "your-secret-key-here",
        b'{"id":"4c057b10-7efa-4c69-9ec8-cbbdfd56d918","status":"Ready"}',
    ),
    "kie": (
        KIE,
        {"x-webhook-signature": "iJc+9lRS0+RNENe+floXduDty7iYFX8wYWqN4ZFlyfc="},
        "test-webhook-hmac-key",
        b'{"data": {"taskId": "task12345"}}',
    ),
    "a static value": (STATIC, {"authorization": "Bearer s3cret"}, "s3cret", BODY),
}
TIMESTAMPS = ("webhook-timestamp", "x-webhook-timestamp", "x-fal-webhook-timestamp", "x-ideogram-webhook-timestamp")
each_scheme = pytest.mark.parametrize("scheme", VECTORS)


def recipe(table: dict[str, Any]) -> Verify:
    converter = Converter()
    found = converter.convert(table, Verify, ())
    assert converter.faults == []
    assert isinstance(found, Verify)
    return found


def request(headers: dict[str, str], body: bytes, now: int = SENT_AT) -> HttpReply:
    received_at = datetime.fromtimestamp(now, UTC)
    return HttpReply(status=0, headers=headers, body=body, received_at=received_at)


def judge(scheme: str, *, body: bytes = b"", now: int = SENT_AT, **headers: str | None) -> str | None:
    table, given, secret, signed = VECTORS[scheme]
    changed = {name.replace("_", "-"): value for name, value in headers.items()}
    everything = dict.fromkeys(TIMESTAMPS, str(SENT_AT)) | given | changed
    sent = {name: value for name, value in everything.items() if value is not None}
    return verify(recipe(table), request(sent, signed + body, now), secret, read_key_set(KEY_SET))


@each_scheme
def test_a_documented_signature_is_accepted(scheme: str) -> None:
    assert judge(scheme) is None


@each_scheme
def test_no_signature_covers_a_changed_body_but_those_that_sign_none(scheme: str) -> None:
    is_unsigned = scheme in ("kie", "a static value")
    assert (judge(scheme, body=b" ") is None) is is_unsigned


@each_scheme
def test_a_missing_empty_or_malformed_signature_is_refused(scheme: str) -> None:
    table, given, _, _ = VECTORS[scheme]
    header = table["signature"]["header"].lower().replace("-", "_")
    right = given[table["signature"]["header"].lower()]
    for value in (None, "", "v1,", "zz", "é" * 9, right[:-1], right + "0", right.upper().swapcase()[::-1]):
        assert judge(scheme, **{header: value}), value


@pytest.mark.parametrize("scheme", ["Standard Webhooks", "WaveSpeed", "ElevenLabs", "Ideogram", "fal", "kie"])
def test_a_timestamp_far_from_now_is_refused(scheme: str) -> None:
    tolerance = 1800 if scheme == "ElevenLabs" else 300
    assert judge(scheme, now=SENT_AT + tolerance) is None
    assert judge(scheme, now=SENT_AT - tolerance) is None
    assert judge(scheme, now=SENT_AT + tolerance + 1)
    assert judge(scheme, now=SENT_AT - tolerance - 1)


@pytest.mark.parametrize("timestamp", [None, "", "now", "1769670760.0", "-1", "\N{FULLWIDTH DIGIT ONE}", "9" * 400])
def test_a_malformed_timestamp_is_refused(timestamp: str | None) -> None:
    assert judge("Standard Webhooks", webhook_timestamp=timestamp)


def test_a_wrong_candidate_before_the_right_one_does_no_harm() -> None:
    right = VECTORS["Standard Webhooks"][1]["webhook-signature"]
    assert judge("Standard Webhooks", webhook_signature=f"v1a,xxx v1,AAAA {right}") is None
    assert judge("Standard Webhooks", webhook_signature="v1,AAAA " * 1000 + right)


def test_what_the_signature_covers_must_be_there() -> None:
    assert judge("Standard Webhooks", webhook_id=None)
    headers = VECTORS["kie"][1] | {"x-webhook-timestamp": str(SENT_AT)}
    assert verify(recipe(KIE), request(headers, b"no JSON"), "test-webhook-hmac-key")


def test_without_a_secret_or_a_key_nothing_is_accepted() -> None:
    for table, given, _, body in VECTORS.values():
        sent = request(dict.fromkeys(TIMESTAMPS, str(SENT_AT)) | given, body)
        assert verify(recipe(table), sent, None, ())
        assert verify(recipe(table), sent, "", ())


def test_a_secret_that_is_no_base64_is_used_as_it_is() -> None:
    digest = hmac.digest(b"not base64!", f"msg_1.{SENT_AT}.".encode() + BODY, "sha256")
    signature = f"v1,{base64.b64encode(digest).decode()}"
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(SENT_AT), "webhook-signature": signature}
    assert verify(recipe(STANDARD_WEBHOOKS), request(headers, BODY), "not base64!") is None


def test_any_key_of_the_set_may_have_signed() -> None:
    other = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    keys = msgspec.json.decode(KEY_SET)["keys"]
    table, given, _, body = VECTORS["fal"]
    headers = given | {"x-fal-webhook-timestamp": str(SENT_AT)}
    key_set = read_key_set(msgspec.json.encode({"keys": [other, *keys]}))
    assert len(key_set) == 2
    assert verify(recipe(table), request(headers, body), None, key_set) is None
    assert verify(recipe(table), request(headers, body), None, key_set[:1])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": 5}',
        b'{"keys": [1]}',
        b'{"keys": [{"x": 5}]}',
        b'{"keys": [{"x": "AA"}]}',
        b'{"keys": [{"kty": "RSA", "x": "A"}]}',
    ],
)
def test_what_is_no_key_set_has_no_keys(body: bytes) -> None:
    assert read_key_set(body) == ()


def test_a_minted_token_is_the_documented_one() -> None:
    claims = {"iss": "ak_test", "exp": SENT_AT + 1800, "nbf": SENT_AT - 5}
    assert mint_hs256(claims, "sk_test") == (
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJha190ZXN0IiwiZXhwIjoxNzY5NjcyNTYwLCJuYmYiOjE3Njk2NzA3NTV9"
        ".hE_kjHcEkp4sgiRGdiEl7CIRTobB0tfusemkBzI8sMs"
    )
