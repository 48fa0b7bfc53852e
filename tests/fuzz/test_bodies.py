"""Hostile bodies on a real socket: the fast part of `make fuzz`."""

import socket
import threading
import time
from collections import Counter

import pytest

import tests.fuzz.attack
from panacea_lab.bench.soak.soaked_server import started
from tests.fuzz.attack import Outcome, attack, send
from tests.fuzz.http_mutations import plain
from tests.fuzz.mutations import hostile
from tests.fuzz.report import LEAST_PARSED, MEMORY_MIB, SERVE, report, verdict
from tests.fuzz.values import CHAT, VALID

COUNT = 500


@pytest.mark.slow
def test_five_hundred_hostile_bodies_do_no_harm() -> None:
    with started(SERVE) as server:
        outcome = attack(server, hostile(seed=1, count=COUNT), COUNT)
    assert verdict(outcome) == [], report(outcome)
    assert outcome.sent == COUNT
    assert outcome.canaries >= COUNT // 100
    assert set(outcome.statuses) >= {path for path, _ in VALID}


def test_the_same_seed_makes_the_same_requests_of_every_kind() -> None:
    requests = list(hostile(seed=3, count=3000))
    assert requests == list(hostile(seed=3, count=3000))
    assert requests != list(hostile(seed=4, count=3000))
    assert min(Counter(request.kind for request in requests).values()) > 10


OK = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 500 Oh\r\n\r\n{}", "500 b'{}' to request 7"),
        (b"HTTP/1.1 400 Bad\r\n\r\nno", "400 without an error's shape"),
        (OK + b'event: error\ndata: {"error":{"type":"server_error"}}\n\n', "200 b'event: error"),
        (b"", "no answer (b'')"),
        (None, "no answer in 0.2 s"),
        (b"HTTP/1.1 100 Go on\r\n\r\n" + OK, ""),
        (b'HTTP/1.1 400 Bad\r\n\r\n{"error": {"message": "the body is not valid JSON"}}', ""),
    ],
)
def test_answers_that_must_not_be_are_problems(
    answer: bytes | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tests.fuzz.attack, "LIMIT_S", 0.2 if answer is None else 30)
    outcome = Outcome()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                if answer is None:
                    time.sleep(1)  # it hangs
                else:
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        send(f"http://127.0.0.1:{listener.getsockname()[1]}", plain(7, "none", CHAT, b"{}"), outcome)
        thread.join()
    problem, *_ = [*outcome.problems, ""]
    assert bool(problem) == bool(said)
    assert said in problem


def test_what_must_not_be_is_a_reason() -> None:
    outcome = Outcome(problems=["a problem"], memory_mib={"engine": [10, 11 + MEMORY_MIB], "server": [10, 90, 20]})
    outcome.statuses["/v1"] = Counter({"400": 100})
    outcome.parsed = round(100 * LEAST_PARSED) - 1
    assert [each.split()[0] for each in verdict(outcome)] == ["a", "only", "engine:"]
