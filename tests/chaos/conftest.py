"""The same parts as in the flows."""

from tests.flows.conftest import world

__all__ = ["world"]
