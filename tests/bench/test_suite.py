"""`make benchmarks`: the page that it writes, and what it does about time, failures and a missing GPU."""

import copy
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from panacea_lab.bench import benchmark_suite as suite
from panacea_lab.bench.benchmark_suite import SuitePart, SuiteSettings
from panacea_lab.bench.benchmarks_page import BEGIN, END, render, replace_measured, targets
from panacea_lab.bench.decode import BATCHES
from tests.kernels.devices import DEVICE

MACHINE = {
    "device": "cuda",
    "name": "NVIDIA Made Up",
    "clock": "CUDA graphs and events",
    "torch": "2.11.0",
    "triton": "3.6.0",
    "transformers": "5.17.0",
    "cuda": "13.0",
    "driver": "580",
    "date": "2026-12-01 12:00 UTC",
}
ABOUT = {"machine": MACHINE, "model": "llama-3.1-8b", "dtype": "bfloat16"}


def decode_rows() -> list[dict[str, Any]]:
    """All that the targets ask for: a little better than they do."""
    rows: list[dict[str, Any]] = []
    for batch in BATCHES:
        for name, rank, percent in (
            ("base", None, 0.0),
            ("base_fused_gemm", None, 0.5),
            ("rank 11, different", 11, 1.9),
            ("rank 11, one", 11, 1.8),
            ("rank 64, different", 64, 3.9),
        ):
            us = 5000 * (1 + percent / 100)
            row: dict[str, Any] = {"batch": batch, "variant": name, "rank": rank, "limit_us": 4300.0}
            for clock in ("graph", "step"):
                row[f"{clock}_us"] = {"median": us, "low": us - 10, "high": us + 10}
                row[f"{clock}_share"] = 0.81 if batch <= 32 else 0.6
                row[f"{clock}_over_base_us"] = us - 5000
                row[f"{clock}_over_base_percent"] = percent
            rows.append(row)
    return rows


def results() -> dict[str, Any]:
    cell = {"group": "o", "in_features": 4096, "sections": [4096], "skipped": {}}
    layer = {"rows": 1, "rank": 11, "us": {"cublas": 120.0, "fused": 121.0}, "worst_error": 0.002}
    speed = {"tokens_per_s": {"median": 9000.0, "low": 8900.0, "high": 9100.0}, "seconds": {"median": 4.0}}
    measured: dict[str, Any] = {
        "kernels": {
            "bench": "kernels", **ABOUT, "copy_bytes_per_s": 4.3e12, "empty_node_us": 1.2, "cells": [cell],
            "layer": [layer], "left_out": ["down, 256 rows, rank 64"],
        },
        "decode llama-3.1-8b": {
            "bench": "decode", **ABOUT, "context": 1024, "rounds": 12, "copy_bytes_per_s": 4.3e12,
            "rows": decode_rows(), "left_out": [],
            "competitors": [{"batch": 1, "name": "torch.compile", "us": None, "remark": "Unsupported: a|b"}],
        },
        "throughput": {
            "bench": "throughput", **ABOUT, "requests": 256, "prompt_lengths": [32, 1024], "answer_lengths": [32, 256],
            "rank": 11, "ways": {"different": speed}, "reasons": {}, "different_over_transformers": 2.5,
            "different_over_one": 0.995,
        },
    }  # fmt: skip
    parts = {
        name: {"status": "done", "summary": "complete", "seconds": 9.0, "result": result}
        for name, result in measured.items()
    }
    checks = {
        name: {"status": "passed", "summary": "99 passed", "seconds": 60.0, "result": None}
        for name in ("tests", "memory checker")
    }
    return {
        "machine": MACHINE,
        "model": "llama-3.1-8b",
        "quick": False,
        "code": "abc123",
        "minutes": 18.0,
        "parts": {**checks, **parts},
    }


def verdicts(made: dict[str, Any]) -> list[str]:
    return [target.verdict for target in targets(made["parts"])]


def test_targets_that_are_met_are_met() -> None:
    made = results()
    assert verdicts(made) == ["met"] * 7
    page = render(made)
    assert "NOT MET" not in page
    assert "not measured" not in page.lower()
    for said in (
        "NVIDIA Made Up",
        "abc123",
        "4096 -> 4096",
        "1.20 us per empty",
        "Left out: down",
        "a\\|b",
        "99 passed",
    ):
        assert said in page


def set_percent(made: dict[str, Any], clock: str, rank: int, batch: int, percent: float) -> None:
    for row in made["parts"]["decode llama-3.1-8b"]["result"]["rows"]:
        if (row["rank"], row["batch"]) == (rank, batch):
            row[f"{clock}_over_base_percent"] = percent


def set_share(made: dict[str, Any]) -> None:
    for row in made["parts"]["decode llama-3.1-8b"]["result"]["rows"]:
        if row["batch"] == 8:
            row["graph_share"] = 0.79


MISSES: dict[int, Callable[[dict[str, Any]], object]] = {
    0: lambda made: set_percent(made, "graph", 11, 128, 2.1),
    1: lambda made: set_percent(made, "step", 11, 1, 2.1),
    2: lambda made: set_percent(made, "graph", 64, 256, 4.1),
    3: lambda made: set_percent(made, "step", 64, 8, 4.1),
    4: set_share,
    5: lambda made: made["parts"]["throughput"]["result"].update(different_over_transformers=1.99),
    6: lambda made: made["parts"]["throughput"]["result"].update(different_over_one=0.98),
}


@pytest.mark.parametrize("missed", MISSES)
def test_one_target_that_is_missed_is_not_met_and_the_others_are(missed: int) -> None:
    made = results()
    MISSES[missed](made)
    assert verdicts(made) == ["NOT MET" if index == missed else "met" for index in range(7)]
    assert render(made).count("NOT MET") == 1


def test_a_batch_that_was_left_out_keeps_a_target_from_being_met_and_not_from_being_missed() -> None:
    made = results()
    result = made["parts"]["decode llama-3.1-8b"]["result"]
    result["rows"] = [row for row in result["rows"] if row["batch"] != 256]
    assert verdicts(made) == ["not measured"] * 4 + ["met"] * 3
    assert "not measured at 256" in render(made)
    set_percent(made, "graph", 11, 1, 9.0)
    assert verdicts(made)[0] == "NOT MET"


@pytest.mark.parametrize(
    "change", [{"model": "qwen2.5-0.5b"}, {"dtype": "float16"}, {"machine": {**MACHINE, "device": "cpu"}}]
)
def test_numbers_of_other_shapes_dtypes_or_of_a_cpu_say_nothing_of_the_targets(change: dict[str, Any]) -> None:
    made = results()
    for part in made["parts"].values():
        if part["result"] is not None:
            part["result"].update(change)
    assert verdicts(made) == ["not measured"] * 7


def test_a_page_of_code_whose_tests_failed_says_so() -> None:
    made = results()
    made["parts"]["tests"] |= {"status": "failed", "summary": "3 failed"}
    assert "**The tests failed on this device" in render(made)


def test_only_the_measured_half_of_a_page_is_replaced() -> None:
    page = f"# Benchmarks\n\nWhy and how.\n\n{render(None)}\n\nAfter.\n"
    again = replace_measured(page, render(results()))
    assert again.startswith("# Benchmarks\n\nWhy and how.\n\n")
    assert again.endswith("\n\nAfter.\n")
    assert again.count(BEGIN) == again.count(END) == 1
    assert "NVIDIA Made Up" in again
    assert replace_measured(again, render(None)) == page
    assert replace_measured("", render(None)).startswith("# Benchmarks\n")


def test_the_committed_page_has_numbers_or_says_that_it_has_none() -> None:
    page = suite.PAGE.read_text("utf-8")
    numbers = suite.PAGE.with_suffix(".json")
    section = render(json.loads(numbers.read_text("utf-8")) if numbers.is_file() else None)
    assert section in page


@pytest.mark.skipif(torch.cuda.is_available(), reason="what happens where there is no GPU")
def test_without_a_gpu_it_ends_with_one_line_and_leaves_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("as it was", "utf-8")
    assert suite.main(["--out", str(page)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "panacea: error: torch finds no CUDA device: nothing was measured, and the page stays as it is"
    assert page.read_text("utf-8") == "as it was"
    assert list(tmp_path.iterdir()) == [page]
    assert suite.main(["--device", "cpu"]) == 2, "a CPU's numbers do not belong into the page"


SETTINGS = SuiteSettings("tiny", "cpu", quick=True)


def test_all_parts_end_up_on_the_page_whatever_becomes_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: list[float] = []

    def outcome(status: str, result: Any = None) -> Callable[[float], dict[str, Any]]:
        def run(seconds: float) -> dict[str, Any]:
            given.append(seconds)
            return {"status": status, "summary": f"it was {status}", "result": result}

        return run

    made = results()["parts"]
    parts = [
        SuitePart("tests", 100, outcome("passed")),
        SuitePart("memory checker", 100, outcome("left out")),
        SuitePart("kernels", 300, outcome("done", copy.deepcopy(made["kernels"]["result"]))),
        SuitePart("throughput", 100, outcome("failed")),
    ]
    monkeypatch.setattr(suite, "parts_of", lambda _settings: parts)
    out = tmp_path / "deep/page.md"
    assert suite.run_all(SETTINGS, out, 600) == 1, "a part failed"
    assert given == pytest.approx([100, 200, 500, 600], abs=2), "what one part leaves goes to those after it"
    page = out.read_text("utf-8")
    for said in ("it was passed", "it was left out", "it was failed", "us per empty graph node"):
        assert said in page
    assert json.loads(out.with_suffix(".json").read_text("utf-8"))["parts"]["throughput"]["status"] == "failed"
    assert "not measured" in capsys.readouterr().out

    given.clear()
    parts[-1] = SuitePart("throughput", 100, outcome("done", made["throughput"]["result"]))
    assert suite.run_all(SETTINGS, out, 30) == 0, "nothing failed"
    assert given == pytest.approx([25, 30], abs=2), "with under 20 seconds a part is left out"
    assert "s were left" in out.read_text("utf-8")


def test_the_memory_checkers_part_runs_every_kernel_and_the_engine() -> None:
    result = suite.measure("smoke", replace(SETTINGS, device="cuda" if DEVICE.type == "cuda" else "cpu"), 60)
    assert result == {"bench": "smoke", "checked": 4 * 2 * 7, "generated": 18}


def test_a_test_run_that_was_cut_short_tells_what_it_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = "tests/a.py::test_b PASSED [ 1%]\ntests/a.py::test_c[1] PASSED [ 2%]\n"
    for output, status, counts in (
        (seen, "not finished", "2 passed and 0 failed"),
        (seen + "tests/a.py::test_d FAILED [ 3%]\n", "failed", "2 passed and 1 failed"),
    ):
        monkeypatch.setattr(suite, "run_command", lambda *_args, output=output, **_kwargs: (None, output))
        outcome = suite.run_tests(replace(SETTINGS, quick=False), 9)
        assert outcome["status"] == status
        assert outcome["summary"].startswith(counts)


@pytest.mark.slow
def test_a_part_in_its_own_process_that_fails_or_takes_too_long_is_an_outcome() -> None:
    outcome = suite.in_process("no such part", SETTINGS, 60)
    assert outcome["status"] == "failed"
    assert "there is no part 'no such part'" in outcome["summary"]
    assert suite.in_process("kernels", SETTINGS, 0.1)["summary"] == "ended after 0 s without a result"
    assert suite.run_command([sys.executable, "-c", "print('said'); raise SystemExit(3)"], 30, show=False) == (
        3,
        "said\n",
    )
    start = time.monotonic()
    children = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    assert suite.run_command([sys.executable, "-c", children], 1, show=False) == (None, "")
    assert time.monotonic() - start < 20
    assert suite.last_line("one\n 5%|#\r 10%|##\r\ntwo: 7 passed\n\n") == "two: 7 passed"
