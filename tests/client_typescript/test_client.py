"""The TypeScript client: its types are those of the API, it compiles strictly, packs, and works against a service."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from service.web.openapi import build_document
from service.web.routes import OPERATIONS
from tests.support.service import API_KEY, Service

ROOT = Path(__file__).parents[2] / "clients" / "typescript"
PACKAGE_MAX_BYTES = 120_000

pytestmark = pytest.mark.skipif(
    shutil.which("npm") is None, reason="no Node.js here (Debian: apt-get install nodejs npm)"
)


def run(*command: str, **env: str) -> str:
    done = subprocess.run(command, check=False, cwd=ROOT, env={**os.environ, **env}, capture_output=True)
    output = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, f"{' '.join(command)}\n{output}"
    return output


@pytest.fixture(scope="module")
def built() -> None:
    """Install the pinned tools once, and compile with `strict`."""
    if not (ROOT / "node_modules" / ".package-lock.json").exists():
        run("npm", "ci", "--no-audit", "--no-fund")
    run("npx", "tsc", "-p", "tsconfig.json")


def test_the_types_are_those_of_the_api(built: None, tmp_path: Path) -> None:
    document = tmp_path / "openapi.json"
    document.write_bytes(msgspec.json.encode(build_document(OPERATIONS)))
    run("npx", "openapi-typescript", str(document), "-o", str(tmp_path / "schema.ts"))
    made, kept = (tmp_path / "schema.ts").read_text(), (ROOT / "src" / "schema.ts").read_text()
    assert made == kept, "run: make typescript-types"


def test_the_package_has_what_a_user_needs_and_no_dependencies(built: None) -> None:
    (packed,) = json.loads(run("npm", "pack", "--dry-run", "--json", "--ignore-scripts"))
    names = {file["path"] for file in packed["files"]}
    assert {"dist/index.js", "dist/index.d.ts", "README.md", "package.json"} <= names
    assert not any(name.startswith(("src/", "test/")) for name in names)
    assert packed["size"] < PACKAGE_MAX_BYTES
    assert "dependencies" not in json.loads((ROOT / "package.json").read_text())


async def test_the_client_works_against_a_service(built: None, tmp_path: Path) -> None:
    service = Service(tmp_path, env={"TASKHOOK_SANDBOX": "true"})
    try:
        await service.start()
        run("node", "--test", "test/service.test.mjs", TASKHOOK_URL=service.url, TASKHOOK_API_KEY=API_KEY)
    finally:
        await service.close()
