"""Alerts and dashboard: what they ask for is what a running service tells, and the alerts ring when they should."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from service.telemetry import Metrics
from tests.deploy.files import DEPLOY, ROOT, read_yaml
from tests.support.wait import PATIENCE_S

RULES: list[dict[str, Any]] = [
    rule for group in read_yaml("prometheus/alerts.yaml")["groups"] for rule in group["rules"]
]
DASHBOARD = json.loads((DEPLOY / "grafana" / "taskhook.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
CHARTS = [panel for panel in PANELS if panel["type"] != "row"]
ADAPTER = read_yaml("kubernetes/prometheus-adapter.yaml")["rules"]["external"][0]
SCRAPED = {"job", "instance", "namespace"}
"""Labels that Prometheus gives."""
WORDS = {"$__rate_interval": "5m", "$job": ".+", "<<.LabelMatchers>>": 'namespace="taskhook"'}
SELECTOR = re.compile(r"\b((?:taskhook|process)_\w+)(?:\{([^}]*)\})?")
GROUPING = re.compile(r"\bby \(([^)]*)\)")


def plain(expression: str) -> str:
    for word, value in WORDS.items():
        expression = expression.replace(word, value)
    return expression


def expressions() -> list[str]:
    charts = [target["expr"] for panel in CHARTS for target in panel["targets"]]
    annotations = [one["expr"] for one in DASHBOARD["annotations"]["list"]]
    return [plain(one) for one in (*charts, *annotations, *(rule["expr"] for rule in RULES), ADAPTER["metricsQuery"])]


def exported() -> dict[str, set[str]]:
    """Every series with its labels; `le` is a histogram's own."""
    found: dict[str, set[str]] = {}
    for family in Metrics().registry.collect():
        names = [family.name] if family.type == "gauge" else [f"{family.name}_total"]
        if family.type == "histogram":
            names = [f"{family.name}_{ending}" for ending in ("bucket", "sum", "count")]
        for name in names:
            found[name] = {label for sample in family.samples for label in sample.labels}
    return found


@pytest.mark.parametrize("expression", expressions())
def test_every_expression_is_promql(expression: str) -> None:
    promql_parser.parse(expression)


def test_a_wrong_expression_is_told() -> None:
    with pytest.raises(ValueError, match="parenthesis"):
        promql_parser.parse("sum(rate(taskhook_due[5m])")


@pytest.mark.parametrize("expression", expressions())
def test_every_metric_and_label_is_one_that_is_told(expression: str) -> None:
    known = labels_of_metrics()
    for name, matchers in SELECTOR.findall(expression):
        assert name in known, name
        used = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
        assert used - SCRAPED - {"le"} <= known[name], (name, used)
    grouped = {label.strip() for text in GROUPING.findall(expression) for label in text.split(",")}
    together = set.union(*(known[name] for name, _ in SELECTOR.findall(expression)))
    assert grouped - SCRAPED - {"le"} <= together, expression


def labels_of_metrics() -> dict[str, set[str]]:
    """By the declarations, since a series that nothing has happened to yet shows no labels."""
    metrics = Metrics()
    declared: dict[str, set[str]] = {name: set() for name in exported()}
    for one in vars(metrics).values():
        for family in one.collect() if hasattr(one, "collect") and hasattr(one, "_labelnames") else ():
            names = [family.name] if family.type == "gauge" else [f"{family.name}_total"]
            if family.type == "histogram":
                names = [f"{family.name}_{ending}" for ending in ("bucket", "sum", "count")]
            for name in names:
                declared[name] = set(one._labelnames)
    return declared | {"taskhook_build_info": {"version", "python"}}


def test_a_running_service_tells_every_metric_that_is_asked_for(scraped: str) -> None:
    told = {sample.name for family in text_string_to_metric_families(scraped) for sample in family.samples}
    asked = {name for expression in expressions() for name, _ in SELECTOR.findall(expression)}
    happen_seldom = {"taskhook_loop_failures_total", "taskhook_faults_total"}
    assert asked - told <= happen_seldom | {"taskhook_connections_refused_total", "taskhook_auth_failures_total"}


def test_every_alert_says_what_is_wrong_and_where_to_read_on() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
        assert f"### {rule['alert']}\n" in page, rule["alert"]


def test_every_panel_has_a_title_a_unit_and_a_place_of_its_own() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert all(panel["title"] for panel in PANELS)
    squares: set[tuple[int, int]] = set()
    for panel in PANELS:
        place = panel["gridPos"]
        mine = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert max(x for x, _ in mine) < 24 and not mine & squares, panel["title"]
        squares |= mine
    for panel in CHARTS:
        assert panel["description"].endswith(".") and panel["fieldConfig"]["defaults"]["unit"]
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    assert DASHBOARD["uid"] == "taskhook" and DASHBOARD["schemaVersion"] >= 39
    assert [one["name"] for one in DASHBOARD["templating"]["list"]] == ["datasource", "job"]


# --- the alerts, as Prometheus itself judges them ---------------------------------------------------------------------

CASES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "TaskhookDown": ({}, {}),
    "TaskhookDatabaseDown": ({'taskhook_database_up{instance="a"}': "0x60", "taskhook_database_up": "1x60"}, {}),
    "TaskhookWorkOverdue": ({"taskhook_overdue_age_seconds": "90+60x60"}, {}),
    "TaskhookQueueDeep": ({'taskhook_due{kind="delivery"}': "1500x60"}, {"kind": "delivery"}),
    "TaskhookCircuitOpen": ({'taskhook_account_circuit_open{provider="acedata"}': "1x60"}, {"provider": "acedata"}),
    "TaskhookAccountRefused": (
        {'taskhook_task_errors_total{provider="acedata",code="authentication"}': "0x50 1x9"},
        {"provider": "acedata", "code": "authentication"},
    ),
    "TaskhookSubmitUnconfirmed": (
        {'taskhook_task_errors_total{provider="acedata",code="submit_unconfirmed"}': "0x50 1x9"},
        {"provider": "acedata"},
    ),
    "TaskhookTasksFail": (
        {
            'taskhook_task_errors_total{provider="acedata",code="provider_error"}': "0+30x60",
            'taskhook_tasks_finished_total{provider="acedata",outcome="failed",via="poll"}': "0+30x60",
            'taskhook_tasks_finished_total{provider="acedata",outcome="succeeded",via="poll"}': "0+30x60",
        },
        {"provider": "acedata"},
    ),
    "TaskhookDeliveriesFail": (
        {
            'taskhook_delivery_attempts_total{outcome="failed"}': "0+40x60",
            'taskhook_delivery_attempts_total{outcome="received"}': "0+60x60",
        },
        {},
    ),
    "TaskhookEndpointDisabled": ({'taskhook_endpoint_events_total{type="endpoint.disabled"}': "0x30 1x30"}, {}),
    "TaskhookRowsParked": ({"taskhook_parked_rows": "2x60"}, {}),
    "TaskhookLoopFails": ({'taskhook_loop_failures_total{loop="deliveries"}': "0+1x60"}, {"loop": "deliveries"}),
    "TaskhookErrors": (
        {
            'taskhook_http_requests_total{method="GET",route="/v1/tasks",status="503"}': "0+60x60",
            'taskhook_http_requests_total{method="GET",route="/v1/tasks",status="200"}': "0+60x60",
        },
        {},
    ),
    "TaskhookSlow": (
        {
            'taskhook_http_request_duration_seconds_bucket{method="POST",le="1.0"}': "0+1x60",
            'taskhook_http_request_duration_seconds_bucket{method="POST",le="2.5"}': "0+60x60",
            'taskhook_http_request_duration_seconds_bucket{method="POST",le="+Inf"}': "0+60x60",
        },
        {},
    ),
    "TaskhookKeysGuessed": ({'taskhook_auth_failures_total{outcome="limited"}': "0+1x60"}, {}),
}
WELL = {
    'taskhook_build_info{version="1"}': "1x60",
    "taskhook_database_up": "1x60",
    "taskhook_overdue_age_seconds": "0x60",
    'taskhook_due{kind="submit"}': "5000x60",
    'taskhook_due{kind="delivery"}': "30x60",
    'taskhook_account_circuit_open{provider="acedata"}': "0x60",
    'taskhook_task_errors_total{provider="acedata",code="content_policy"}': "0+60x60",
    'taskhook_task_errors_total{provider="acedata",code="submit_unconfirmed"}': "3x60",
    'taskhook_tasks_finished_total{provider="acedata",outcome="succeeded",via="poll"}': "0+60x60",
    'taskhook_delivery_attempts_total{outcome="failed"}': "0+5x60",
    'taskhook_delivery_attempts_total{outcome="received"}': "0+60x60",
    'taskhook_endpoint_events_total{type="endpoint.disabled"}': "4x60",
    "taskhook_parked_rows": "0x60",
    'taskhook_http_requests_total{method="GET",route="/v1/tasks",status="200"}': "0+60x60",
}


def test_every_alert_has_a_case() -> None:
    assert set(CASES) == {rule["alert"] for rule in RULES}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here (Debian: apt-get install prometheus)")
def test_the_alerts_ring_when_they_should_and_only_then(tmp_path: Path) -> None:
    annotations = {rule["alert"]: rule for rule in RULES}
    tests = [case(name, series, labels, annotations[name]) for name, (series, labels) in CASES.items()]
    silent = [{"eval_time": "55m", "alertname": name, "exp_alerts": []} for name in CASES]
    tests.append({"interval": "1m", "input_series": inputs(WELL), "alert_rule_test": silent})
    written = tmp_path / "alerts_test.yaml"
    written.write_text(yaml.safe_dump({"rule_files": [str(DEPLOY / "prometheus" / "alerts.yaml")], "tests": tests}))
    done = subprocess.run(
        ["promtool", "test", "rules", written], capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stdout + done.stderr


def inputs(series: dict[str, str]) -> list[dict[str, str]]:
    return [{"series": name, "values": values} for name, values in series.items()]


def case(name: str, series: dict[str, str], labels: dict[str, str], rule: dict[str, Any]) -> dict[str, Any]:
    """It rings after 55 minutes; what its summary says then is Prometheus' own to fill in."""
    query = {"expr": f'ALERTS{{alertname="{name}",alertstate="firing"}}', "eval_time": "55m"}
    told = ",".join(f'{key}="{value}"' for key, value in {**labels, **rule["labels"]}.items())
    sample = {"labels": f'ALERTS{{alertname="{name}",alertstate="firing",{told}}}', "value": 1}
    return {
        "interval": "1m",
        "input_series": inputs(series),
        "promql_expr_test": [query | {"exp_samples": [sample]}],
    }
