"""Keys in use: scopes, ends, wrong ones, and a key file that changes while the server runs."""

import asyncio
import json
import math
import os
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from panacea.api.access.key_ring import KeyRing
from panacea.api.access.key_watch import watch_key_file
from panacea.api.access.wrong_keys import WrongKeys
from panacea.api_key import ApiKey
from panacea.config import Limits
from tests.api.chatting import CHAT, ask, body, error_of
from tests.api.fake_engine import FakeEngine
from tests.api.metric_samples import Samples
from tests.api.serving import Served, serving, wait_until
from tests.api.test_authorisation import forms, status_and_body
from tests.log_lines import log_lines, requests

ALICE, METRICS, ADMIN, BARE, OLD = ("key-of-alice", "key-of-metrics", "key-of-admin", "a-bare-key", "an-old-key")
RING = (
    ApiKey.of(ALICE, "alice", ["infer"]),
    ApiKey.of(METRICS, "prometheus", ["metrics"]),
    ApiKey.of(ADMIN, "admin", ["admin"]),
    ApiKey.of(BARE),
    replace(ApiKey.of(OLD, "old"), expires_at=time.time() - 1),
)
MOST_WRONG = 5


async def make_engine() -> FakeEngine:
    return FakeEngine()


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def keyed() -> Generator[Served]:
    with serving(make_engine, api_keys=RING) as served:
        yield served


@pytest.fixture(scope="module")
def stranger(keyed: Served) -> Generator[httpx2.Client]:
    with httpx2.Client(base_url=keyed.url, timeout=30) as client:
        yield client


# Scopes and ends.


@pytest.mark.parametrize(
    ("key", "api", "metrics", "keys"),
    [(ALICE, 200, 403, 403), (METRICS, 403, 200, 403), (ADMIN, 403, 403, 200), (BARE, 200, 200, 403)],
)
def test_a_key_is_for_its_scopes_alone(stranger: httpx2.Client, key: str, api: int, metrics: int, keys: int) -> None:
    for path, status in (("/v1/models", api), ("/docs", api), ("/metrics", metrics), ("/v1/keys", keys)):
        response = stranger.get(path, headers=bearer(key))
        assert response.status_code == status
        if status == 403:
            assert error_of(response)["code"] == "missing_scope"
    assert stranger.post(CHAT, json=body(), headers=bearer(key)).status_code == api
    assert stranger.get("/nothing", headers=bearer(key)).status_code == (404 if api == 200 else 403)


@pytest.mark.parametrize("path", ["/metrics", "/v1/keys"])
def test_no_form_of_a_path_gets_around_its_scope(keyed: Served, path: str) -> None:
    for target in (path, *forms(path)):
        _, content = status_and_body(keyed.port, target, f"Authorization: Bearer {ALICE}\r\n")
        assert b"panacea:" not in content, target
        assert b"alice" not in content, target


def test_an_expired_key_is_refused_and_told_apart_from_a_wrong_one(stranger: httpx2.Client) -> None:
    response = stranger.get("/v1/models", headers=bearer(OLD))
    assert (response.status_code, error_of(response)["code"]) == (401, "expired_api_key")
    assert response.headers["www-authenticate"] == "Bearer"


def test_an_admin_sees_the_keys_and_no_key(stranger: httpx2.Client) -> None:
    response = stranger.get("/v1/keys", headers=bearer(ADMIN))
    cards = {card["name"]: card for card in response.json()["data"]}
    assert set(cards) == {"alice", "prometheus", "admin", "old", None}
    assert cards["alice"]["scopes"] == ["infer"]
    assert cards["alice"]["digest"] == ApiKey.of(ALICE).short_digest
    assert (cards["alice"]["expires"], cards["alice"]["requests"], cards["alice"]["tokens"]) == (None, None, None)
    assert cards["old"]["expires"].endswith("Z")
    for secret in (ALICE, METRICS, ADMIN, BARE, OLD, ApiKey.of(ALICE).digest.hex()):
        assert secret not in response.text


def test_named_keys_are_labels_and_names_and_short_digests_are_in_the_log(keyed: Served) -> None:
    with httpx2.Client(base_url=keyed.url, timeout=30) as client, log_lines() as lines:
        before = Samples_of(client)
        usage = ask_as(client, ALICE)["usage"]
        ask_as(client, BARE)
        client.get("/v1/models", headers=bearer("a wrong key"))
        wait_until(lambda: len(requests(lines)) == 3)
        after = Samples_of(client)
    assert after("key_requests_total", key="alice") - before("key_requests_total", key="alice") == 1
    charged = after("key_tokens_total", key="alice") - before("key_tokens_total", key="alice")
    assert charged == usage["total_tokens"]
    assert after.labels["panacea:key_requests_total"]["key"] == {"alice", "prometheus", "admin", "old"}
    named, bare, wrong = requests(lines)
    assert (named["key"], named["key_digest"]) == ("alice", ApiKey.of(ALICE).short_digest)
    assert bare["key"] == bare["key_digest"] == ApiKey.of(BARE).short_digest
    assert {"key", "key_digest"}.isdisjoint(wrong)
    for secret in (ALICE, BARE, ApiKey.of(ALICE).digest.hex()):
        assert not [line for line in lines if secret in line]


def Samples_of(client: httpx2.Client) -> Samples:  # noqa: N802 (it makes one)
    client.headers.update(bearer(METRICS))
    return Samples(client)


def ask_as(client: httpx2.Client, key: str) -> dict[str, dict[str, int]]:
    client.headers.update(bearer(key))
    answer: dict[str, dict[str, int]] = ask(client)
    return answer


# Wrong keys.


def test_an_address_with_many_wrong_keys_is_told_to_wait_and_right_keys_from_it_still_work() -> None:
    with (
        serving(make_engine, api_keys=RING, limits=Limits(max_wrong_keys=MOST_WRONG)) as served,
        httpx2.Client(base_url=served.url) as client,
    ):
        for number in range(MOST_WRONG):
            assert client.get("/v1/models", headers=bearer(f"guess-{number}")).status_code == 401
        for number in range(20):
            response = client.post(CHAT, json=body(), headers=bearer(f"another-{number}"))
            assert (response.status_code, error_of(response)["code"]) == (429, "too_many_wrong_keys")
            assert 1 <= int(response.headers["retry-after"]) <= 60
            assert client.get("/v1/models", headers=bearer(ALICE)).status_code == 200
            assert client.get("/v1/models").status_code == 401  # no key is no guess
            assert client.get("/health", headers=bearer("wrong")).status_code == 200
        client.headers.update(bearer(METRICS))
        assert Samples(client)("requests_rejected_total", reason="too_many_wrong_keys") == 20


def test_addresses_behind_a_trusted_proxy_are_counted_apart() -> None:
    with (
        serving(
            make_engine, api_keys=RING, limits=Limits(max_wrong_keys=MOST_WRONG), trusted_proxies=("127.0.0.1",)
        ) as served,
        httpx2.Client(base_url=served.url) as client,
    ):
        for address, status in (("192.0.2.1", 429), ("192.0.2.2", 401)):
            headers = bearer("wrong") | {"x-forwarded-for": address}
            times = 2 * MOST_WRONG if status == 429 else 1
            statuses = [client.get("/v1/models", headers=headers).status_code for _ in range(times)]
            assert statuses[-1] == status


def test_wrong_keys_of_any_number_of_addresses_take_bounded_memory() -> None:
    wrong = WrongKeys(1)
    for number in range(20_000):
        assert wrong.count(f"10.0.{number // 256}.{number % 256}") == 0
    assert len(wrong) <= 4096
    assert wrong.count("10.0.78.31") > 0  # the last one is remembered


@given(st.sets(st.binary(max_size=40), min_size=1, max_size=20), st.binary(max_size=40))
def test_a_key_is_found_if_and_only_if_it_is_one(texts: set[bytes], given_key: bytes) -> None:
    from panacea.api_key import key_digest

    ring = KeyRing((ApiKey(key_digest(text)) for text in texts), Limits())
    assert (ring.find(key_digest(given_key)) is not None) == (given_key in texts)


# A file that changes.


def run_watch(path: Path, ring: KeyRing, steps: list[tuple[Callable[[], object], Callable[[], bool]]]) -> None:
    """Watches the file; does each step, and waits until its condition holds."""

    async def watched() -> None:
        watch = asyncio.create_task(watch_key_file(path, ring, poll_s=0.005))
        for act, condition in steps:
            act()
            async with asyncio.timeout(20):
                while not condition():
                    assert not watch.done()
                    await asyncio.sleep(0.002)
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)

    asyncio.run(watched())


def written(path: Path, *keys: str) -> Path:
    """Replaces the file at once, as careful programs do."""
    new = path.with_suffix(".new")
    new.write_text("\n".join(keys), "utf-8")
    new.chmod(0o600)
    return new.rename(path)


LONG = [f"a-long-key-{number:08}" for number in range(4)]


def is_valid(ring: KeyRing, *keys: str) -> bool:
    return {account.key for account in ring.accounts} == {ApiKey.of(key) for key in keys}


def test_a_changed_file_is_in_use_soon_and_keys_that_stay_keep_what_they_used(tmp_path: Path) -> None:
    path = written(tmp_path / "keys", *LONG[:2])
    ring = KeyRing(map(ApiKey.of, LONG[:2]), Limits(requests_per_minute=10))
    kept = ring.find(ApiKey.of(LONG[1]).digest)
    assert kept is not None
    kept.requests.spend(7)
    with log_lines() as lines:
        run_watch(
            path,
            ring,
            [
                (lambda: None, lambda: is_valid(ring, *LONG[:2])),
                (lambda: written(path, *LONG[1:3]), lambda: is_valid(ring, *LONG[1:3])),
                (lambda: path.write_text("\n".join(LONG[2:]), "utf-8"), lambda: is_valid(ring, *LONG[2:])),
                (lambda: written(path, *LONG[1:]), lambda: is_valid(ring, *LONG[1:])),
            ],
        )
    assert ring.find(ApiKey.of(LONG[1]).digest) is not kept
    said = [json.loads(line)["message"] for line in lines if "API keys" in line]
    assert said[0] == "read the API keys again: 1 added, 1 removed, 2 in all"
    assert not [line for line in lines for key in LONG if key in line]


def test_a_key_that_stays_keeps_its_account_and_takes_its_new_limits() -> None:
    ring = KeyRing([ApiKey.of("a"), ApiKey.of("b")], Limits(requests_per_minute=10))
    account = ring.find(ApiKey.of("a").digest)
    assert account is not None
    account.requests.spend(7)
    ring.replace([replace(ApiKey.of("a", "name"), requests_per_minute=8, tokens_per_minute=math.inf)])
    assert ring.find(ApiKey.of("a").digest) is account
    assert (account.requests.per_minute, account.requests.remaining) == (8, 1)
    assert not account.tokens.is_limited
    assert ring.find(ApiKey.of("b").digest) is None


@pytest.mark.parametrize("bad", ["", "short\n", f"{LONG[0]}\n{LONG[0]}\n", "\x00"])
def test_a_bad_file_leaves_the_keys_as_they_are_and_is_told_once(tmp_path: Path, bad: str) -> None:
    path = written(tmp_path / "keys", *LONG[:2])
    ring = KeyRing(map(ApiKey.of, LONG[:2]), Limits())
    with log_lines() as lines:
        run_watch(
            path,
            ring,
            [
                (lambda: written(path, bad), lambda: ring.failed_reloads == 1),
                (lambda: time.sleep(0.1), lambda: is_valid(ring, *LONG[:2])),
                (path.unlink, lambda: ring.failed_reloads == 2),
                (lambda: written(path, *LONG[:3]), lambda: is_valid(ring, *LONG[:3])),
            ],
        )
    errors = [json.loads(line) for line in lines if json.loads(line)["level"] == "error"]
    assert len(errors) == ring.failed_reloads == 2
    assert all(error["message"].startswith("the API keys stay as they were: --api-key-file") for error in errors)
    assert not [line for line in lines if LONG[0] in line]


def test_a_pipe_is_read_once_and_not_watched(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    ring = KeyRing(map(ApiKey.of, LONG), Limits())
    asyncio.run(asyncio.wait_for(watch_key_file(path, ring), 20))
    assert is_valid(ring, *LONG)


def test_a_revoked_key_is_refused_at_once_and_its_stream_goes_on() -> None:
    engine = FakeEngine(step_s=0.02)

    async def make() -> FakeEngine:
        return engine

    with serving(make, api_keys=RING) as served, httpx2.Client(base_url=served.url, timeout=30) as client:
        wanted = body(stream=True, max_tokens=30, ignore_eos=True)
        with client.stream("POST", CHAT, json=wanted, headers=bearer(ALICE)) as response:
            lines = response.iter_lines()
            next(lines)
            served.admission.keys.replace(RING[1:])
            assert client.get("/v1/models", headers=bearer(ALICE)).status_code == 401
            assert [*lines][-2:] == ["data: [DONE]", ""]
        assert client.get("/v1/models", headers=bearer(BARE)).status_code == 200
