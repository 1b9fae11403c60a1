"""The real clock, ids and chance, which the tests of everything else replace by their own."""

from service.wiring import RealEnv


def test_jitter_spreads_by_a_tenth_either_way_and_no_further() -> None:
    spread = [RealEnv().jitter(100.0) for _ in range(1_000)]
    assert 90 <= min(spread) < 91
    assert 109 < max(spread) <= 110


def test_ids_sort_by_creation_also_when_the_clock_is_set_back() -> None:
    times = iter([1_000, 1_000, 500, 500, 1_001, 0] * 50)
    env = RealEnv(times.__next__)
    ids = [env.new_id("task") for _ in range(300)]
    assert ids == sorted(set(ids))
