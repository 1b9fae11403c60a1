"""Work on a row that fails by a mistake puts that row aside, so that it neither comes back at once nor stops others."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from service.core.problems import Unavailable
from service.store import faults
from service.store.batch import Batch
from service.store.writer import Writer

AGAIN_FIRST_S = 0.5
AGAIN_MAX_S = 8.0


def again_s(tries: int) -> float:
    """Before what was learned is written again, after that many tries that the database could not take."""
    return min(AGAIN_FIRST_S * 2.0 ** min(tries, 10), AGAIN_MAX_S)


@asynccontextmanager
async def putting_aside(writer: Writer, subject_id: str) -> AsyncIterator[None]:
    try:
        yield
    except Unavailable:
        raise
    except Exception as error:
        noted = error

        async def work(batch: Batch) -> None:
            await faults.note(batch, subject_id, noted)

        with suppress(Unavailable):  # it comes back after its lease, and is counted then
            await writer.run(work)
        raise
