"""`panacea bench soak`: what is planted is found, what is not planted is not found, and a real server passes."""

import json
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from panacea_lab.bench.measurement import BenchError
from panacea_lab.bench.soak.canary import CanaryTimes
from panacea_lab.bench.soak.http_caller import Address
from panacea_lab.bench.soak.server_watcher import Process, Snapshot
from panacea_lab.bench.soak.soak_bench import SoakBench, report
from panacea_lab.bench.soak.soak_checks import SoakCheck, check_holdings, check_latency, check_memory
from panacea_lab.bench.soak.soak_limits import SoakLimits
from panacea_lab.bench.soak.soak_requests import SoakRequests, SoakVocabulary
from panacea_lab.bench.soak.trend import compare, fit
from tests.command import run_panacea

MIB = 2**20
# A few seconds on a machine that others use tell little of latency and of single MiB.
LENIENT = SoakLimits(settle_s=2, latency_ratio=5, memory_floor_mib=8, least_samples=2)


def soak(*faults: str, limits: SoakLimits = LENIENT) -> dict[str, Any]:
    """What a soak of some seconds says of a server with these faults."""
    return SoakBench(
        minutes=0.1,
        command=(sys.executable, "-m", "tests.bench.leaky_server", *faults),
        clients=4,
        prompt_chars=200,
        answer_tokens=24,
        sample_s=0.05,
        canary_s=0.01,
        limits=limits,
    ).run()


def failed(result: Mapping[str, Any]) -> set[str]:
    return {check["name"] for check in result["checks"] if not check["holds"]}


@pytest.mark.slow
def test_a_server_without_faults_passes() -> None:
    result = soak()
    assert result["reasons"] == []
    assert failed(result) == set()
    load = result["load"]
    assert load["requests"] > 50
    assert set(load["by_kind"]) >= {"whole", "stream", "disconnect"}
    assert set(load["by_status"]) <= {"0", "200", "400", "404"}
    assert load["generated_tokens"] > 0
    assert result["canaries"]["asked"] >= 6
    assert "Passed." in report(result)
    assert json.loads(json.dumps(result)) == result


@pytest.mark.slow
def test_every_planted_leak_is_found() -> None:
    leaks = ("memory", "fds", "threads", "tasks", "processes", "slots", "blocks", "slow")
    result = soak(*leaks, limits=replace(LENIENT, latency_ratio=1.25, latency_chance=0.2))
    assert failed(result) >= {
        "server: memory",
        "server: file descriptors",
        "server: threads",
        "event loop tasks",
        "processes",
        "slots in use",
        "share of KV blocks in use",
        "canary: first token",
    }
    assert len(result["reasons"]) == len(failed(result)) == report(result).count("NOT PASSED: ")


@pytest.mark.slow
def test_wrong_tokens_and_server_errors_are_found() -> None:
    result = soak("words", "failures")
    assert failed(result) == {"answers with a 5xx", "requests that failed", "canaries with other tokens"}
    assert result["canaries"]["changed"] > 0
    assert any("503" in failure for failure in result["load"]["failures"])


@pytest.mark.slow
def test_a_server_that_dies_fails_the_soak_and_not_the_bench() -> None:
    result = soak("death")
    assert "the server" in failed(result)
    assert any("does not respond any more" in reason for reason in result["reasons"])


def test_a_server_that_does_not_start_is_one_clear_error() -> None:
    command = (sys.executable, "-c", "raise SystemExit('no model here')")
    with pytest.raises(BenchError, match="ended with code 1; its last line: no model here"):
        SoakBench(minutes=1, command=command).run()


# The checks alone: each finds its own leak and no other.

HELD = Snapshot(
    at_s=0,
    processes={"server": Process(1, 100 * MIB, 20, 8), "engine": Process(2, 500 * MIB, 12, 5)},
    gauges={"running": 0, "waiting": 0, "kv_usage": 0.0, "slots": 0, "tasks": 4},
    counters={},
)


def unlike(**changes: Any) -> Snapshot:
    engine = replace(HELD.processes["engine"], **{n: v for n, v in changes.items() if n in ("pid", "fds", "threads")})
    gauges = {name: changes.get(name, value) for name, value in HELD.gauges.items()}
    return replace(HELD, processes={**HELD.processes, "engine": engine}, gauges=gauges)


def broken(checks: Sequence[SoakCheck]) -> list[str]:
    return [check.name for check in checks if not check.holds]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"fds": 13}, ["engine: file descriptors"]),
        ({"fds": 11}, []),
        ({"threads": 13}, []),
        ({"threads": 14}, ["engine: threads"]),
        ({"pid": 3}, ["the same processes"]),
        ({"slots": 1}, ["slots in use"]),
        ({"tasks": 5}, ["event loop tasks"]),
        ({"kv_usage": 1 / 4096}, ["share of KV blocks in use"]),
        ({"running": 1}, ["requests running"]),
        ({"waiting": 1}, ["requests waiting"]),
    ],
)
def test_what_is_held_longer_is_found_by_its_name(changes: dict[str, float], found: list[str]) -> None:
    assert broken(check_holdings(HELD, unlike(**changes), SoakLimits())) == found


def test_a_process_too_many_is_found() -> None:
    more = replace(HELD, processes={**HELD.processes, "child 2": Process(9, MIB, 3, 1)})
    assert "processes" in broken(check_holdings(HELD, more, SoakLimits()))


def memory(mib_per_hour: float, minutes: float, noise_mib: float, seed: int) -> list[Snapshot]:
    """A process that grows so fast, with arenas that come and go."""
    draw = random.Random(seed)
    jumps = 0.0
    snapshots: list[Snapshot] = []
    for second in range(round(60 * minutes)):
        jumps = draw.choice((jumps, jumps, jumps, draw.uniform(-noise_mib, noise_mib)))
        size = round((500 + jumps + mib_per_hour * second / 3600) * MIB)
        snapshots.append(replace(HELD, at_s=second, processes={"engine": Process(2, size, 1, 1)}))
    return snapshots


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("mib_per_hour", "is_leak"), [(-50, False), (0, False), (10, False), (40, True), (500, True)])
def test_a_slope_is_told_from_noise(mib_per_hour: float, is_leak: bool, seed: int) -> None:
    checks = check_memory(memory(mib_per_hour, 20, 3, seed), 1000, SoakLimits())
    assert broken(checks) == (["engine: memory"] if is_leak else [])


def test_memory_that_nobody_saw_is_not_passed() -> None:
    assert broken(check_memory([], 0, SoakLimits())) == ["memory"]
    assert broken(check_memory(memory(0, 5 / 60, 0, 0), 1, SoakLimits())) == ["engine: memory"]


def canaries(late_factor: float, machine_factor: float, count: int = 300) -> list[CanaryTimes]:
    draw = random.Random(1)
    samples: list[CanaryTimes] = []
    for number in range(count):
        late = number > count / 2
        name, length = draw.choice((("greedy", 0.2), ("seeded", 0.5)))
        # Now and then something takes ten times as long: medians do not care.
        slow = draw.lognormvariate(0, 0.3) * (10 if draw.random() < 0.05 else 1) * (late_factor if late else 1)
        machine = 0.004 * (machine_factor if late else 1) * draw.lognormvariate(0, 0.1)
        samples.append(CanaryTimes(number, name, 0.1 * length * slow, length * slow, machine))
    return samples


def test_latency_that_drifted_is_told_from_noise_and_from_a_slower_machine() -> None:
    both = ["canary: first token", "canary: whole answer"]
    assert broken(check_latency(canaries(1, 1), SoakLimits())) == []
    assert broken(check_latency(canaries(0.5, 1), SoakLimits())) == []
    assert broken(check_latency(canaries(1.6, 1), SoakLimits())) == both
    assert broken(check_latency(canaries(1.6, 1.6), SoakLimits())) == []
    assert broken(check_latency(canaries(1, 1, count=12), SoakLimits())) == ["latency"], "too few to tell"


def test_line_and_ranks() -> None:
    line = fit([0, 1, 2, 3, 4], [5, 7, 9, 999, 13])
    assert (line.slope, line.duration, line.growth, line.noise) == (2, 4, 8, 0)
    same, later = compare([1, 2, 3, 4], [1, 2, 3, 4]), compare([1, 2, 3, 4], [5, 6, 7, 8])
    assert (same.ratio, same.chance) == (1, 0.5)
    assert later.ratio == 2.6
    assert later.chance == pytest.approx(0.0104, abs=1e-3)  # U = 16 of 16; the normal tail beyond 8 / sqrt(12)


def test_the_same_seed_asks_the_same_and_the_shares_are_right() -> None:
    vocabulary = SoakVocabulary(("m", "m:base"), ("a", "b"), ("How are you?",), 200, 24)
    asks, again = SoakRequests(vocabulary, "0"), SoakRequests(vocabulary, "0")
    drawn = [asks.next() for _ in range(10_000)]
    assert drawn == [again.next() for _ in range(10_000)]
    shares = {kind: sum(ask.kind == kind for ask in drawn) / len(drawn) for kind in ("disconnect", "bad", "stream")}
    assert shares["disconnect"] == pytest.approx(0.05, abs=0.01)
    assert shares["bad"] == pytest.approx(0.01, abs=0.005)
    assert 0.4 < shares["stream"] < 0.55
    assert {ask.path for ask in drawn} >= {"/v1/chat/completions", "/v1/completions"}


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "https://a", "http://a:99999999", "http://a/v1", "http://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(BenchError, match="--url must look like"):
        Address.of(url)


# The command, and the server that it starts.


@pytest.mark.slow
def test_the_command_soaks_a_server_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "soak.json"
    ran = run_panacea("bench", "soak", "--minutes", "0.1", "--clients", "3", "--json", str(file))
    result = json.loads(file.read_text("utf-8"))
    # Seconds tell nothing of slopes and drift. All else has to be right.
    assert {name for name in failed(result) if not name.endswith(("memory", "latency", "token", "answer"))} == set()
    assert ran.code == bool(result["reasons"]), ran.out
    assert {"server: memory", "engine: memory", "slots in use", "event loop tasks"} <= {
        check["name"] for check in result["checks"]
    }
    assert result["canaries"]["asked"] > 0


def test_an_address_is_needed_to_reach_a_server_by() -> None:
    ran = run_panacea("bench", "soak", "--pid", "1")
    assert ran.code == 2
    assert "--pid and --api-key-file belong to a server that runs already: give its --url too" in ran.err
