"""The audit of dependencies: what is known fails it, a service that is away does not."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from scripts.audit import audit

FLAW = {"id": "GHSA-made-up", "summary": "made up", "affected": [], "aliases": [], "details": "made up"}


class Advisories(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        flaws = [flaw(asked["package"]["name"])] if asked["package"]["name"] == "flawed" else []
        said = json.dumps({"vulns": flaws}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


def flaw(name: str) -> dict[str, object]:
    ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0"}]}]
    affected = [{"package": {"ecosystem": "PyPI", "name": name}, "ranges": ranges, "versions": ["1.0"]}]
    return FLAW | {"affected": affected}


@pytest.fixture
def service() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Advisories)
    threading.Thread(target=server.serve_forever).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query"
    server.shutdown()
    server.server_close()


def lock(folder: Path, name: str) -> Path:
    file = folder / "requirements.lock"
    file.write_text(f"{name}==1.0 --hash=sha256:{'0' * 64}\n")
    return file


def test_a_known_flaw_fails_it_and_is_named(tmp_path: Path, service: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert audit(lock(tmp_path, "flawed"), service) == 1
    assert capfd.readouterr().err.strip() == "flawed 1.0: GHSA-made-up, fixed in 2.0"


def test_nothing_known_passes_it(tmp_path: Path, service: str) -> None:
    assert audit(lock(tmp_path, "sound"), service) == 0


def test_a_service_that_is_away_is_told_and_passes_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert audit(lock(tmp_path, "sound"), "http://127.0.0.1:9/v1/query") == 0
    assert "can't be reached" in capfd.readouterr().err


def test_a_broken_lock_fails_it(tmp_path: Path, service: str) -> None:
    (tmp_path / "requirements.lock").write_text("no-hash==1.0\n")
    assert audit(tmp_path / "requirements.lock", service) == 1
