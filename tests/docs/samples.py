"""The samples of all pages: where each stands, what it says of itself, and which of them nothing can run."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import dedent

from scripts.site.links import BROUGHT, MADE, ROOT
from scripts.site.made import fill

PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
PAGES += ["README.md", *BROUGHT]
QUICKSTART = "docs/quickstart.md"
BLOCK = re.compile(
    r'(?:^<!-- sample: runs on, ready at "(?P<ready>.+)" -->\n)?'
    r"^```(?P<language>\w*)(?P<rest>.*)\n(?P<fenced>(?:.*\n)*?)```$"
    r"|(?<=\n\n)(?P<indented>(?: {4}.*\n|\n(?= {4}))+)",
    re.MULTILINE,
)
TITLE = re.compile(r'title="([^"]+)"')

CLIENT = "clients/python/README.md"
DRAWN = "a drawing"
NO_FAULT = "a healthy service has no fault; tests/flows/test_poison.py makes this call"
NO_CONTAINERS = "needs a container engine or a cluster; tests/deploy examines the files"
NOT_RUN = {
    ("README.md", "your app ── POST /v1/tasks"): DRAWN,
    ("README.md", "TASKHOOK_SECRET_KEYS=..."): "settings without their values",
    (CLIENT, "pip install taskhook-client"): "needs a package index",
    ("CONTRIBUTING.md", "make test"): "runs all tests",
    ("CONTRIBUTING.md", ".venv/bin/python -m pytest"): "runs tests itself, for minutes",
    ("docs/architecture.md", "layer "): "drawn from the code: tests/test_architecture.py",
    ("docs/cli.md", "taskhook check-receiver"): "the quickstart runs it",
    ("docs/deployment.md", "mkdir --mode 700 deploy/secrets"): NO_CONTAINERS,
    ("docs/deployment.md", "location /hooks/"): "tests/deploy/test_nginx.py runs nginx so",
    ("docs/deployment.md", "taskhook.example.com {"): "needs a domain",
    ("docs/deployment.md", "kubectl create namespace taskhook"): NO_CONTAINERS,
    ("docs/deployment.md", "python3 -m venv /opt/taskhook"): "needs systemd; tests/deploy examines the units",
    ("docs/migrations.md", "-- runs with: 0006"): "the beginning of a migration; tests/store applies real ones",
    ("docs/migrations.md", "systemctl stop taskhook"): "needs systemd; tests/flows/test_moving.py moves",
    ("docs/operations.md", "curl -X POST "): NO_FAULT,
    ("docs/operations.md", ".venv/bin/python -m pytest -s tests/replicas"): "runs tests itself, for minutes",
    ("docs/reference.md", 'curl -s -X POST "$TASKHOOK_URL/v1/providers/'): "needs an account whose key was refused",
    ("docs/reference.md", 'curl -s -X POST "$TASKHOOK_URL/v1/faults/$FAULT_ID/retry"'): NO_FAULT,
    ("docs/scaling.md", ".venv/bin/python -m bench.scale"): "measures for half an hour",
    ("docs/tracing.md", "pip install 'taskhook[otel]'"): "needs a package index; tests/flows/test_tracing.py traces",
    ("docs/tracing.md", "your application's span"): DRAWN,
    ("docs/tracing.md", "docker compose -f deploy/compose.yaml build"): NO_CONTAINERS,
}
"""By page and beginning, what nothing runs, and why."""
BY_OTHER_TESTS = {
    ("README.md", "python"): "tests/test_readme.py::test_the_python_sample",
    ("README.md", "javascript"): "tests/test_readme.py::test_the_node_sample",
    ("README.md", "go"): "tests/test_readme.py::test_the_go_sample",
}


@dataclass(frozen=True)
class Sample:
    """A block of code on a page; an indented one has no language. `ready` is what it prints when it goes on running."""

    page: str
    text: str
    language: str = ""
    title: str = ""
    ready: str = ""

    @property
    def first_line(self) -> str:
        return self.text.partition("\n")[0].strip()

    def __str__(self) -> str:
        return f"{self.page}: {self.first_line[:60]}"


def find_samples() -> list[Sample]:
    return [sample for page in PAGES for sample in _of_page(page, (ROOT / page).read_text())]


def find_shown() -> set[str]:
    """Files of the repository that pages show whole."""
    marks = (mark for page in PAGES for mark in MADE.finditer((ROOT / page).read_text()))
    return {mark["words"].strip() for mark in marks if mark["what"] == "file"}


def _of_page(page: str, markdown: str) -> Iterator[Sample]:
    """Yield the samples of a page, those made from the code included; shown files are samples of their own."""
    own = MADE.sub(lambda mark: "" if mark["what"] in ("file", "sample") else mark[0], markdown)
    for block in BLOCK.finditer(fill(own)):
        if block["indented"] is not None:
            yield Sample(page, dedent(block["indented"]).rstrip())
        else:
            title = TITLE.search(block["rest"])
            yield Sample(page, block["fenced"], block["language"], title[1] if title else "", block["ready"] or "")


SAMPLES = find_samples()
STEPS = [sample for sample in SAMPLES if sample.page == QUICKSTART]
STEP_TEXTS = {sample.text.strip() for sample in STEPS}


def kind(sample: Sample) -> str:
    if any(sample.page == page and sample.first_line.startswith(beginning) for page, beginning in NOT_RUN):
        return "not run"
    if sample.page == QUICKSTART or sample.text.strip() in STEP_TEXTS:
        return "quickstart"
    if (sample.page, sample.language) in BY_OTHER_TESTS:
        return "by another test"
    if sample.page == CLIENT and sample.language == "python":
        return "client"
    return {"bash": "shell", "": "shell", "json": "json", "yaml": "yaml", "toml": "toml"}.get(
        sample.language, "nobody runs it"
    )


def of_kind(wanted: str) -> list[Sample]:
    return [sample for sample in SAMPLES if kind(sample) == wanted]
