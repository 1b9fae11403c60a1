"""An installed package has every template and file of the dashboard, and each template compiles."""

import shutil
import subprocess
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

from service.dashboard.pages import Templates

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("service/dashboard/templates", "service/dashboard/static")
FILES = sorted(path for place in PLACES for path in (ROOT / place).iterdir() if path.is_file())


def test_a_wheel_holds_all_that_is_in_the_package() -> None:
    """Hatchling takes whole packages, but leaves out what version control ignores."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert "service" in wheel["packages"] and "exclude" not in wheel and "only-include" not in wheel
    assert {path.suffix for path in FILES} == {".html", ".css", ".js", ".svg", ".woff2", ".txt"}
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("no version control here: what it ignores can't be asked for")
    asked = [str(path.relative_to(ROOT)) for path in FILES]
    ignored = subprocess.run(
        [git, "check-ignore", "--no-index", *asked], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (ignored.stdout, ignored.returncode) == ("", 1)


@pytest.mark.parametrize("name", sorted(path.name for path in FILES if path.suffix == ".html"))
def test_a_template_is_found_in_the_package_and_compiles(name: str) -> None:
    assert (files("service.dashboard") / "templates" / name).is_file()
    assert Templates("/assets/x")._environment.get_template(name).blocks is not None
