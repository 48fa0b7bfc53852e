"""Hostile bodies on a real socket: the fast part of `make fuzz`."""

from collections import Counter

from panacea.bench.soak.server import started
from tests.fuzz.attack import Outcome, attack
from tests.fuzz.mutations import hostile
from tests.fuzz.report import LEAST_PARSED, MEMORY_MIB, SERVE, report, verdict
from tests.fuzz.values import VALID

COUNT = 500


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


def test_what_must_not_be_is_a_reason() -> None:
    outcome = Outcome(problems=["a problem"], memory_mib={"engine": [10, 11 + MEMORY_MIB], "server": [10, 90, 20]})
    outcome.statuses["/v1"] = Counter({"400": 100})
    outcome.parsed = round(100 * LEAST_PARSED) - 1
    assert [each.split()[0] for each in verdict(outcome)] == ["a", "only", "engine:"]
