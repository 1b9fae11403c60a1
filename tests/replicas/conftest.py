"""The same parts as in the flows; each module starts two webs and two workers of its own."""

from tests.flows.conftest import pytest_runtest_makereport, world

__all__ = ["pytest_runtest_makereport", "world"]
