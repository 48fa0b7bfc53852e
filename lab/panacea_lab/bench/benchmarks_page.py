"""The measured part of docs/benchmarks.md: the targets with their verdicts, and the tables."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from panacea_lab.bench import decode, projection_kernels, throughput
from panacea_lab.bench.measurement import machine_line

BEGIN = "<!-- measured: begin (written by `make benchmarks`; do not edit) -->"
END = "<!-- measured: end -->"
MODEL = "llama-3.1-8b"
DTYPE = "bfloat16"

Verdict = Literal["met", "NOT MET", "not measured"]


@dataclass(frozen=True)
class Target:
    """A promise, and what the measurement says of it."""

    goal: str
    measured: str
    verdict: Verdict


def targets(parts: Mapping[str, Any]) -> list[Target]:
    """All targets. Without a result of their shapes and dtype they are "not measured"."""
    steps = _result(parts, f"decode {MODEL}")
    mix = _result(parts, "throughput")
    return [
        _over_base(steps, 11, 2.0, "graph"),
        _over_base(steps, 11, 2.0, "step"),
        _over_base(steps, 64, 4.0, "graph"),
        _over_base(steps, 64, 4.0, "step"),
        _bandwidth(steps, 0.8),
        _ratio(mix, "different_over_transformers", 2.0, "times transformers' continuous batching of the bare base"),
        _ratio(mix, "different_over_one", 0.99, "of the throughput of one preference"),
    ]


def _result(parts: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """A part's result, if it is of the model and the dtype that the targets speak of."""
    result: Mapping[str, Any] | None = parts.get(name, {}).get("result")
    fits = result is not None and (result["model"], result["dtype"], result["machine"]["device"]) == (
        MODEL,
        DTYPE,
        "cuda",
    )
    return result if fits else None


_CLOCKS = {"graph": "the device's clock", "step": "whole steps of the engine"}


def _over_base(result: Mapping[str, Any] | None, rank: int, most: float, clock: str) -> Target:
    goal = f"steered decode, rank {rank}: at most {most:g} % over the base at every batch ({_CLOCKS[clock]})"
    rows = [row for row in result["rows"] if row["rank"] == rank] if result else []
    key = f"{clock}_over_base_percent"

    def describe(row: Mapping[str, Any]) -> str:
        return f"{row[key]:+.1f} % ({row[f'{clock}_over_base_us']:+.0f} us) at batch {row['batch']}"

    return _judge(goal, rows, decode.BATCHES, lambda row: row[key], lambda value: value <= most, describe)


def _bandwidth(result: Mapping[str, Any] | None, least: float) -> Target:
    goal = f"steered decode, rank 11: at least {least:.0%} of the bandwidth limit at batch 1 to 32"
    wanted = [batch for batch in decode.BATCHES if batch <= 32]
    rows = [row for row in result["rows"] if row["rank"] == 11 and row["batch"] <= 32] if result else []

    def describe(row: Mapping[str, Any]) -> str:
        return f"{row['graph_share']:.0%} at batch {row['batch']} ({row['step_share']:.0%} of whole steps)"

    return _judge(goal, rows, wanted, lambda row: -row["graph_share"], lambda value: -value >= least, describe)


def _judge(
    goal: str,
    rows: Sequence[Mapping[str, Any]],
    batches: Sequence[int],
    badness: Callable[[Mapping[str, Any]], float],
    fits: Callable[[float], bool],
    describe: Callable[[Mapping[str, Any]], str],
) -> Target:
    """By the worst row. A batch that is missing can no longer make it met, a row that misses makes it not met."""
    if not rows:
        return Target(goal, "-", "not measured")
    worst = max(rows, key=badness)
    missing = sorted(set(batches) - {row["batch"] for row in rows})
    measured = f"at worst {describe(worst)}" + (f"; not measured at {', '.join(map(str, missing))}" if missing else "")
    if not fits(badness(worst)):
        return Target(goal, measured, "NOT MET")
    return Target(goal, measured, "not measured" if missing else "met")


def _ratio(result: Mapping[str, Any] | None, key: str, least: float, of: str) -> Target:
    goal = f"throughput with all preferences different: at least {least:g} {of}"
    value: float | None = result[key] if result else None
    if value is None:
        return Target(goal, "-", "not measured")
    return Target(goal, f"{value:.3f}", "met" if value >= least else "NOT MET")


def render(results: Mapping[str, Any] | None) -> str:
    """The section between the marks. `results` is None if nothing has been measured yet."""
    lines = [BEGIN, "", "## Targets", ""]
    parts: Mapping[str, Any] = results["parts"] if results else {}
    if results is None:
        lines += [
            "**Not measured yet.** No GPU was available when this page was written. `make benchmarks` writes the "
            "results here.",
            "",
        ]
    else:
        lines += [
            f"{machine_line(results['machine'])}. The targets are for one H200, with {MODEL} shapes in {DTYPE}.",
            *([f"Commit {results['code']}."] if results["code"] else []),
            "",
        ]
        for name in ("tests", "memory checker"):
            if parts[name]["status"] == "failed":
                lines += [f"**The {name} failed on this device, so these numbers come from incorrect code.**", ""]
    lines += markdown(
        ["target", "measured", "verdict"],
        [
            [target.goal, target.measured, target.verdict if results else "not measured yet"]
            for target in targets(parts)
        ],
    )
    if results is None:
        for title in ("Kernels", "Decode", "Throughput"):
            lines += ["", f"## {title}", "", "Not measured yet."]
        return "\n".join([*lines, "", END])
    lines += ["", "## What ran", "", *_what_ran(results)]
    for name, part in parts.items():
        if part.get("result") is not None:
            lines += ["", f"## {name[0].upper()}{name[1:]}", "", *_TABLES[part["result"]["bench"]](part["result"])]
    return "\n".join([*lines, "", END])


def _what_ran(results: Mapping[str, Any]) -> list[str]:
    rows = [
        [name, part["status"], f"{part['seconds']:.0f}", " ".join(part["summary"].split())]
        for name, part in results["parts"].items()
    ]
    return markdown(["part", "", "seconds", ""], rows)


def _kernels(result: Mapping[str, Any]) -> list[str]:
    reasons = sorted({f"{name}: {why}" for cell in result["cells"] for name, why in cell["skipped"].items()})
    return [
        f"{result['model']} shapes in {result['dtype']}: {', '.join(_groups(result))}. Copy rate "
        f"{result['copy_bytes_per_s'] / 1e9:.0f} GB/s; {result['empty_node_us']:.2f} us per empty graph node. "
        f"The table shows the microseconds of all projections of one layer, and the overhead of each way over cuBLAS "
        f"without an adapter. The last column is the largest error of any path against float32.",
        "",
        *markdown(*projection_kernels.lines(result)),
        *_left_out(result),
        *(["", "Not measured: " + "; ".join(reasons) + "."] if reasons else []),
    ]


def _groups(result: Mapping[str, Any]) -> list[str]:
    shapes = {cell["group"]: (cell["in_features"], cell["sections"]) for cell in result["cells"]}
    return [f"{name} {size} -> {'+'.join(map(str, sections))}" for name, (size, sections) in shapes.items()]


def _decode(result: Mapping[str, Any]) -> list[str]:
    return [
        f"{result['model']} shapes in {result['dtype']}, {result['context']} tokens of context, copy rate "
        f"{result['copy_bytes_per_s'] / 1e9:.0f} GB/s. The spread is the tenth to the ninetieth percentile of "
        f"{result['rounds']} rounds, in which all variants take turns. "
        f'"Over base" compares with the faster of the two bases. "Of limit" compares with the time to read the bytes '
        f"of a step at the copy rate.",
        "",
        *markdown(*decode.lines(result)),
        "",
        "transformers' own layers run the same steps of the bare base with the engine's attention:",
        "",
        *markdown(*decode.competitor_lines(result)),
        *_left_out(result),
    ]


def _throughput(result: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{result['model']} shapes in {result['dtype']}: {result['requests']} requests at once, prompts of "
        f"{result['prompt_lengths'][0]} to {result['prompt_lengths'][1]} tokens, answers of "
        f"{result['answer_lengths'][0]} to {result['answer_lengths'][1]}, rank {result['rank']}.",
        "",
        *markdown(*throughput.lines(result)),
    ]
    if "transformers_settings" in result:
        settings = ", ".join(f"{name} {value}" for name, value in result["transformers_settings"].items())
        lines += ["", f"transformers' own choices: {settings}."]
    return [*lines, *(f"\nNot measured: {way}: {reason}" for way, reason in result["reasons"].items())]


_TABLES: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "kernels": _kernels,
    "decode": _decode,
    "throughput": _throughput,
}


def _left_out(result: Mapping[str, Any]) -> list[str]:
    left_out: Sequence[str] = result["left_out"]
    return ["", f"Left out: {'; '.join(left_out[:12])}{' ...' if len(left_out) > 12 else ''}."] if left_out else []


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table's lines."""
    return [
        "| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *(map(_cell, row) for row in rows))
    ]


def _cell(text: str) -> str:
    return text.replace("|", "\\|") or " "


def replace_measured(page: str, section: str) -> str:
    """The page with its measured part replaced by `section`, which is appended if the page has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        return f"{page.rstrip()}\n\n{section}\n" if page.strip() else f"# Benchmarks\n\n{section}\n"
    return before + section + after
