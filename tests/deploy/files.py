"""The files in deploy/, parsed."""

import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import load
from service.wiring import Timings
from tests.support.wait import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
GRACE_S = 25
"""What the service promises: it has ended by then."""
OVERLAYS = ("sqlite", "postgresql")
WEB_PATHS = {"/healthz", "/readyz", "/readyz?exclude=worker"}

assert Timings().stop_s < GRACE_S


def read_yaml(path: str) -> Any:
    return yaml.safe_load((DEPLOY / path).read_text())


def parse_env(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(line.partition("=")[::2] for line in lines)


def unknown_settings(environ: dict[str, Any]) -> tuple[str, ...]:
    """Names that look like settings and are none; a value that can't be read raises."""
    known = {name: "" if name.endswith("_FILE") else str(value) for name, value in environ.items()}
    for name in environ:
        if name.endswith("_FILE"):
            assert not unknown_settings({name.removesuffix("_FILE"): ""}), name
    sandbox = {"TASKHOOK_SANDBOX": "true"}
    everything = load(sandbox, None).public_items()
    names = {name for name, _ in everything}
    wrong = {name for name in known if name.startswith("TASKHOOK_") and name.removesuffix("_FILE") not in names}
    return (*sorted(wrong), *load(sandbox | known, None).unknown)


@cache
def build_overlay(name: str) -> list[Any]:
    return build(DEPLOY / "kubernetes" / "overlays" / name)


def build(folder: Path) -> list[Any]:
    """As the cluster would get it."""
    builder = next((path for tool in ("kustomize", "kubectl") if (path := shutil.which(tool))), None)
    if builder is None:
        pytest.skip("neither kustomize nor kubectl is here to build the overlays")
    command = [builder, "build"] if builder.endswith("kustomize") else [builder, "kustomize"]
    built = subprocess.run([*command, str(folder)], capture_output=True, check=True, timeout=PATIENCE_S)
    return list(yaml.safe_load_all(built.stdout))


def of_kind(documents: list[Any], *kinds: str) -> list[Any]:
    return [one for one in documents if one["kind"] in kinds]
