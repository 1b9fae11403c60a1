"""Clients that are generated from our OpenAPI document compile, and run their first task."""

import re
import shutil
from pathlib import Path

import pytest

from tests.interop.conftest import HERE, ended, given, needs, python, run_beside
from tests.support.service import Service

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.xdist_group("interop")]


def check(output: str, service: Service) -> None:
    seen = ended(output)
    assert seen["id"].startswith("task_")
    assert seen["status"] == "succeeded"
    assert seen["url"].startswith(f"{service.url}/sandbox/")


async def compile_and_run(folder: Path, program: str, service: Service) -> str:
    """With `tsc --strict`, libraries' types included."""
    config = (folder / "tsconfig.json").read_text().replace("ENTRY", f"{program}.ts")
    (folder / "tsconfig.json").write_text(config)
    await run_beside("npx", "tsc", "-p", "tsconfig.json", cwd=folder)
    return await run_beside("node", f"out/{program}.js", cwd=folder, **given(service))


async def test_openapi_typescript(node_project: Path, document: Path, service: Service) -> None:
    await run_beside("npx", "openapi-typescript", document, "-o", "schema.ts", cwd=node_project)
    check(await compile_and_run(node_project, "openapi_typescript", service), service)


async def test_hey_api(node_project: Path, document: Path, service: Service) -> None:
    options = ("-i", document, "-o", "hey", "-c", "@hey-api/client-fetch", "--silent")
    await run_beside("npx", "openapi-ts", *options, cwd=node_project)
    for path in (node_project / "hey").rglob("*.ts"):  # Node's own modules are named with their suffix
        path.write_text(_with_suffixes(path.read_text(), path))
    check(await compile_and_run(node_project, "hey_api", service), service)


def _with_suffixes(source: str, path: Path) -> str:
    def name(found: re.Match[str]) -> str:
        target = path.parent / found[2]
        return f"{found[1]}{found[2]}{'/index.js' if target.is_dir() else '.js'}{found[3]}"

    return re.sub(r"(from ')(\.{1,2}/[^']+?)(')", name, source)


async def test_openapi_python_client(python_tools: Path, document: Path, service: Service, tmp_path: Path) -> None:
    generated = tmp_path / "taskhook_generated"
    tool = python(python_tools, "generate.py")
    await run_beside(*tool, "generate", "--path", document, "--output-path", generated, "--meta", "none", cwd=tmp_path)
    output = await run_beside(
        *python(python_tools, "first_task.py"), cwd=tmp_path, GENERATED=str(tmp_path), **given(service)
    )
    check(output, service)


async def test_openapi_generator_for_go(python_tools: Path, document: Path, service: Service, tmp_path: Path) -> None:
    needs("java", "go")
    jar = python_tools / "openapi_generator_cli" / "openapi-generator.jar"
    names = "packageName=taskhook,isGoSubmodule=false,enumClassPrefix=true,withGoMod=false"
    options = ("generate", "-g", "go", "-i", document, "-o", tmp_path / "taskhook", f"--additional-properties={names}")
    await run_beside("java", "-jar", jar, *options, cwd=tmp_path)
    shutil.rmtree(tmp_path / "taskhook" / "test", ignore_errors=True)
    (tmp_path / "go.mod").write_text("module example.com/taskhook-interop\n\ngo 1.22\n")
    shutil.copy(HERE / "go" / "first_task.go.txt", tmp_path / "main.go")
    await run_beside("go", "build", "-o", "first_task", ".", cwd=tmp_path, GOFLAGS="-mod=mod")
    check(await run_beside(tmp_path / "first_task", cwd=tmp_path, **given(service)), service)
