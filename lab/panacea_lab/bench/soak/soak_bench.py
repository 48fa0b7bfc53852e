"""`panacea bench soak`: hours of mixed load, and a check of what the server still holds afterwards.

warm up     a fifth of the time: lazy imports, thread pools, every block of the KV cache written once
before      no requests: the resources that the server holds now are the reference
load        clients, canaries and a watcher side by side
after       no requests again
"""

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from tqdm import tqdm

from panacea_lab.bench.measurement import BenchError, table
from panacea_lab.bench.soak.canary import Canaries
from panacea_lab.bench.soak.http_caller import Address, Caller, CallError
from panacea_lab.bench.soak.server_watcher import Snapshot, Watcher
from panacea_lab.bench.soak.soak_checks import SoakCheck, check_answers, check_holdings, check_latency, check_memory
from panacea_lab.bench.soak.soak_limits import SoakLimits
from panacea_lab.bench.soak.soak_load import SoakLoad, SoakTally, fill_thread_pool
from panacea_lab.bench.soak.soak_requests import SoakVocabulary
from panacea_lab.bench.soak.soaked_server import started

WARM_UP_SHARE = 0.2
GONE_AFTER = 10
"""The load ends early after this number of failed snapshots in a row."""
SHOWN_POINTS = 200
"""Of the timeline in the JSON file."""


@dataclass(frozen=True)
class SoakBench:
    """What to soak, for how long, and what is too much."""

    minutes: float
    command: Sequence[str] = ()
    """Starts the server; it says on standard error "... serves ... on http://...". Empty: `url` is there already."""
    url: str = ""
    pid: int | None = None
    """Of the server at `url`, if it runs on this machine. None: its /metrics tell of it, and nothing of its engine."""
    key: str | None = None
    clients: int = 8
    seed: int = 0
    prompt_chars: int = 1200
    answer_tokens: int = 128
    sample_s: float = 1.0
    canary_s: float = 1.0
    """Pause between two rounds of canaries."""
    limits: SoakLimits = field(default_factory=SoakLimits)

    def run(self) -> dict[str, Any]:
        """Runs the soak and returns all measurements. Raises `BenchError` if the server cannot be reached."""
        with ExitStack() as stack:
            url, pid = self.url, self.pid
            if self.command:
                server = stack.enter_context(started(self.command))
                url, pid = server.url, server.pid
            try:
                return self._soak(Address.of(url, self.key), pid)
            except CallError as error:
                raise BenchError(f"the server cannot be reached: {error}") from None

    def _soak(self, address: Address, pid: int | None) -> dict[str, Any]:
        with closing(Caller(address)) as caller:
            vocabulary = SoakVocabulary.of(caller, self.prompt_chars, self.answer_tokens)
        watcher = Watcher(Caller(address), pid)
        total_s = 60 * self.minutes
        with tqdm(total=round(total_s), desc="bench soak", unit="s", leave=False) as bar:
            fill_thread_pool(address)
            first = SoakLoad(address, vocabulary, self.clients, f"{self.seed} warm up")
            self._under(first, watcher, total_s * WARM_UP_SHARE, bar)
            canaries = Canaries(address, vocabulary, self.canary_s)
            before = self._settled(watcher, lambda _: True)
            watcher.snapshots.clear()
            load = SoakLoad(address, vocabulary, self.clients, str(self.seed))
            canaries.start()
            try:
                self._under(load, watcher, total_s * (1 - WARM_UP_SHARE), bar)
            finally:
                canaries.stop()
            snapshots = list(watcher.snapshots)
            held = self._check_held(watcher, before)
        checks = [
            *check_answers(load.tally, canaries),
            *self._check_warm_up(first.tally),
            *held,
            *check_memory(snapshots, load.tally.requests, self.limits),
            *check_latency(canaries.samples, self.limits),
        ]
        return self._result(checks, load.tally, canaries, snapshots)

    def _under(self, load: SoakLoad, watcher: Watcher, seconds: float, bar: "tqdm[Any]") -> None:
        """Puts the server under this load, with the present figures in the bar."""
        end = time.monotonic() + seconds
        load.start()
        watcher.start(self.sample_s)
        try:
            while (left := end - time.monotonic()) > 0 and watcher.failed < GONE_AFTER:
                step = min(1.0, left)
                time.sleep(step)
                bar.set_postfix_str(_now(load.tally, watcher), refresh=False)
                bar.update(round(step) if step == 1 else 0)
        finally:
            load.stop()
            watcher.stop()

    def _check_held(self, watcher: Watcher, before: Snapshot) -> list[SoakCheck]:
        def all_given_back(now: Snapshot) -> bool:
            return all(check.holds for check in check_holdings(before, now, self.limits))

        try:
            return check_holdings(before, self._settled(watcher, all_given_back), self.limits)
        except CallError as error:
            return [SoakCheck("the server", "serves", "does not", "", f"the server does not respond any more: {error}")]

    def _settled(self, watcher: Watcher, done: Callable[[Snapshot], bool]) -> Snapshot:
        """A snapshot of the idle server, or the last snapshot if it takes too long to become idle."""
        time.sleep(1)  # the engine's numbers are up to half a second old
        end = time.monotonic() + self.limits.settle_s
        while True:
            now = watcher.snapshot()
            if (now.idle and done(now)) or time.monotonic() > end:
                return now
            time.sleep(0.25)

    def _check_warm_up(self, tally: SoakTally) -> list[SoakCheck]:
        if not tally.failed:
            return []
        reason = f"{tally.failed} requests failed: {tally.failures[0]}"
        return [SoakCheck("requests that failed while warming up", "", str(tally.failed), "0", reason)]

    def _result(
        self, checks: Sequence[SoakCheck], tally: SoakTally, canaries: Canaries, snapshots: Sequence[Snapshot]
    ) -> dict[str, Any]:
        duration_s = snapshots[-1].at_s - snapshots[0].at_s if len(snapshots) > 1 else 0.0
        return {
            "bench": "soak",
            "minutes": self.minutes,
            "clients": self.clients,
            "seed": self.seed,
            "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
            "cores": os.cpu_count(),
            "load_average": [round(each, 1) for each in os.getloadavg()],
            "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "load_s": round(duration_s, 1),
            "requests_per_s": round(tally.requests / duration_s, 2) if duration_s else None,
            "load": tally.as_json(),
            "counted": _counted(snapshots),
            "canaries": {"asked": canaries.asked, "changed": canaries.changed, "problems": canaries.problems},
            "limits": asdict(self.limits),
            "checks": [{**asdict(check), "holds": check.holds} for check in checks],
            "reasons": [check.reason for check in checks if check.reason is not None],
            "timeline": [_shown(each, snapshots[0].at_s) for each in _thinned(snapshots)],
            "latency": [
                {
                    "at_s": round(each.at_s - snapshots[0].at_s, 1) if snapshots else 0,
                    "canary": each.canary,
                    "first_ms": round(each.first_s * 1000, 2),
                    "total_ms": round(each.total_s * 1000, 2),
                    "machine_ms": round(each.machine_s * 1000, 2),
                }
                for each in _thinned(canaries.samples)
            ],
        }


def _thinned(values: Sequence[Any]) -> Sequence[Any]:
    return values[:: max(1, -(-len(values) // SHOWN_POINTS))]


def _shown(snapshot: Snapshot, begin_s: float) -> dict[str, Any]:
    return {
        "at_s": round(snapshot.at_s - begin_s, 1),
        **{name: asdict(process) for name, process in snapshot.processes.items()},
        **snapshot.gauges,
    }


def _counted(snapshots: Sequence[Snapshot]) -> Mapping[str, float]:
    """How far the engine's counters came under load."""
    if not snapshots:
        return {}
    first, last = snapshots[0].counters, snapshots[-1].counters
    return {name: last[name] - first.get(name, 0) for name in last}


def _now(tally: SoakTally, watcher: Watcher) -> str:
    said = f"{tally.requests} requests, {tally.failed} failed"
    if watcher.snapshots:
        last = watcher.snapshots[-1]
        said += f", {last.gauges.get('running', 0):.0f} running"
        said += "".join(f", {name} {each.rss_bytes / 2**20:.0f} MiB" for name, each in last.processes.items())
    return said


def report(result: Mapping[str, Any]) -> str:
    """A table for people, and the reasons if the soak was not passed."""
    load = result["load"]
    kinds = ", ".join(f"{count} {kind}" for kind, count in load["by_kind"].items())
    statuses = ", ".join(f"{count} x {status}" for status, count in load["by_status"].items() if status != "0")
    rows = [
        [check["name"], check["before"], check["after"], check["limit"], "" if check["holds"] else "NO"]
        for check in result["checks"]
    ]
    verdict = [f"NOT PASSED: {reason}" for reason in result["reasons"]] or ["Passed."]
    counted = f"{load['generated_tokens']} tokens generated, {load['cached_tokens']} prompt tokens cached"
    counted += "".join(f", {count:.0f} {name}" for name, count in result["counted"].items() if name == "preemptions")
    average = f"{result['load_average'][1]:.1f}"
    lines = [
        f"bench soak: {result['minutes']:g} minutes, {result['clients']} clients, {result['date']}",
        f"{result['machine']}, {result['cores']} cores, load average over 5 minutes, the soak included: {average}",
        f"{load['requests']} requests under load ({result['requests_per_s']} a second): {kinds}",
        f"statuses: {statuses}; {counted}",
        "",
        table(["what", "before / early", "after / late", "limit", ""], rows),
        "",
        *verdict,
    ]
    return "\n".join(lines)
