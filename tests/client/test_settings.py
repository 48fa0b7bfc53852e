"""Where the client asks, with which key, and what it never shows."""

import json
import pickle
from typing import Any

import pytest

from panacea_client import (
    AsyncPanacea,
    Panacea,
    PanaceaError,
    RedirectError,
    SettingsError,
    UnauthorizedError,
)
from panacea_client.settings import ClientSettings
from tests.api.fake_engine import FakeEngine
from tests.api.serving import serving
from tests.client.either import MakeClient
from tests.client.hostile import answer, hostile

KEY = "sesame-ölig-🔑"
SECRET = "SECRET"


@pytest.mark.parametrize(
    ("given", "base_url"),
    [
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://localhost:8000/", "http://localhost:8000"),
        ("http://localhost:8000/v1", "http://localhost:8000"),
        (" https://example.org/panacea/v1/ ", "https://example.org/panacea"),
        ("http://[::1]:8000/v1", "http://[::1]:8000"),
        (None, "http://localhost:8000"),
        ("", "http://localhost:8000"),
    ],
)
def test_a_base_url_is_taken_with_or_without_v1(make_client: MakeClient, given: str | None, base_url: str) -> None:
    client = make_client(given, KEY)
    assert repr(client) in {f"Panacea({base_url!r})", f"AsyncPanacea({base_url!r})"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("localhost:8000", "http://"),
        ("127.0.0.1:8000", "http://"),
        ("ftp://localhost", "http://"),
        ("http://", "has no host name"),
        ("http://:8000", "has no host name"),
        ("http://host:port", "is not a valid URL"),
        (f"http://user:{SECRET}@host", "api_key"),
        (f"http://user:{SECRET}@host:port", "is not a valid URL"),
        ("http://host/?a=1", r"\?"),
        ("http://host/#a", "#"),
    ],
)
def test_a_base_url_that_cannot_be_one_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch, given: str, words: str
) -> None:
    for kind in (Panacea, AsyncPanacea):
        with pytest.raises(SettingsError, match=words) as error:
            kind(given)
        assert SECRET not in str(error.value)
    monkeypatch.setenv("PANACEA_BASE_URL", given)
    with pytest.raises(SettingsError, match="PANACEA_BASE_URL"):
        Panacea()


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0}, {"timeout": -1}, {"timeout": float("inf")}, {"timeout": True}, {"max_retries": -1},
        {"max_retries": True}, {"max_retries": 2.5},
        {"api_key": f"{SECRET}\nx"}, {"api_key": f"{SECRET} x"}, {"proxy": "localhost:3128"},
        {"proxy": f"nothing://u:{SECRET}@h"}, {"proxy": f"http://u:{SECRET}@"}, {"proxy": ""},
        {"headers": {"x": f"{SECRET}\r\ny: z"}}, {"headers": {f"x {SECRET}": "y"}}, {"headers": {"": "y"}},
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_errors_that_name_them(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(SettingsError, match=name) as error:
        Panacea(**options)
    assert SECRET not in str(error.value)


def test_the_key_opens_the_server_from_the_environment_or_an_argument(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def make_engine() -> FakeEngine:
        return FakeEngine()

    with serving(make_engine, api_keys=(KEY,)) as served:
        monkeypatch.setenv("PANACEA_BASE_URL", served.url)
        with pytest.raises(UnauthorizedError, match="PANACEA_API_KEY") as refused:
            make_client().models()
        assert refused.value.code == "invalid_api_key"
        with pytest.raises(UnauthorizedError) as refused:
            make_client(api_key=SECRET).chat("Hello")
        assert SECRET not in str(refused.value)
        assert make_client(api_key=f"{KEY}\n").models()
        monkeypatch.setenv("PANACEA_API_KEY", KEY)
        assert make_client().models()
        assert make_client().chat("Hello", max_tokens=1).text
        assert [answer.text for answer in make_client().compare("Hello", [None], max_tokens=1)]


def test_the_key_goes_to_no_other_host(make_client: MakeClient) -> None:
    with hostile([answer(b"{}")]) as other:
        location = f"location: {other.url}/v1/models\r\n"
        with hostile([answer(b"", "307 Temporary Redirect", headers=location)]) as first:
            client = make_client(first.url, SECRET)
            for ask in (client.models, lambda: client.chat("Hello"), lambda: next(client.stream("Hello"))):
                with pytest.raises(RedirectError, match=other.url) as error:
                    ask()
                assert error.value.status == 307
            assert b"authorization: bearer secret" in first.requests[0].lower()
        assert other.requests == []


def test_nothing_that_is_printed_or_pickled_shows_the_key(make_client: MakeClient) -> None:
    with hostile([b"garbage\r\n\r\n"], [answer(b"{}", "401 Unauthorized")]) as server:
        client = make_client(server.url, SECRET, max_retries=0, headers={"x-gateway": SECRET})
        assert SECRET not in repr(client)
        for _ in range(2):
            with pytest.raises(PanaceaError) as error:
                client.models()
            shown = [str(error.value), repr(error.value), repr(error.value.__cause__), repr(vars(error.value))]
            assert not [each for each in shown if SECRET in each]
            assert SECRET.encode() not in pickle.dumps(error.value)


def test_settings_in_a_traceback_or_a_debugger_show_no_secret() -> None:
    proxy, headers = f"http://u:{SECRET}@localhost", {"x": SECRET}
    settings = ClientSettings.of("http://localhost", SECRET, 1.0, 0, headers, False, proxy)
    assert "base_url='http://localhost'" in repr(settings)
    assert SECRET not in repr(settings)


def test_a_gateways_headers_and_the_clients_own_are_sent(make_client: MakeClient) -> None:
    with hostile([answer(b'{"data": []}')]) as server:
        client = make_client(server.url, headers={"X-Gateway": "open", "User-Agent": "mine"})
        assert client.models() == []
    head = server.requests[0].decode().lower()
    assert "\r\nx-gateway: open\r\n" in head
    assert "\r\nuser-agent: panacea-client/" in head
    assert head.count("user-agent") == 1
    assert "authorization" not in head


def test_the_body_is_what_the_contract_says(make_client: MakeClient) -> None:
    with hostile([answer(b"{}")]) as server:
        client = make_client(server.url + "/behind/a/proxy/v1", max_retries=0)
        with pytest.raises(PanaceaError):
            client.chat("é", preference={"concise": 1}, max_tokens=3, stop="x", seed=None, extra={"min_tokens": 1})
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /behind/a/proxy/v1/chat/completions HTTP/1.1\r\n")
    assert json.loads(body) == {
        "messages": [{"role": "user", "content": "é"}],
        "preference": {"concise": 1.0},
        "max_tokens": 3,
        "stop": "x",
        "min_tokens": 1,
    }


def test_a_proxy_is_gone_through(make_client: MakeClient) -> None:
    with hostile([answer(b'{"data": []}')]) as proxy:
        assert make_client("http://panacea.invalid", proxy=proxy.url).models() == []
    assert proxy.requests[0].startswith(b"GET http://panacea.invalid/v1/models HTTP/1.1\r\n")


def test_what_is_public_is_listed() -> None:
    import panacea_client

    names = {
        name
        for name, value in vars(panacea_client).items()
        if getattr(value, "__module__", "").startswith("panacea_client.") and not name.startswith("_")
    }
    names_of_unions = {"Preference", "Question"}
    assert names | names_of_unions == set(panacea_client.__all__)
