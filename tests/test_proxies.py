"""The samples in examples/proxies, with the real programs: one path of a site leads to a server on a Unix socket."""

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from openai import OpenAI

from tests.api.serving import wait_until

SAMPLES = Path(__file__).parent.parent / "examples/proxies"
SOCKET = "/run/panacea/panacea.sock"
KEY = "a-key-behind-a-proxy-7d1f"
ENDLESS = {"prompt": [5, 6, 7], "max_tokens": 900, "ignore_eos": True, "n": 8, "stream": True}

pytestmark = pytest.mark.slow


def program(name: str) -> str:
    """The path of nginx or Caddy."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed; apt-get install {name}")
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Path]:
    """The socket of a server with the demo model and a key."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "keys").write_text(f"{KEY}\n", "utf-8")
    (folder / "keys").chmod(0o600)
    path = folder / "panacea.sock"
    command = [sys.executable, "-m", "panacea_commands", "serve", "--unix-socket", str(path)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*command, "--api-key-file", str(folder / "keys")], stderr=log)
    try:
        announcement = f"serves panacea-demo on unix:{path}"
        wait_until(lambda: process.poll() is not None or announcement in (folder / "log").read_text("utf-8"), 120)
        assert process.poll() is None, (folder / "log").read_text("utf-8")
        path.chmod(0o666)  # nginx's workers are another user
        open_to_all(folder)
        yield path
    finally:
        process.terminate()
        assert process.wait(30) == 0
    assert not path.exists()


def open_to_all(folder: Path) -> None:
    """Lets other users through to a folder of pytest's."""
    while folder != Path(tempfile.gettempdir()):
        folder.chmod(0o755)
        folder = folder.parent


@contextmanager
def nginx(config: str, folder: Path) -> Generator[None]:
    """nginx with the sample as one of its sites."""
    (folder / "site.conf").write_text(config, "utf-8")
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
        f"http {{ access_log off; {temporary} include {folder}/site.conf; }}\n",
        "utf-8",
    )
    command = [program("nginx"), "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]
    with running(command):
        yield


@contextmanager
def caddy(config: str, folder: Path) -> Generator[None]:
    """Caddy with the sample as its whole configuration, and without its administration port."""
    (folder / "Caddyfile").write_text("{\n\tadmin off\n}\n" + config, "utf-8")
    with running([program("caddy"), "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]):
        yield


@contextmanager
def running(command: list[str]) -> Generator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module", params=["nginx.conf", "Caddyfile"])
def url(request: pytest.FixtureRequest, server: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """Where the sample serves, with another socket and port in it."""
    folder = tmp_path_factory.mktemp("proxy")
    folder.chmod(0o777)  # for nginx's workers
    open_to_all(folder.parent)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = (SAMPLES / request.param).read_text("utf-8")
    assert config.count(SOCKET) == 2  # in the comment, and where it counts
    config = (
        config.replace(SOCKET, str(server)).replace("listen 8080", f"listen {port}").replace(":8080 {", f":{port} {{")
    )
    run = nginx if request.param == "nginx.conf" else caddy
    with run(config, folder):
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(url), 30)
        yield url


def answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/panacea/health").status_code == 200
    except httpx2.TransportError:
        return False


@pytest.fixture
def client(url: str) -> Generator[httpx2.Client]:
    with httpx2.Client(base_url=f"{url}/panacea", headers={"authorization": f"Bearer {KEY}"}, timeout=60) as client:
        yield client


def test_the_page_works_below_a_path(url: str) -> None:
    moved = httpx2.get(f"{url}/panacea")
    assert (moved.status_code, httpx2.URL(moved.headers["location"]).path) == (308, "/panacea/")
    page = httpx2.get(f"{url}/panacea/").text
    assert page.startswith("<!doctype html>")
    assert 'src="page/main.js"' in page  # relative, so that it leads below the path
    assert httpx2.get(f"{url}/panacea/page/main.js").status_code == 200
    assert httpx2.get(f"{url}/health").text != httpx2.get(f"{url}/panacea/health").text  # other paths are not ours


def test_the_official_client_needs_the_key(url: str) -> None:
    client = OpenAI(base_url=f"{url}/panacea/v1", api_key=KEY)
    answer = client.completions.create(model="panacea-demo", prompt="You need", max_tokens=4)
    assert answer.usage is not None
    assert httpx2.get(f"{url}/panacea/v1/models").status_code == 401


def test_tokens_arrive_as_they_are_generated(client: httpx2.Client) -> None:
    arrivals: list[float] = []
    with client.stream("POST", "/v1/completions", json=ENDLESS | {"n": 1, "max_tokens": 400}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for chunk in response.iter_raw():
            arrivals += [time.monotonic()] * chunk.count(b"data: ")
    assert len(arrivals) > 200
    # Held back, all events would come in the last moment.
    half = arrivals[len(arrivals) // 2]
    assert half - arrivals[0] > 0.25 * (arrivals[-1] - arrivals[0])
    assert len(set(arrivals)) > 20


def test_a_client_that_disconnects_ends_its_answer(client: httpx2.Client) -> None:
    before = aborted(client)
    with client.stream("POST", "/v1/completions", json=ENDLESS) as response:
        next(response.iter_raw())
    wait_until(lambda: aborted(client) == before + 8, 20)
    wait_until(lambda: sample(client, "panacea:num_requests_running") == 0, 20)


def aborted(client: httpx2.Client) -> float:
    return sample(client, 'panacea:request_success_total{finished_reason="abort"')


def sample(client: httpx2.Client, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def test_errors_are_the_servers_own(client: httpx2.Client) -> None:
    wrong = client.post("/v1/completions", json={"prompt": "a", "preference": {"funny": 1}})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "preference")
    large = client.post("/v1/completions", content=json.dumps({"prompt": "a" * (4 << 20)}), headers=JSON)
    assert (large.status_code, large.json()["error"]["code"]) == (413, "body_too_large")
    assert client.get("/v1/models").headers["x-request-id"]


JSON = {"content-type": "application/json"}
