"""What a fuzzing found, as a table, and whether it is as it should be."""

import sys
from collections import Counter
from collections.abc import Mapping

from panacea_lab.bench.measurement import table
from tests.fuzz.attack import Outcome

# A short context, so that a request that lost its limit of tokens is over soon.
SERVE = (sys.executable, "-m", "panacea_commands", "serve", "--port", "0", "--max-context", "96", "--max-batch", "16")

LEAST_PARSED = 0.3
MEMORY_MIB = 32.0
"""How much a process' memory may grow between the warm-up and the end: arenas of an allocator, a cache that fills."""


def verdict(outcome: Outcome) -> list[str]:
    """Reasons why it is not as it should be."""
    reasons = list(outcome.problems)
    if outcome.parsed < LEAST_PARSED * outcome.sent:
        reasons.append(f"only {outcome.parsed} of {outcome.sent} bodies got past JSON parsing")
    for name, (before, *_, after) in outcome.memory_mib.items():
        if after > before + MEMORY_MIB:
            reasons.append(f"{name}: memory grew from {before} to {after} MiB")
    return reasons


def report(outcome: Outcome) -> str:
    """Counts by endpoint and by kind, and the reasons."""
    memory = ", ".join(f"{name} {a:.1f} -> {b:.1f} MiB" for name, (a, *_, b) in outcome.memory_mib.items())
    lines = [
        f"{outcome.sent} requests, {outcome.parsed / max(1, outcome.sent):.0%} got past JSON parsing; "
        f"slowest answer {outcome.slowest_s:.1f} s; {outcome.canaries} canaries; {memory}",
        "",
        _counts("endpoint", outcome.statuses),
        "",
        _counts("mutation", outcome.kinds),
        "",
        *(f"NOT PASSED: {reason}" for reason in verdict(outcome)),
    ]
    return "\n".join(lines)


def _counts(name: str, counts: Mapping[str, Counter[str]]) -> str:
    statuses = sorted({status for each in counts.values() for status in each})
    rows = [[key, *(str(each[status] or "") for status in statuses)] for key, each in sorted(counts.items())]
    return table([name, *statuses], rows)
