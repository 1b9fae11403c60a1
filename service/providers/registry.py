"""The providers of an installation: a value, built once at start and handed to whatever needs it."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from service.core.account import ID_SHAPE
from service.providers.acedata import Acedata
from service.providers.base import Provider
from service.providers.flux_context import FluxContext
from service.providers.fluxapi_ai import FluxapiAi
from service.providers.fluxapi_org import FluxapiOrg

Registry = Mapping[str, Provider]
"""By id, in order: a bare model name goes to the first configured provider that declares it."""


def build_registry() -> Registry:
    """Every provider that there is."""
    return register((FluxContext(), FluxapiAi(), Acedata(), FluxapiOrg()))


def register(providers: Iterable[Provider]) -> Registry:
    """Raises ValueError for an id that is malformed or taken."""
    found: dict[str, Provider] = {}
    for provider in providers:
        if not ID_SHAPE.fullmatch(provider.id):
            raise ValueError(f"{provider.id!r} is no provider id: use lower-case words joined by hyphens.")
        if provider.id in found:
            raise ValueError(f"There are two providers with the id {provider.id}.")
        found[provider.id] = provider
    return MappingProxyType(found)
