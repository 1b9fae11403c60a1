"""Outputs of a task: what kind they are, and what of a payload is left out."""

import base64

import msgspec
import pytest

from service.core.inline import INLINE_MAX, omit_inline
from service.core.outputs import kind_of, to_output
from service.core.task import Image

PICTURE = base64.b64encode(bytes(range(256)) * 40).decode()


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [
        ("image/png", "image"),
        ("video/mp4", "video"),
        ("AUDIO/mpeg", "audio"),
        ("model/gltf-binary", "model3d"),
        ("application/zip", "file"),
        (None, "image"),
    ],
)
def test_the_media_type_decides_the_kind(content_type: str | None, kind: str) -> None:
    assert kind_of(content_type) == kind


def test_an_output_keeps_what_was_said_of_its_link() -> None:
    output = to_output(Image(url="https://x/a.mp4", content_type="video/mp4", width=3, original_url="https://x/o.mp4"))
    assert (output.kind, output.url, output.width) == ("video", "https://x/a.mp4", 3)
    assert (output.original_url, output.text, output.duration_s) == ("https://x/o.mp4", None, None)


@pytest.mark.parametrize("spelled", [PICTURE, f"data:image/png;base64,{PICTURE}", PICTURE.replace("/", "\\/")])
def test_base64_content_is_left_out_of_the_payload(spelled: str) -> None:
    raw = msgspec.Raw(f'{{"data": [{{"b64_json": "{spelled}", "seed": 1}}]}}'.encode())
    assert bytes(omit_inline(raw)) == b'{"data": [{"b64_json": {"omitted_bytes":10240}, "seed": 1}]}'


def test_a_payload_without_base64_stays_byte_for_byte() -> None:
    short = "A" * INLINE_MAX
    for payload in (b'{"a": 1.0}', f'{{"key": "{short}", "text": "{"two words " * 1000}"}}'.encode()):
        assert bytes(omit_inline(msgspec.Raw(payload))) == payload
