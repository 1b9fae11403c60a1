"""Limits of receiver checks, because a check posts a dozen requests to a URL that a user chose."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.core.problems import Conflict
from service.web.slots import Slots

AGAIN_S = 10.0
AT_ONCE = 4
KNOWN_MAX = 1_000


class Checks:
    """The checks that run in this process."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._slots = Slots(AT_ONCE, "checks of receivers")
        self._shut_until: OrderedDict[str, float] = OrderedDict()

    @contextmanager
    def one(self, endpoint_id: str) -> Iterator[None]:
        """Raises Conflict while this endpoint is checked and for a while after it, Unavailable when there are many."""
        if self._clock() < self._shut_until.get(endpoint_id, 0.0):
            raise Conflict("This endpoint is being checked, or was a moment ago. Try again in ten seconds.")
        with self._slots:
            self._shut(endpoint_id, float("inf"))
            try:
                yield
            finally:
                self._shut(endpoint_id, self._clock() + AGAIN_S)

    def _shut(self, endpoint_id: str, until: float) -> None:
        self._shut_until[endpoint_id] = until
        self._shut_until.move_to_end(endpoint_id)
        if len(self._shut_until) > KNOWN_MAX:
            self._shut_until.popitem(last=False)
