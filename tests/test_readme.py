"""The README's samples run: each verifies an event that this service signed, and refuses one that was altered."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from service.core.signing import render_secret, sign

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()
SECRET, OLD = render_secret(b"s" * 32), render_secret(b"o" * 32)
BODY = '{"id":"evt_1","data":{"prompt":"é"}}'

HOSTILE: tuple[dict[str, str], ...] = (
    {},
    {"webhook-id": "evt_1", "webhook-timestamp": "soon", "webhook-signature": "v1,"},
    {"webhook-id": "evt_1", "webhook-timestamp": "9" * 5000, "webhook-signature": "v1,AAAA"},
    {"webhook-id": "evt_1", "webhook-timestamp": "1.5e9"},
    {"webhook-timestamp": "NOW", "webhook-signature": "v1,\u00e9 v1a,AAAA ,"},
)
"""Headers of a stranger: the samples return false and never throw. NOW stands for a fresh timestamp."""


def hostile_headers() -> list[dict[str, str]]:
    return [{name: value.replace("NOW", str(int(time.time()))) for name, value in sent.items()} for sent in HOSTILE]


def sample(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found, language
    return found[1]


def headers() -> dict[str, str]:
    return sign([SECRET, OLD], "evt_1", int(time.time()), BODY.encode())


def test_the_python_sample() -> None:
    names: dict[str, object] = {}
    exec(sample("python"), names)
    verify: Callable[..., bool] = names["verify"]  # type: ignore[assignment]
    assert verify(SECRET, headers(), BODY.encode()) and verify(OLD, headers(), BODY.encode())
    assert not verify(SECRET, headers(), BODY.encode() + b" ")
    assert not verify(SECRET, {**headers(), "webhook-timestamp": "1"}, BODY.encode())
    assert verify(SECRET, {name.title(): value for name, value in headers().items()}, BODY.encode())
    stranger = {"webhook-timestamp": str(int(time.time())), "webhook-signature": "v1,\udc80", "webhook-id": "\udc80"}
    assert [verify(SECRET, sent, BODY.encode()) for sent in (*hostile_headers(), stranger)] == [False] * 6


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
def test_the_node_sample(tmp_path: Path) -> None:
    script = tmp_path / "verify.js"
    given = f"{SECRET!r}, {headers()!r}"
    script.write_text(
        f"{sample('javascript')}\n"
        f"const given = [{given}];\n"
        f"console.log(verify(...given, {BODY!r}), verify(...given, Buffer.from({BODY!r})));\n"
        f"console.log(verify(...given, {BODY + ' '!r}));\n"
        f"console.log({json.dumps(hostile_headers())}.some((sent) => verify({SECRET!r}, sent, {BODY!r})));\n"
    )
    done = subprocess.run(["node", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["true", "true", "false", "false"]


@pytest.mark.skipif(not shutil.which("go"), reason="go is not installed")
def test_the_go_sample(tmp_path: Path) -> None:
    packages = (
        "crypto/hmac",
        "crypto/sha256",
        "encoding/base64",
        "fmt",
        "math",
        "net/http",
        "strconv",
        "strings",
        "time",
    )
    quoted = "\n".join(f'\t"{package}"' for package in packages)
    setters = "\n".join(f"\th.Set({name!r}, {value!r})" for name, value in headers().items()).replace("'", '"')
    strangers = ", ".join(json.dumps(sent) for sent in hostile_headers())
    (tmp_path / "main.go").write_text(
        f"package main\n\nimport (\n{quoted}\n)\n\n{sample('go')}\nfunc main() {{\n\th := http.Header{{}}\n{setters}\n"
        f'\tfmt.Println(Verify("{SECRET}", h, []byte(`{BODY}`)), Verify("{SECRET}", h, []byte(`{BODY} `)))\n'
        f"\tfor _, sent := range []map[string]string{{{strangers}}} {{\n\t\th := http.Header{{}}\n"
        f"\t\tfor name, value := range sent {{\n\t\t\th.Set(name, value)\n\t\t}}\n"
        f'\t\tfmt.Println(Verify("{SECRET}", h, []byte(`{BODY}`)))\n\t}}\n}}\n'
    )
    done = subprocess.run(["go", "run", "main.go"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["true", "false", *["false"] * len(HOSTILE)], done.stderr


def test_the_first_commands_are_the_ones_that_exist() -> None:
    assert "\n    make run\n" in README and "`make test`" in README
