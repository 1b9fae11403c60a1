"""The sizes that Ace Data Cloud accepts for each model, from its images generation guide."""

from collections.abc import Callable
from typing import Final

from service.sandbox.reading import parse_pair, pixels, refuse_field

Measure = Callable[[str], tuple[int, int] | None]

RATIOS: Final = ("1:1", "16:9", "21:9", "3:2", "2:3", "4:5", "5:4", "3:4", "4:3", "9:16", "9:21")
STEP: Final = 32
MAX_PIXELS: Final = 4 * 1024 * 1024


def _ratio(size: str) -> tuple[int, int] | None:
    return pixels(size) if size in RATIOS else None


def _sides(low: int, high: int) -> Measure:
    def measure_sides(size: str) -> tuple[int, int] | None:
        pair = parse_pair(size, "x")
        fits = pair and all(low <= side <= high and side % STEP == 0 for side in pair)
        return pair if pair and fits and pair[0] * pair[1] <= MAX_PIXELS else None

    return measure_sides


def _newest(size: str) -> tuple[int, int] | None:
    return parse_pair(size, "x") if size in {"1024x1024", "1024x1792", "1792x1024"} else _ratio(size)


SIZES: Final[dict[str, tuple[Measure, str]]] = {
    "flux-2-flex": (_sides(64, MAX_PIXELS), "1024x1024"),
    "flux-2-pro": (_sides(64, MAX_PIXELS), "1024x1024"),
    "flux-2-max": (_sides(64, MAX_PIXELS), "1024x1024"),
    "flux-pro-1.1": (_sides(256, 1440), "1024x1024"),
    "flux-dev": (_sides(256, 1440), "1024x1024"),
    "flux-pro": (_newest, "1024x1024"),
    "flux-pro-1.1-ultra": (_ratio, "1:1"),
    "flux-kontext-pro": (_ratio, "1:1"),
    "flux-kontext-max": (_ratio, "1:1"),
}
"""For each model, the parser of its size and its default size."""


def measure(model: str, size: str | None) -> tuple[int, int]:
    """Return width and height of the picture."""
    reads, default = SIZES[model]
    sides = reads(size or default)
    if sides is None:
        raise refuse_field("size", f"{size} is not supported by {model}")
    return sides
