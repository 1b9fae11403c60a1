"""The providers Taskhook speaks to: one file each, one line each in the registry below.

A bare model name goes to the first of them that is configured and has it.
"""

from service.providers.acedata import Acedata
from service.providers.base import Provider
from service.providers.flux_context import FluxContext
from service.providers.fluxapi_ai import FluxapiAi
from service.providers.fluxapi_org import FluxapiOrg

PROVIDERS: dict[str, Provider] = {
    FluxContext.id: FluxContext(),
    FluxapiAi.id: FluxapiAi(),
    Acedata.id: Acedata(),
    FluxapiOrg.id: FluxapiOrg(),
}
