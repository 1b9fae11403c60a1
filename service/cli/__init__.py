"""The command line. Everything it knows of the service comes over the public HTTP API, or from its settings."""

from service.cli.root import cli, main

__all__ = ["cli", "main"]
