"""A callback that must be signed is believed only with its own signature, made within 300 seconds."""

import base64
import hashlib
import hmac
from typing import Any

import pytest

from service.core.observation import Failed, Observation, Unverified
from tests.providers.material import HMAC_KEY, NOW, read, reply

BODY = {"code": 501, "msg": "failed", "data": {"taskId": "task12345"}}


def sign(task_id: str, timestamp: str) -> str:
    return base64.b64encode(hmac.digest(HMAC_KEY.encode(), f"{task_id}.{timestamp}".encode(), hashlib.sha256)).decode()


def signed(timestamp: str, signature: str | None = None, body: Any = BODY) -> Observation:
    headers = {"x-webhook-timestamp": timestamp, "x-webhook-signature": signature or sign("task12345", timestamp)}
    return read("fluxapi-ai", "callback", reply(200, body, headers), signed=True)


@pytest.mark.parametrize("offset", [-300, 0, 300])
def test_a_signature_holds_for_300_seconds_either_way(offset: int) -> None:
    assert isinstance(signed(str(int(NOW.timestamp()) + offset)), Failed)


@pytest.mark.parametrize("offset", [-301, 301])
def test_a_signature_older_or_newer_is_refused(offset: int) -> None:
    assert isinstance(signed(str(int(NOW.timestamp()) + offset)), Unverified)


@pytest.mark.parametrize(
    ("timestamp", "signature", "body"),
    [
        ("1769670760", "AAAA", BODY),
        ("1769670760", "", BODY),
        ("1769670760", "ÿ\udc80", BODY),
        ("1769670760", sign("another", "1769670760"), BODY),
        ("1769670760", None, {"code": 501, "msg": "no task id"}),
        ("1769670760", None, "no JSON"),
        ("", None, BODY),
        ("1769670760.0", None, BODY),
        ("-1", None, BODY),
        ("9" * 30, None, BODY),
        ("1769670760²", None, BODY),
    ],
)
def test_a_signature_that_does_not_hold_is_refused(timestamp: str, signature: str | None, body: Any) -> None:
    headers = {"x-webhook-timestamp": timestamp}
    headers["x-webhook-signature"] = sign("task12345", timestamp) if signature is None else signature
    assert isinstance(read("fluxapi-ai", "callback", reply(200, body, headers), signed=True), Unverified)


def test_the_published_signature_holds() -> None:
    assert sign("task12345", "1769670760") == "iJc+9lRS0+RNENe+floXduDty7iYFX8wYWqN4ZFlyfc="
    assert isinstance(signed("1769670760", "iJc+9lRS0+RNENe+floXduDty7iYFX8wYWqN4ZFlyfc="), Failed)
