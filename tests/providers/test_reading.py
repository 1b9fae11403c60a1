"""The small readers that all the providers share."""

from typing import Any

import pytest

from service.providers import replies
from service.providers.base import DEPTH_MAX
from tests.providers.material import reply

DAY_S = 86_400.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("30", 30.0),
        (" 30 ", 30.0),
        ("1.5", 1.5),
        ("0", None),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("inf", None),
        ("1e3", None),
        ("1_000", None),
        ("٣٠", None),
        ("999999999", DAY_S),
        ("9" * 400, DAY_S),
        ("Thu, 29 Jan 2026 07:13:40 GMT", 60.0),
        ("Thu, 29 Jan 2026 08:13:40 +0100", 60.0),
        ("Thu, 29 Jan 2026 07:13:40 -0000", 60.0),
        ("Thu, 29 Jan 2026 07:12:39 GMT", None),
        ("Thu, 29 Jan 2099 07:12:39 GMT", DAY_S),
        ("Thu, 99 Jan 2026 07:12:39 GMT", None),
        ("Thu, 29 Jan 99999 07:12:39 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_bounded_to_a_day(value: str, seconds: float | None) -> None:
    assert replies.retry_after_s(reply(429, headers={"retry-after": value})) == seconds


def test_what_is_nested_too_deep_for_other_readers_is_no_answer() -> None:
    def nested(levels: int) -> bytes:
        return b'{"a":' * levels + b"1" + b"}" * levels

    assert replies.decode_object(nested(DEPTH_MAX - 1)) is not None
    assert replies.decode_object(nested(DEPTH_MAX + 1)) is None


def test_without_retry_after_there_is_no_time() -> None:
    assert replies.retry_after_s(reply(429)) is None


@pytest.mark.parametrize(
    ("value", "task_id"),
    [
        ("task_flux_abc123", "task_flux_abc123"),
        ("a/b", "a/b"),
        ("", None),
        ("..", None),
        (".", None),
        ("a b", None),
        ("a\n", None),
        ("x" * 257, None),
        (7, "7"),
        (True, None),
        (7.5, None),
        (["t1"], None),
        (None, None),
    ],
)
def test_a_task_id_can_stand_in_a_url(value: Any, task_id: str | None) -> None:
    assert replies.read_task_id(value) == task_id


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("https://x.example/a.PNG?sig=1", "image/png"),
        ("https://x.example/a.jpg", "image/jpeg"),
        ("https://x.example/a.jpeg#f", "image/jpeg"),
        ("https://x.example/a.webp", "image/webp"),
        ("https://x.example/a.png/b", None),
        ("https://x.png/", None),
        ("https://x.example/a", None),
    ],
)
def test_a_content_type_is_known_by_the_suffix_alone(url: str, kind: str | None) -> None:
    assert replies.content_type(url) == kind


@pytest.mark.parametrize(
    ("text", "tidied"),
    [
        ("a\x00b\r\nc\u202ed\x1b[0m", "a b c d [0m"),
        ("x" * 600, "x" * 500),
        ("\ud800", ""),
        ("key sk-abc123, again", "key sk-***, again"),
        ("Authorization: Bearer abc", "Authorization: Bearer ***"),
    ],
)
def test_texts_are_one_bounded_line_without_keys(text: str, tidied: str) -> None:
    assert replies.tidy(text) == tidied


@pytest.mark.parametrize(
    ("value", "code"),
    [(400, "400"), ("500", "500"), ("FAILED\n", "FAILED"), (None, None), ("", None), (True, None), ({}, None)],
)
def test_a_code_is_a_number_or_a_word(value: Any, code: str | None) -> None:
    assert replies.read_code(value) == code


def test_nesting_is_bounded_well_below_the_stack() -> None:
    assert replies.decode_object(b'{"a":' * 90 + b"1" + b"}" * 90) is not None
    assert replies.decode_object(b'{"a":' * 110 + b"1" + b"}" * 110) is None
    assert replies.decode_object(b'{"a": "' + b"[" * 500 + b'"}') == {"a": "[" * 500}
