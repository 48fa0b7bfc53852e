"""How the page and its files are served; what it does in a browser is in tests/web."""

import zlib
from collections.abc import Generator
from pathlib import Path

import httpx2
import pytest

from panacea.api.information.web_page import page_folder
from tests.api.fake_engine import FakeEngine
from tests.api.serving import serving

FILES = sorted(str(path.relative_to(page_folder())) for path in page_folder().rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def stranger() -> Generator[httpx2.Client]:
    """A client without a key of a server that asks for one."""

    async def make_engine() -> FakeEngine:
        return FakeEngine()

    with (
        serving(make_engine, api_keys=("key",)) as served,
        httpx2.Client(base_url=served.url) as client,
    ):
        yield client


@pytest.mark.parametrize("path", ["/", *(f"/page/{name}" for name in FILES)])
def test_every_file_comes_without_a_key_and_may_reach_this_server_alone(stranger: httpx2.Client, path: str) -> None:
    response = stranger.get(path)
    assert response.status_code == 200
    assert response.content == (page_folder() / (path.removeprefix("/page").strip("/") or "index.html")).read_bytes()
    parts = (part.strip().partition(" ") for part in response.headers["content-security-policy"].split(";"))
    policy = {name: value for name, _, value in parts}
    assert policy["default-src"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert set(policy.values()) <= {"'none'", "'self'", "'script'"}, "neither other origins nor inline code"
    assert response.headers["x-content-type-options"] == "nosniff"
    if path.endswith(".js"):
        assert response.headers["content-type"].startswith("text/javascript")


def test_an_unchanged_file_is_not_sent_again(stranger: httpx2.Client) -> None:
    first = stranger.get("/page/main.js")
    again = stranger.get("/page/main.js", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_files_are_compressed_on_the_way(stranger: httpx2.Client) -> None:
    with stranger.stream("GET", "/page/vendor/marked.js") as response:
        sent = b"".join(response.iter_raw())
    assert response.headers["content-encoding"] == "gzip"
    assert zlib.decompress(sent, 31) == (page_folder() / "vendor/marked.js").read_bytes()


@pytest.mark.parametrize(
    "path",
    [
        "/page",
        "/page/",
        "/page/nothing.js",
        "/page/components",
        "/page/../README.md",
        "/page/%2e%2e/package.json",
        "/page/..%2f..%2f..%2fpyproject.toml",
        "/page//etc/passwd",
        "/page/vendor/%00",
        "/page/" + "x" * 5000,
    ],
)
def test_nothing_else_is_there(stranger: httpx2.Client, path: str) -> None:
    response = stranger.get(path)
    assert response.status_code in (401, 404)
    assert response.json()["error"]["message"]


def test_the_page_asks_nothing_of_other_servers() -> None:
    """Addresses in its files are namespaces, licences and documentation; what it loads is checked in a browser too."""
    folder = page_folder()
    loaded = [folder / name for name in FILES if Path(name).suffix in {".html", ".css"}]
    assert not [path.name for path in loaded if "//" in path.read_text("utf-8").replace("http://www.w3.org", "")]
