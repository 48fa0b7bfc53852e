"""What watches an attack sees what must not be."""

import http.server
import threading
import time
from collections import Counter
from collections.abc import Generator

import pytest

from tests.fuzz.flooders import Flood
from tests.fuzz.health_watch import HealthWatch, watched
from tests.fuzz.neighbour import Neighbour


class Slow(http.server.BaseHTTPRequestHandler):
    """Answers every request after `wait_s`."""

    wait_s = 0.0

    def do_GET(self) -> None:
        time.sleep(self.wait_s)
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the library's name)
        pass


@pytest.fixture
def url() -> Generator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
        Slow.wait_s = 0.0


@pytest.mark.slow
def test_an_answer_of_health_above_a_second_is_a_problem(url: str) -> None:
    with watched(url) as watch:
        time.sleep(3)
        Slow.wait_s = 1.3
        time.sleep(2)
    assert watch.slowest_s > 1.3
    assert watch.p50_s < watch.slowest_s
    assert any("took 1." in problem for problem in watch.problems())


def test_too_few_answers_and_failures_are_problems() -> None:
    assert HealthWatch([0.01] * 5).problems() == ["/health was answered 5 times: too few to judge"]
    assert HealthWatch([0.01] * 50, ["OSError: status 503"]).problems() == ["/health: OSError: status 503"]
    assert HealthWatch([0.01] * 50).problems() == []


def test_a_wrong_answer_a_refusal_and_silence_are_problems() -> None:
    assert Neighbour([0.1], [0.1]).problems() == []
    assert Neighbour([0.1], [0.1], wrong=2).problems() == ["2 answers of another key were wrong"]
    assert Neighbour([], [], refused=["status 429"]).problems() == [
        "another key was refused: status 429",
        "another key got no answer",
    ]


def test_a_flood_may_be_refused_but_not_answered_with_errors() -> None:
    flood = Flood(Counter({"200": 3, "429": 9, "500": 1}), 1.0)
    assert flood.problems(frozenset({"200", "429"})) == ["the flood got 1 x 500"]
