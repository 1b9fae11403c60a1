"""Failed attempts by address, in a sliding window and in bounded memory."""

import ipaddress
import math
from collections import OrderedDict, deque
from collections.abc import Callable

FAILURES_MAX = 60
WINDOW_S = 60.0
ADDRESSES_MAX = 10_000


class Failures:
    """Recent failures by address. The least recently seen addresses are forgotten first."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def note(self, address: str) -> float | None:
        """Writes one down; the seconds to stay away when there were too many, which are not counted again."""
        place = place_of(address)
        now = self._clock()
        times = self._times.setdefault(place, deque(maxlen=FAILURES_MAX))
        self._times.move_to_end(place)
        if len(self._times) > ADDRESSES_MAX:
            self._times.popitem(last=False)
        if (left_s := _left_s(times, now)) > 0:
            return math.ceil(left_s)
        times.append(now)
        return None

    def is_full(self, address: str) -> bool:
        times = self._times.get(place_of(address))
        return times is not None and _left_s(times, self._clock()) > 0


def _left_s(times: deque[float], now: float) -> float:
    """Until the oldest of a full window leaves it."""
    return times[0] + WINDOW_S - now if len(times) == FAILURES_MAX else 0.0


def place_of(address: str) -> str:
    """A subscriber line has a whole /64 of IPv6, so that counts as one; what is no address counts as one, too."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is None:
        return str(ipaddress.IPv6Network((int(ip) >> 64 << 64, 64)))
    return str(ip)
