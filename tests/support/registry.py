"""The built-in providers."""

from service.providers.registry import build_registry

PROVIDERS = build_registry()
