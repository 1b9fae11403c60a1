"""The version of this client, read by the build and told to the service."""

__version__ = "0.1.0"
