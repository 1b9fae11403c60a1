"""The overlays as a cluster would get them: valid, confined, and in step with the service."""

import ipaddress
import os
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from service.outbound.guard import forbidden_reason
from service.settings import load
from service.web.routes import PROBES
from tests.deploy.files import (
    DEPLOY,
    GRACE_S,
    OVERLAYS,
    ROOT,
    WEB_PATHS,
    build,
    build_overlay,
    of_kind,
    read_yaml,
    unknown_settings,
)

VERSIONS = ("1.30", "1.34")
"""The oldest that has all that is used, and a newer one."""
WORKLOADS = ("Deployment", "StatefulSet", "Job")
each_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


def pods(overlay: str) -> list[tuple[str, Any]]:
    return [(one["metadata"]["name"], one["spec"]["template"]) for one in of_kind(build_overlay(overlay), *WORKLOADS)]


def containers(overlay: str) -> list[Any]:
    specs = [template["spec"] for _, template in pods(overlay)]
    return [one for spec in specs for one in (*spec.get("initContainers", []), *spec["containers"])]


def serving(overlay: str) -> list[tuple[str, Any, Any]]:
    found = [(name, pod["spec"], pod["spec"]["containers"][0]) for name, pod in pods(overlay)]
    return [(name, spec, one) for name, spec, one in found if one["args"] != ["taskhook", "migrate"]]


@pytest.mark.parametrize(("overlay", "version"), list(zip(OVERLAYS, VERSIONS, strict=True)))
def test_every_object_is_what_the_schemas_say(overlay: str, version: str) -> None:
    for one in build_overlay(overlay):
        kubernetes_validate.validate(one, version, strict=True)


def test_the_schemas_find_mistakes() -> None:
    web = of_kind(build_overlay("postgresql"), "Deployment")[0]
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(web | {"spec": web["spec"] | {"replica": 2}}, VERSIONS[0], strict=True)


@each_overlay
def test_every_pod_keeps_the_restricted_standard(overlay: str) -> None:
    for _, pod in pods(overlay):
        spec, security = pod["spec"], pod["spec"]["securityContext"]
        assert security["runAsNonRoot"] and security["runAsUser"] == 10001
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
    for one in containers(overlay):
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert one["resources"]["requests"] and one["resources"]["limits"]["memory"]
    enforced = of_kind(build_overlay(overlay), "Namespace")[0]["metadata"]["labels"]
    assert enforced["pod-security.kubernetes.io/enforce"] == "restricted"


@each_overlay
def test_no_service_link_overwrites_a_setting(overlay: str) -> None:
    """A service named taskhook would give every pod TASKHOOK_PORT=tcp://..."""
    assert all(pod["spec"]["enableServiceLinks"] is False for _, pod in pods(overlay))


@each_overlay
def test_every_image_has_a_version_and_every_setting_is_one(overlay: str) -> None:
    documents = build_overlay(overlay)
    settings = of_kind(documents, "ConfigMap")[0]
    assert unknown_settings(settings["data"]) == ()
    for one in containers(overlay):
        assert re.fullmatch(r"taskhook:\d+\.\d+\.\d+", one["image"])
        assert unknown_settings({entry["name"]: entry["value"] for entry in one.get("env", [])}) == ()
        sources = {name for source in one["envFrom"] for name in source}
        assert sources == {"configMapRef", "secretRef"}
        assert one["envFrom"][0]["configMapRef"]["name"] == settings["metadata"]["name"]
    assert of_kind(documents, "Secret") == []


@each_overlay
def test_ports_and_probes_are_those_of_the_service(overlay: str) -> None:
    documents = build_overlay(overlay)
    settings = load({"TASKHOOK_SANDBOX": "true", **of_kind(documents, "ConfigMap")[0]["data"]}, None)
    paths = {operation.path for operation in PROBES}
    assert {path.partition("?")[0] for path in WEB_PATHS} < paths
    for _, _, one in serving(overlay):
        port = settings.worker_port if one["args"][1] == "worker" else settings.port
        assert one["ports"] == [{"name": "http", "containerPort": port}]
        probes = [one[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
        assert all(probe["port"] == "http" and probe["path"] in WEB_PATHS for probe in probes)
        assert one["livenessProbe"]["httpGet"]["path"] == "/healthz", "what a restart can't mend must not restart"
    service = of_kind(documents, "Service")[0]["spec"]
    assert service["ports"][0]["targetPort"] == "http"


@each_overlay
def test_the_service_selects_what_takes_requests_and_nothing_else(overlay: str) -> None:
    selector = of_kind(build_overlay(overlay), "Service")[0]["spec"]["selector"].items()
    chosen = {name for name, pod in pods(overlay) if selector <= pod["metadata"]["labels"].items()}
    assert chosen == {"sqlite": {"taskhook"}, "postgresql": {"taskhook-web"}}[overlay]


@each_overlay
def test_work_that_waits_takes_no_replica_out_of_the_service(overlay: str) -> None:
    for _, _, one in serving(overlay):
        judged_by_work = one["readinessProbe"]["httpGet"]["path"] == "/readyz"
        assert judged_by_work == (one["args"][1] == "worker")


@each_overlay
def test_a_pod_is_given_longer_to_stop_than_it_needs(overlay: str) -> None:
    for _, spec, one in serving(overlay):
        waits_s = one.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        assert spec["terminationGracePeriodSeconds"] > GRACE_S + waits_s
        assert (waits_s > 0) == (one["args"][1] != "worker"), "the addresses of a stopping pod are in use for a moment"


@each_overlay
def test_every_selector_selects_a_pod(overlay: str) -> None:
    documents = build_overlay(overlay)
    labels = [pod["metadata"]["labels"].items() for _, pod in pods(overlay)]
    found = of_kind(documents, *WORKLOADS, "PodDisruptionBudget")
    selectors = [one["spec"]["selector"] for one in found if one["kind"] != "Job"]
    selectors += [one["spec"]["podSelector"] for one in of_kind(documents, "NetworkPolicy")]
    for selector in selectors:
        assert any(selector["matchLabels"].items() <= one for one in labels), selector


def test_replicas_are_spread_budgeted_and_scaled() -> None:
    documents = build_overlay("postgresql")
    scalers = [one["spec"] for one in of_kind(documents, "HorizontalPodAutoscaler")]
    scaled = {spec["scaleTargetRef"]["name"]: spec for spec in scalers}
    assert set(scaled) == {one["metadata"]["name"] for one in of_kind(documents, "Deployment")}
    assert all(spec["minReplicas"] == 2 for spec in scaled.values())
    budgets = of_kind(documents, "PodDisruptionBudget")
    assert {one["metadata"]["name"] for one in budgets} == set(scaled)
    for one in of_kind(documents, "Deployment"):
        assert "replicas" not in one["spec"], "each apply would undo what the autoscaler did"
        keys = [spread["topologyKey"] for spread in one["spec"]["template"]["spec"]["topologySpreadConstraints"]]
        assert keys == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]


def test_replicas_wait_for_the_job_that_migrates() -> None:
    documents = build_overlay("postgresql")
    job = of_kind(documents, "Job")[0]["spec"]["template"]["spec"]["containers"][0]
    assert job["args"] == ["taskhook", "migrate"]
    for one in of_kind(documents, "Deployment"):
        waiting = one["spec"]["template"]["spec"]["initContainers"][0]
        assert "until taskhook migrate --check" in waiting["args"][-1]


def test_one_replica_alone_works_on_sqlite() -> None:
    state = of_kind(build_overlay("sqlite"), "StatefulSet")[0]["spec"]
    one = state["template"]["spec"]["containers"][0]
    assert state["replicas"] == 1 and one["args"] == ["taskhook", "serve"]
    url = next(entry["value"] for entry in one["env"] if entry["name"] == "TASKHOOK_DATABASE_URL")
    mounted = {mount["mountPath"] for mount in one["volumeMounts"] if mount["name"] == "data"}
    assert {url.removeprefix("sqlite:///").rpartition("/")[0]} == mounted


@each_overlay
def test_all_is_forbidden_that_is_not_allowed(overlay: str) -> None:
    policies = of_kind(build_overlay(overlay), "NetworkPolicy")
    every_pod = [one["spec"] for one in policies if len(one["spec"]["podSelector"]["matchLabels"]) == 1]
    assert any(spec["policyTypes"] == ["Ingress", "Egress"] for spec in every_pod)
    for one in policies:
        for rule in (*one["spec"].get("ingress", []), *one["spec"].get("egress", [])):
            assert rule["ports"] and (rule.get("from") or rule.get("to"))


@each_overlay
def test_calls_go_to_public_addresses_alone(overlay: str) -> None:
    spec = next(
        one["spec"]
        for one in of_kind(build_overlay(overlay), "NetworkPolicy")
        if one["metadata"]["name"] == "taskhook-calls-out"
    )
    rule = spec["egress"][0]
    assert sorted(port["port"] for port in rule["ports"]) == [80, 443]
    open_to, shut = [], []
    for peer in rule["to"]:
        open_to.append(ipaddress.ip_network(peer["ipBlock"]["cidr"]))
        shut += [ipaddress.ip_network(text) for text in peer["ipBlock"]["except"]]
    for text in ("169.254.169.254", "10.0.0.1", "100.100.100.200", "127.0.0.1", "192.168.1.1", "fd00:ec2::254", "::1"):
        address = ipaddress.ip_address(text)
        reached = any(address in net for net in open_to) and not any(address in net for net in shut)
        assert not reached and forbidden_reason(text), text
    for text in ("93.184.216.34", "2606:2800:220:1::1"):
        address = ipaddress.ip_address(text)
        assert any(address in net for net in open_to) and not any(address in net for net in shut)
        assert forbidden_reason(text) is None


def test_the_queue_that_scales_is_the_one_the_adapter_tells() -> None:
    spec = next(
        one["spec"]
        for one in of_kind(build_overlay("postgresql"), "HorizontalPodAutoscaler")
        if one["spec"]["scaleTargetRef"]["name"] == "taskhook-worker"
    )
    rule = read_yaml("kubernetes/prometheus-adapter.yaml")["rules"]["external"][0]
    assert spec["metrics"][0]["external"]["metric"]["name"] == rule["name"]["as"]


def test_the_operator_gets_the_same_alerts() -> None:
    rule = read_yaml("kubernetes/components/monitoring/prometheus-rule.yaml")
    assert rule["spec"] == read_yaml("prometheus/alerts.yaml")
    monitor = read_yaml("kubernetes/components/monitoring/pod-monitor.yaml")["spec"]
    assert monitor["podMetricsEndpoints"][0]["path"] in {operation.path for operation in PROBES}
    assert monitor["podMetricsEndpoints"][0]["port"] == "http"


def test_the_overlay_of_ones_own_that_the_documentation_shows_builds(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "deployment.md").read_text()
    shown = page.partition("```yaml\n")[2].partition("```")[0]
    assert shown.count("../taskhook/deploy") == 2
    shown = shown.replace("../taskhook/deploy", os.path.relpath(DEPLOY, tmp_path))
    (tmp_path / "kustomization.yaml").write_text(shown)
    documents = build(tmp_path)
    assert {one["kind"] for one in documents} > {"PodMonitor", "PrometheusRule"}
    specs = [one["spec"]["template"]["spec"] for one in of_kind(documents, "Deployment")]
    images = [spec["containers"][0]["image"] for spec in specs]
    assert images == ["registry.example.com/taskhook:0.1.0"] * 2
    assert of_kind(documents, "ConfigMap")[0]["data"]["TASKHOOK_PUBLIC_URL"] == "https://taskhook.example.com"
