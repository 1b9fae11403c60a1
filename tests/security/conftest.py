"""The same world as that of the flows: real processes among real sockets."""

from tests.flows.conftest import pytest_runtest_makereport, world

__all__ = ["pytest_runtest_makereport", "world"]
