"""How long the property tests look: at the same few examples each time, or at many new ones with FUZZ=10 or more."""

import os
import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

T = TypeVar("T")
Choose = Callable[[Sequence[Any]], Any]
"""One of those options; who says which is the test's business."""

FACTOR = int(os.environ.get("FUZZ") or 1)
SEED = 0 if FACTOR == 1 else int(os.environ.get("FUZZ_SEED") or random.SystemRandom().randrange(10**9))
SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)


def examples(count: int, **more: Any) -> settings:
    """So many times FUZZ; without it a third, and always the same ones."""
    return settings(
        max_examples=count // 3 if FACTOR == 1 else count * FACTOR,
        derandomize=FACTOR == 1,
        deadline=None,
        suppress_health_check=SLOW,
        print_blob=True,
        **more,
    )


def by_dice(life: Callable[[Choose], None], count: int) -> None:
    """Lives that differ widely, since nothing is tried for its likeness; one that fails is told by its seed."""
    for seed in range(SEED, SEED + count * FACTOR):
        told: list[str] = []
        try:
            life(_told(random.Random(seed).choice, told))
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error!r} after\n" + "\n".join(told)) from error


def by_hypothesis(life: Callable[[Choose], None], count: int) -> None:
    """Fewer lives, and one that fails is made as short as it can be."""

    @examples(count)
    @given(data=st.data())
    def one(data: st.DataObject) -> None:
        life(lambda options: data.draw(st.sampled_from(options)))

    one()


def _told(choose: Choose, told: list[str]) -> Choose:
    def choose_and_tell(options: Sequence[Any]) -> Any:
        chosen = choose(options)
        if not isinstance(chosen, list):
            told.append(repr(chosen))
        return chosen

    return choose_and_tell
