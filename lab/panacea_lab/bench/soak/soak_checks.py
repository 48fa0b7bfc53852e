"""The checks at the end of a soak. Each check is a line of the report, and a failed check has a reason."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from panacea_lab.bench.soak.canary import Canaries, CanaryTimes
from panacea_lab.bench.soak.server_watcher import Snapshot
from panacea_lab.bench.soak.soak_limits import SoakLimits
from panacea_lab.bench.soak.soak_load import SoakTally
from panacea_lab.bench.soak.trend import compare, fit

MIB = 2**20


@dataclass(frozen=True)
class SoakCheck:
    """One check."""

    name: str
    before: str
    after: str
    limit: str
    reason: str | None = None
    """The reason why it fails; None if it passes."""

    @property
    def holds(self) -> bool:
        return self.reason is None


def check_holdings(before: Snapshot, after: Snapshot, limits: SoakLimits) -> list[SoakCheck]:
    """The idle server holds no more resources than before the load."""
    checks: list[SoakCheck] = []
    held = before.holdings()
    for name, now in after.holdings().items():
        then = held.get(name, 0)
        allowed = then + (limits.threads if name.endswith("threads") else 0)
        kept = now > allowed + 1e-9  # the share of blocks is a float
        reason = f"{name}: {_number(then)} before the load, {_number(now)} after it" if kept else None
        checks.append(SoakCheck(name, _number(then), _number(now), _number(allowed), reason))
    pids = [{name: process.pid for name, process in each.processes.items()} for each in (before, after)]
    if pids[0] != pids[1]:
        reason = f"the processes are not the same ones: {pids[0]} before, {pids[1]} after"
        checks.append(SoakCheck("the same processes", "", "changed", "", reason))
    return checks


def check_memory(snapshots: Sequence[Snapshot], requests: int, limits: SoakLimits) -> list[SoakCheck]:
    """The slope of each process' resident memory under load."""
    checks: list[SoakCheck] = []
    for name in snapshots[0].processes if snapshots else ():
        points = [(each.at_s, each.processes[name].rss_bytes) for each in snapshots if name in each.processes]
        title = f"{name}: memory"
        limit = f"{limits.memory_mib_per_hour:g} MiB/h"
        if len(points) < limits.least_samples:
            checks.append(
                SoakCheck(title, "", "", limit, f"{title} was seen {len(points)} times, which tells no slope")
            )
            continue
        times, values = zip(*points, strict=True)
        line = fit(times, values)
        per_hour, growth, noise = line.slope * 3600 / MIB, line.growth / MIB, line.noise / MIB
        grows = per_hour > limits.memory_mib_per_hour
        seen = growth > max(limits.memory_floor_mib, limits.memory_noises * noise)
        each = f", {line.growth / requests:.0f} bytes a request" if requests else ""
        reason = f"{title} grows by {per_hour:.1f} MiB an hour ({growth:.1f} MiB in this run{each})"
        after = f"{_mib(values[-1])} {per_hour:+.1f} MiB/h"
        checks.append(SoakCheck(title, _mib(values[0]), after, limit, reason if grows and seen else None))
    if not checks:
        checks.append(SoakCheck("memory", "", "", "", "memory was never seen"))
    return checks


def check_latency(samples: Sequence[CanaryTimes], limits: SoakLimits) -> list[SoakCheck]:
    """Whether canaries took longer in the last third than in the first one, more so than the machine's own work did."""
    checks: list[SoakCheck] = []
    third = len(samples) // 3
    if third < limits.least_samples:
        reason = f"{len(samples)} canaries were answered, which tells no drift"
        return [SoakCheck("latency", "", "", f"x{limits.latency_ratio:g}", reason)]
    machine = compare([each.machine_s for each in samples[:third]], [each.machine_s for each in samples[-third:]])
    times = {
        "canary: first token": [each.first_s for each in samples],
        "canary: whole answer": [each.total_s for each in samples],
    }
    for name, values in times.items():
        relative = _relative([each.canary for each in samples], values)
        drift = compare(relative[:third], relative[-third:])
        own = drift.ratio / max(1.0, machine.ratio)
        early, late = (statistics.median(part) for part in (values[:third], values[-third:]))
        drifted = own > limits.latency_ratio and drift.chance < limits.latency_chance
        reason = (
            f"{name}: {drift.ratio:.2f} times as long in the last third as in the first "
            f"(the machine's own work {machine.ratio:.2f} times)"
        )
        after = f"{late * 1000:.1f} ms x{drift.ratio:.2f}"
        limit = f"x{limits.latency_ratio:g}"
        checks.append(SoakCheck(name, f"{early * 1000:.1f} ms", after, limit, reason if drifted else None))
    before, after = f"{machine.early * 1000:.1f} ms", f"{machine.late * 1000:.1f} ms x{machine.ratio:.2f}"
    checks.append(SoakCheck("the machine itself", before, after, "for comparison"))
    return checks


def _relative(names: Sequence[str], values: Sequence[float]) -> list[float]:
    """Each canary's times by its own median, so that all of them can be ranked together."""
    medians = {
        each: statistics.median(value for name, value in zip(names, values, strict=True) if name == each)
        for each in set(names)
    }
    return [value / medians[name] for name, value in zip(names, values, strict=True)]


def check_answers(tally: SoakTally, canaries: Canaries) -> list[SoakCheck]:
    """No server errors, no failed requests, and canaries with the same tokens throughout."""
    errors = sum(count for status, count in tally.statuses.items() if status >= 500)
    shown = f": {tally.failures[0]}" if tally.failures else ""
    asked = f"{canaries.asked} asked"
    failed = len(canaries.problems) > 0
    return [
        SoakCheck("answers with a 5xx", "", str(errors), "0", f"{errors} answers were 5xx{shown}" if errors else None),
        SoakCheck(
            "requests that failed",
            "",
            str(tally.failed),
            "0",
            f"{tally.failed} requests failed{shown}" if tally.failed else None,
        ),
        SoakCheck(
            "canaries with other tokens", asked, str(canaries.changed), "0", canaries.problems[0] if failed else None
        ),
    ]


def _number(value: float) -> str:
    return f"{value:.4g}"


def _mib(size_bytes: float) -> str:
    return f"{size_bytes / MIB:.1f} MiB"
