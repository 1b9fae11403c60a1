"""A bound on what slow clients hold together: at the limit, the largest holder loses its oldest share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Shares:
    """Counts bytes, or places of one each. A newcomer is never refused: the largest holder pays for it instead.

    So a client that opens a thousand slow requests cuts off its own, and one that sends at once is not affected.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._holders: dict[str, _Holder] = {}
        self.total = 0

    def hold(self, owner: str, cut: Callable[[], None]) -> "Share":
        """Return an empty share; `cut` ends what it stands for, and must not raise."""
        holder = self._holders.setdefault(owner, _Holder(owner))
        share = Share(self, holder, cut)
        holder.shares[share] = None
        return share

    @contextmanager
    def held(self, owner: str, cut: Callable[[], None]) -> Iterator["Share"]:
        share = self.hold(owner, cut)
        try:
            yield share
        finally:
            share.release()

    def grow(self, holder: "_Holder", by: int) -> None:
        holder.size += by
        self.total += by
        while self.total > self._limit:
            largest = max(self._holders.values(), key=_size)
            oldest = next(iter(largest.shares))
            oldest.release()
            oldest.cut()

    def drop(self, share: "Share", holder: "_Holder") -> None:
        holder.shares.pop(share, None)
        holder.size -= share.size
        self.total -= share.size
        if not holder.shares:
            self._holders.pop(holder.owner, None)


class Share:
    """Part of a bound, from its first byte until it is released."""

    __slots__ = ("_holder", "_shares", "cut", "is_released", "size")

    def __init__(self, shares: Shares, holder: "_Holder", cut: Callable[[], None]) -> None:
        self._shares = shares
        self._holder = holder
        self.cut = cut
        self.size = 0
        self.is_released = False

    def set(self, size: int) -> None:
        """Hold that much now; may cut this very share."""
        if not self.is_released:
            by, self.size = size - self.size, size
            self._shares.grow(self._holder, by)

    def release(self) -> None:
        """Again it changes nothing."""
        if not self.is_released:
            self.is_released = True
            self._shares.drop(self, self._holder)


class _Holder:
    """Everything that one owner holds, oldest first."""

    __slots__ = ("owner", "shares", "size")

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.shares: dict[Share, None] = {}
        self.size = 0


def _size(holder: _Holder) -> int:
    return holder.size
