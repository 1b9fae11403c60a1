"""The two compose files: sound, confined, and in step with the service."""

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.deploy.files import DEPLOY, GRACE_S, WEB_PATHS, read_yaml, unknown_settings

if TYPE_CHECKING:
    import compose_spec

FILES = ("compose.yaml", "compose.postgres.yaml")
SERVICES = [(file, name, one) for file in FILES for name, one in read_yaml(file)["services"].items()]
OURS = [(file, name, one) for file, name, one in SERVICES if one["image"].startswith("taskhook")]
each_service = pytest.mark.parametrize(("file", "name", "one"), SERVICES, ids=lambda value: str(value)[:24])
each_of_ours = pytest.mark.parametrize(("file", "name", "one"), OURS, ids=lambda value: str(value)[:24])


def read_compose(given: dict[str, Any]) -> "compose_spec.PyCompose":
    """Raises ValueError; what YAML merges is merged before."""
    import compose_spec  # noqa: PLC0415 - takes long to load, and these tests alone need it

    return compose_spec.PyCompose.from_json(json.dumps(given))


def seconds(text: str) -> int:
    assert text.endswith("s")
    return int(text[:-1])


@pytest.mark.parametrize("file", FILES)
def test_the_file_is_what_the_specification_says(file: str) -> None:
    read_compose(read_yaml(file)).validate()


def test_the_check_of_the_specification_finds_mistakes() -> None:
    with pytest.raises(ValueError, match="imag"):
        read_compose({"services": {"a": {"imag": "b"}}})
    with pytest.raises(ValueError, match="lost"):
        read_compose({"services": {"a": {"image": "b", "networks": ["lost"]}}}).validate()


@each_service
def test_every_service_is_confined_and_bounded(file: str, name: str, one: dict[str, Any]) -> None:
    assert one["read_only"] is True
    assert one["cap_drop"] == ["ALL"]
    assert set(one.get("cap_add", [])) <= {"NET_BIND_SERVICE", "CHOWN"}
    assert one["security_opt"] == ["no-new-privileges:true"]
    assert one["logging"]["options"]["max-size"] and one["logging"]["options"]["max-file"]
    assert {"cpus", "memory", "pids"} <= set(one["deploy"]["resources"]["limits"])
    assert not {"privileged", "pid", "ipc"} & set(one)


@each_service
def test_nobody_that_goes_on_running_is_root(file: str, name: str, one: dict[str, Any]) -> None:
    user = one.get("user", "the image's" if "build" in one else "0:0")
    ends_at_once = one["restart"] == "no" and one.get("network_mode") == "none"
    assert not user.startswith("0") or ends_at_once


@each_service
def test_every_image_has_a_version(file: str, name: str, one: dict[str, Any]) -> None:
    _, _, tag = one["image"].partition(":")
    assert tag[:1].isdigit() and "." in tag


@each_of_ours
def test_every_setting_is_one(file: str, name: str, one: dict[str, Any]) -> None:
    domain = "${TASKHOOK_DOMAIN:?the name that providers reach, such as taskhook.example.com}"
    given = {key: value.replace(domain, "x.example") for key, value in one["environment"].items()}
    assert unknown_settings(given) == ()


@each_of_ours
def test_it_is_given_longer_to_stop_than_it_needs(file: str, name: str, one: dict[str, Any]) -> None:
    assert seconds(one["stop_grace_period"]) > GRACE_S


def test_no_secret_stands_in_a_file() -> None:
    for _, _, one in SERVICES:
        for setting, value in one.get("environment", {}).items():
            is_secret = any(word in setting for word in ("KEY", "SECRET", "PASSWORD", "DATABASE_URL"))
            assert not is_secret or value == "" or value.startswith(("/run/secrets/", "sqlite:")), setting
    secrets = read_yaml("compose.postgres.yaml")["secrets"]
    assert all(one["file"].startswith("secrets/") for one in secrets.values())
    assert "/deploy/secrets/" in (DEPLOY.parent / ".gitignore").read_text().splitlines()


def test_the_replicas_start_after_the_migrations() -> None:
    services = read_yaml("compose.postgres.yaml")["services"]
    for name in ("web", "worker"):
        assert services[name]["deploy"]["replicas"] == 2
        assert services[name]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert services["migrate"]["restart"] == "no"


def test_the_database_and_the_web_are_reached_by_the_proxy_and_ours_alone() -> None:
    compose = read_yaml("compose.postgres.yaml")
    assert [name for name, one in compose["services"].items() if "ports" in one] == ["proxy"]
    assert compose["networks"]["data"] == {"internal": True}
    assert compose["services"]["postgres"]["networks"] == ["data"]
    assert "data" not in compose["services"]["proxy"]["networks"]


def test_the_proxy_sends_to_the_port_of_the_web_and_hides_what_is_for_operators() -> None:
    text = (DEPLOY / "Caddyfile").read_text()
    web = read_yaml("compose.postgres.yaml")["services"]["web"]
    assert f"dynamic a web {web['environment']['TASKHOOK_PORT']}" in text
    hidden = next(line.split()[2:] for line in text.splitlines() if "@inside path" in line)
    assert set(hidden) == {"/metrics", "/readyz"} and set(hidden) - {"/metrics"} <= WEB_PATHS
