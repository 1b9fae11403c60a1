"""Other people's tools, each with its lock file, installed once for each content of it below `.cache/`."""

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from service.web.openapi import build_document
from service.web.routes import OPERATIONS
from tests.support.receiver import Receiver
from tests.support.service import API_KEY, Service

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".cache" / "interop"
MODEL = "fluxapi-ai/flux-kontext-pro"


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    """The output of a command that ends well."""
    done = subprocess.run(command, check=False, cwd=cwd, env={**os.environ, **env}, capture_output=True)
    output = (done.stdout + done.stderr).decode("utf-8", "replace")
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{output[-5_000:]}"
    return done.stdout.decode()


async def run_beside(*command: str | Path, cwd: Path, **env: str) -> str:
    """The same while the loop goes on."""
    return await asyncio.to_thread(lambda: run(*command, cwd=cwd, **env))


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Only one of the test processes installs."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def installed(name: str, lock_files: list[Path], install: Callable[[Path], None]) -> Path:
    """The folder of tools that fit the lock files. A folder is complete or not there."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in lock_files)).hexdigest()[:16]
    folder = CACHE / f"{name}-{digest}"
    with locked(name):
        if not folder.exists():
            part = CACHE / f"{name}-{digest}.part"
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            install(part)
            part.rename(folder)
    return folder


def needs(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


@pytest.fixture(scope="package")
def python_tools() -> Path:
    """The site-packages of the Python tools: not those of our own tests, whose libraries need older ones."""

    def install(folder: Path) -> None:
        builder = venv.EnvBuilder(with_pip=True)
        builder.create(folder / "venv")
        options = ("--quiet", "--disable-pip-version-check", "--require-hashes", "--target", folder / "site")
        run(folder / "venv/bin/python", "-m", "pip", "install", *options, "-r", lock, cwd=folder)
        shutil.rmtree(folder / "venv")

    lock = HERE / "python" / "requirements.lock"
    return installed("python", [lock], install) / "site"


@pytest.fixture(scope="package")
def node_tools() -> Path:
    """A folder with `node_modules`; programs are copied into it."""
    needs("node", "npm")

    def install(folder: Path) -> None:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / "node" / name, folder)
        run("npm", "ci", "--no-audit", "--no-fund", "--silent", cwd=folder)

    return installed("node", [HERE / "node" / "package-lock.json"], install)


@pytest.fixture
def node_project(node_tools: Path, tmp_path: Path) -> Path:
    """A folder of this test that finds the packages."""
    (tmp_path / "node_modules").symlink_to(node_tools / "node_modules")
    for path in (HERE / "node").glob("*.*"):
        shutil.copy(path, tmp_path)
    return tmp_path


@pytest.fixture(scope="package")
def document(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("document") / "openapi.json"
    path.write_bytes(msgspec.json.encode(build_document(OPERATIONS)))
    return path


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    made = Service(tmp_path_factory.mktemp("interop"), env={"TASKHOOK_SANDBOX": "true"})
    try:
        yield await made.start()
    finally:
        await made.close()


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as made:
        yield made


def given(service: Service) -> dict[str, str]:
    """Return the environment variables that each program reads."""
    return {"TASKHOOK_URL": service.url, "TASKHOOK_API_KEY": API_KEY, "MODEL": MODEL}


def python(site: Path, script: str) -> list[str | Path]:
    """A program with the tools of `site`, and without those of our tests."""
    start = f"import sys; sys.path.insert(0, {str(site)!r}); sys.argv = sys.argv[1:]; import runpy; "
    return [
        sys.executable,
        "-S",
        "-c",
        f"{start}runpy.run_path(sys.argv[0], run_name='__main__')",
        HERE / "python" / script,
    ]


def ended(output: str) -> dict[str, str]:
    """The last line of a program that ran its first task: what it saw of it."""
    found: dict[str, str] = json.loads(output.strip().splitlines()[-1])
    return found
