"""The benchmarks tell what they measured: ratios round by round, targets both ways, and the same on the page."""

import msgspec
import pytest

from bench import report
from bench.figures import Figure
from bench.run import LOADS, chosen


def test_a_ratio_is_taken_within_a_round() -> None:
    figure = Figure(name="callbacks", unit="/s", values=(50, 90, 70), yardsticks=(100, 100, 140), target=0.5)
    assert figure.ratios == (0.5, 0.9, 0.5)
    assert figure.met


@pytest.mark.parametrize(("at_most", "met"), [(True, False), (False, True)])
def test_a_target_is_about_the_median(at_most: bool, met: bool) -> None:
    figure = Figure(name="memory", unit="MiB", values=(1, 160, 170), target=150, at_most=at_most)
    assert figure.met is met


def test_processor_time_is_told_in_bare_requests_of_its_round() -> None:
    figure = Figure(name="callbacks", unit="/s", values=(1, 1, 1), cpu_us=(100, 300, 200), bare_us=(50, 60, 50))
    assert figure.bare_requests == 4


def test_a_line_has_figure_yardstick_ratio_and_verdict() -> None:
    figure = Figure(name="callbacks", unit="/s", values=(6_000.4,), yardsticks=(12_000,), target=0.6, note="noisy")
    assert report.line(figure).split() == [
        *("callbacks", "6,000", "/s", "12,000"),
        *("0.50", "0.50", "0.50", ">=", "0.6", "not", "yet", "noisy"),
    ]


def test_loads_are_chosen_by_the_beginnings_of_their_names() -> None:
    assert list(chosen(["callbacks", "stored"])) == ["callbacks-sqlite", "callbacks-postgresql", "stored"]
    assert set(LOADS) - set(chosen([])) == {"polls-postgresql", "arrival-stored"}
    assert not chosen(["nothing"])


def test_figures_stand_in_the_order_of_the_loads_without_those_that_are_measured_no_more() -> None:
    kept = {"stream": [], "stored-1000000": [], "gone": [], "stored-200000": [], "callbacks-sqlite": []}
    assert list(report.ordered(kept, list(LOADS))) == ["callbacks-sqlite", "stored-200000", "stored-1000000", "stream"]


def test_the_page_shows_the_figures_that_were_kept() -> None:
    kept = msgspec.json.decode(report.KEPT.read_bytes(), type=report.Kept)
    shown = report.PAGE.read_text().partition(report.BEGIN)[2].partition(report.END)[0]
    assert shown == f"\n{report.render(kept)}\n"
