"""`compose.yaml` and what it mounts: every name in it leads to something."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from tests.api.fake_engine import FakeEngine
from tests.api.metric_samples import families
from tests.api.serving import serving
from tests.docker.dockerfile import FOLDER, ROOT, STAGES, environment, last
from tests.test_options import KNOWN

COMPOSE_FILE = FOLDER / "compose.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_FILE.read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SERVERS = ("cpu", "gpu")
PROMETHEUS: dict[str, Any] = yaml.safe_load((FOLDER / "prometheus.yaml").read_text("utf-8"))
KEY = "a-key-of-compose"


def mounts(service: str) -> dict[str, str]:
    """Paths in a service's container, and what is there: a path from here or a volume's name."""
    found: dict[str, str] = {}
    for line in SERVICES[service]["volumes"]:
        source, target = re.sub(r"\$\{\w+:-(\w+)\}", r"\1", line).split(":")[:2]
        found[target] = source
    return found


def secrets(service: str) -> set[str]:
    return {f"/run/secrets/{name}" for name in SERVICES[service].get("secrets", ())}


def test_it_is_what_the_specification_says() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE_FILE)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_images_are_pinned_by_a_version() -> None:
    for name, service in SERVICES.items():
        if name in SERVERS:
            assert service["image"] == f"panacea:{service['build']['target']}"
        else:
            assert re.fullmatch(r"\$\{[A-Z]+_IMAGE:-[\w/]+:v?\d+\.\d+\.\d+\}", service["image"])


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_is_built_from_a_target_and_started_by_its_profile(name: str) -> None:
    service = SERVICES[name]
    assert service["profiles"] == [name]
    assert (FOLDER / service["build"]["context"]).resolve() == ROOT
    assert (ROOT / service["build"]["dockerfile"]).is_file()
    assert service["build"]["target"] in STAGES
    assert service["ports"] == [f"127.0.0.1:8000:{last('cpu', 'EXPOSE').text}"]
    devices = service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
    assert [device["capabilities"] for device in devices] == ([["gpu"]] if name == "gpu" else [])
    assert set(mounts(name)) == set(last("cpu", "VOLUME").words)


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_may_write_to_its_volumes_and_tmp_alone_and_has_limits(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]  # noqa: S108 (the container's)
    for variable in ("HF_HOME", "TRITON_CACHE_DIR"):
        assert environment(name.replace("gpu", "cuda"))[variable].startswith("/cache/")
    assert re.fullmatch(r"\$\{PANACEA_MEMORY:-\d+g\}", service["mem_limit"])
    assert service["pids_limit"] > 0
    assert service["cap_drop"] == ["ALL"]


def test_ports_are_published_on_this_machine_alone() -> None:
    for service in SERVICES.values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_mounts_lead_to_files_and_volumes() -> None:
    for name in SERVICES:
        for source in mounts(name).values():
            assert (FOLDER / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], source


@pytest.mark.parametrize("name", SERVERS)
def test_the_servers_variables_are_options_and_its_key_is_a_secret(name: str) -> None:
    known = {option["variable"] for option in KNOWN["serve"].values()}
    given = SERVICES[name]["environment"]
    assert {variable for variable in {*given, *environment("cuda")} if variable.startswith("PANACEA_")} <= known
    assert given["PANACEA_API_KEY_FILE"] in secrets(name)
    assert {variable for variable, value in given.items() if value is not None} == {"PANACEA_API_KEY_FILE"}


def test_the_example_file_names_all_variables_and_gives_no_secret() -> None:
    text = (FOLDER / ".env.example").read_text("utf-8")
    named = set(re.findall(r"^#?([A-Z_]+)=", text, re.MULTILINE))
    passed = {
        variable for name in SERVERS for variable, value in SERVICES[name]["environment"].items() if value is None
    }
    sources = {secret["environment"] for secret in COMPOSE["secrets"].values()}
    replaced = set(re.findall(r"\$\{(\w+)", COMPOSE_FILE.read_text("utf-8")))
    assert named == passed | sources | replaced | {"COMPOSE_PROFILES"}
    for secret in sources:
        assert re.search(f"^{secret}=$", text, re.MULTILINE)
    assert re.search("^COMPOSE_PROFILES=(.*)$", text, re.MULTILINE)[1] in SERVERS  # type: ignore[index]


# Prometheus.


def test_prometheus_configuration_has_its_keys_and_no_others() -> None:
    """Prometheus refuses to start on an unknown one."""
    assert set(PROMETHEUS) == {"global", "scrape_configs"}
    assert set(PROMETHEUS["global"]) == {"scrape_interval", "scrape_timeout"}
    interval, timeout = (
        int(PROMETHEUS["global"][f"scrape_{name}"].removesuffix("s")) for name in ("interval", "timeout")
    )
    assert timeout <= interval
    (job,) = PROMETHEUS["scrape_configs"]
    assert set(job) == {"job_name", "authorization", "static_configs"}
    assert set(job["authorization"]) == {"credentials_file"}
    assert [set(static) for static in job["static_configs"]] == [{"targets"}]
    assert mounts("prometheus")["/etc/prometheus/prometheus.yml"] == "./prometheus.yaml"


def test_what_prometheus_asks_for_is_there(tmp_path: Path) -> None:
    (job,) = PROMETHEUS["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    host, port = target.split(":")
    for name in SERVERS:
        assert host in SERVICES[name]["networks"]["default"]["aliases"]
    assert port == last("cpu", "EXPOSE").text
    assert job["authorization"]["credentials_file"] in secrets("prometheus")
    assert secrets("prometheus") == secrets("cpu") == secrets("gpu")

    async def make_engine() -> FakeEngine:
        return FakeEngine()

    # "/metrics" and "Bearer" are its defaults. In the image the server answers to all names.
    with serving(make_engine, api_keys=(KEY,), allowed_hosts=("*",)) as served:
        headers = {"host": target, "authorization": f"Bearer {KEY}"}
        with httpx2.Client(base_url=served.url, headers=headers) as client:
            assert families(client)
        assert httpx2.get(f"{served.url}/metrics", headers={"host": target}).status_code == 401


# Grafana.


def test_grafana_finds_prometheus_the_dashboard_and_its_password() -> None:
    folder = FOLDER / mounts("grafana")["/etc/grafana/provisioning"]
    (source,) = yaml.safe_load((folder / "datasources/prometheus.yaml").read_text("utf-8"))["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in SERVICES
    assert source["jsonData"]["timeInterval"] == PROMETHEUS["global"]["scrape_interval"]
    (provider,) = yaml.safe_load((folder / "dashboards/panacea.yaml").read_text("utf-8"))["providers"]
    dashboards = FOLDER / mounts("grafana")[provider["options"]["path"]]
    variables = SERVICES["grafana"]["environment"]
    home = Path(variables["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert home.parent == Path(provider["options"]["path"])
    dashboard = json.loads((dashboards / home.name).read_text("utf-8"))
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"] if panel["type"] != "row"} == {source["uid"]}
    assert variables["GF_SECURITY_ADMIN_PASSWORD__FILE"] in secrets("grafana")
