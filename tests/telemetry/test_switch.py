"""When there is tracing, when there is none, and what none costs."""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping

import pytest
import structlog

from service.core.problems import Unavailable
from service.telemetry import Metrics
from service.telemetry.switch import start_tracing
from service.telemetry.tracing import OFF, current_span
from tests.support.env import FakeEnv
from tests.support.factory import make_task
from tests.support.process import ROOT
from tests.support.wait import PATIENCE_S

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
SPANS_OF_A_REQUEST = 6
"""What one request does to spans: it begins one, asks for it three times, says the answer, asks for an exemplar."""
WELL_UNDER_S = 1e-6


@pytest.mark.parametrize(
    ("wanted", "otel"),
    [
        (None, {}),
        (False, ENDPOINT),
        (None, {**ENDPOINT, "OTEL_SDK_DISABLED": "true"}),
        (True, {"OTEL_SDK_DISABLED": "TRUE"}),
    ],
)
def test_nobody_asked_for_it_so_there_is_none(wanted: bool | None, otel: Mapping[str, str]) -> None:
    assert start_tracing(wanted, otel, Metrics()) is OFF


@pytest.mark.parametrize(("wanted", "otel"), [(None, ENDPOINT), (True, {}), (True, {"OTEL_TRACES_EXPORTER": "none"})])
async def test_it_is_asked_for_by_the_setting_or_by_an_endpoint(
    wanted: bool | None, otel: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*ENDPOINT, *otel):
        monkeypatch.setenv(name, "")
    tracing = start_tracing(wanted, otel, Metrics())
    assert tracing.is_on
    await tracing.close()


@pytest.mark.parametrize(
    ("otel", "reason"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf, not 'grpc'"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER must be otlp or none, not 'zipkin'"),
    ],
)
def test_what_can_not_be_stops_the_start_only_when_it_was_asked_for(otel: dict[str, str], reason: str) -> None:
    with pytest.raises(Unavailable) as refused:
        start_tracing(True, otel, Metrics())
    assert refused.value.cause == reason
    with structlog.testing.capture_logs() as logs:
        assert start_tracing(None, {**ENDPOINT, **otel}, Metrics()) is OFF
    assert [(line["event"], line["reason"]) for line in logs] == [("tracing.off", reason)]


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=PATIENCE_S
    ).stdout


def test_without_the_extra_the_start_names_it_and_a_service_without_tracing_imports_nothing_of_it() -> None:
    said = run(
        """if True:
        import sys
        import service.app
        from service.telemetry.switch import start_tracing
        print([name for name in sys.modules if name.startswith("opentelemetry")])
        sys.modules["opentelemetry"] = None
        try:
            start_tracing(True, {}, None)
        except Exception as error:
            print(type(error).__name__, error.cause)
        """
    )
    assert said.splitlines() == ["[]", "Unavailable it needs the extra: pip install 'taskhook[otel]'"]


def test_what_is_off_costs_a_request_well_under_a_microsecond_a_step() -> None:
    scope, task = {"path": "/v1/tasks"}, make_task(FakeEnv())

    def steps() -> None:
        with OFF.request(scope) as span:
            current_span().find_context()
            current_span().record_task(task)
            current_span().join(task)
            span.record_answer("/v1/tasks", 202)
            span.find_exemplar()

    each_s = best_s(steps) / SPANS_OF_A_REQUEST
    print(f"{each_s * 1e9:.0f} ns a step, {each_s * SPANS_OF_A_REQUEST * 1e9:.0f} ns a request")
    assert each_s < WELL_UNDER_S


def best_s(work: Callable[[], None], times: int = 2_000) -> float:
    """The fastest of many rounds: what the machine does besides only ever makes one slower."""

    def round_s() -> float:
        started = time.perf_counter()
        for _ in range(times):
            work()
        return (time.perf_counter() - started) / times

    return min(round_s() for _ in range(20))
