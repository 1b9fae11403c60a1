"""An offline simulator of the image providers, each in its own wire format."""

from service.sandbox.app import Sandbox
from service.sandbox.faults import FAULTS

__all__ = ["FAULTS", "Sandbox"]
