"""Shared by all tests."""

import signal
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

pytest.register_assert_rewrite("tests.support", "tests.replicas.load")

settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
"""A shell starts what is to run in the background with SIGINT ignored, and every process of a test inherits that."""

LONG = ("chaos", "replicas", "fuzz", "browser", "flows", "cli", "docs", "security", "store", "examples")
"""The folders whose tests wait and start processes. They begin first, so that none of them is left for the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _rank(item.path))


def _rank(path: Path) -> int:
    folder = path.relative_to(Path(__file__).parent).parts[0]
    return LONG.index(folder) if folder in LONG else len(LONG)


@pytest.fixture(scope="module", autouse=True)
def plain_log() -> None:
    """Log in plain text, which is shown with a failure; terminal rendering would cost more than the tested code."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["level", "event"]),
        ]
    )
