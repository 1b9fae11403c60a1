"""The page of quarantined rows: their reasons, and a retry."""

from service.dashboard.visit import Visit
from service.web.calls import Answer
from service.web.faults import FaultList, FaultView

PLACES = {"task": "/tasks", "delivery": "/deliveries", "endpoint": "/endpoints"}


async def show(visit: Visit) -> Answer:
    found = await visit.ask("GET /v1/faults", FaultList)
    return visit.render("faults.html", faults=found.data, places=PLACES)


async def retry(visit: Visit) -> Answer:
    fault_id: str = visit.scope["path_params"]["id"]
    taken_up = await visit.ask("POST /v1/faults/{id}/retry", FaultView, id=fault_id)
    return visit.redirect("/faults", f"The {taken_up.kind} is taken up again.")
