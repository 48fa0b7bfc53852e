"""`make benchmarks`: the tests and every bench on one GPU within 20 minutes, and a page with the results.

    python -m panacea_lab.bench.benchmark_suite [--model llama-3.1-8b] [--out docs/benchmarks.md] [--quick]

Each part runs in a process of its own, so that one that dies or takes too long takes no other with it. From a checkout
that is not installed: PYTHONPATH=server:kernels python -m panacea_lab.bench.benchmark_suite.
"""

import argparse
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from panacea.config import Device
from panacea.errors import PanaceaError
from panacea_lab.bench import decode, projection_kernels, throughput
from panacea_lab.bench.benchmarks_page import render, replace_measured, targets
from panacea_lab.bench.decode import DecodeBench
from panacea_lab.bench.kernel_smoke import smoke
from panacea_lab.bench.measurement import choose_device, machine
from panacea_lab.bench.projection_kernels import KernelsBench
from panacea_lab.bench.random_model import read_config
from panacea_lab.bench.throughput import ThroughputBench

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs/benchmarks.md" if (ROOT / "docs").is_dir() else Path("benchmarks.md")
SECOND_MODEL = "qwen2.5-0.5b"
LEAST_S = 20.0
"""A part that has less time than this is left out."""
SOFT = 0.8
"""A bench begins nothing new after this share of its time; at the end of it its process is ended."""


@dataclass(frozen=True)
class SuiteSettings:
    """What all parts share."""

    model: str
    device: Device
    quick: bool


@dataclass(frozen=True)
class SuitePart:
    """A step of the suite. `seconds` is its share of an H200's 20 minutes; what it leaves goes to those after it."""

    name: str
    seconds: float
    run: Callable[[float], dict[str, Any]]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m panacea_lab.bench.benchmark_suite", description=__doc__)
    parser.add_argument("--model", default="llama-3.1-8b", help="a name of bench/configs, or a config.json")
    parser.add_argument("--out", type=Path, default=PAGE, help="the page; its numbers go beside it as JSON")
    parser.add_argument("--minutes", type=float, default=20.0, help="for all of it")
    parser.add_argument("--quick", action="store_true", help="no tests, fewer sizes: some minutes")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu only shows that all of it runs")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    settings = SuiteSettings(options.model, options.device, options.quick)
    try:
        if options.part is not None:
            options.json.write_text(json.dumps(measure(options.part, settings, options.seconds)), "utf-8")
            return 0
        read_config(options.model)
        if options.device == "cpu" and options.out == PAGE:
            raise PanaceaError(f"a CPU's numbers do not belong into {PAGE.name}: name another file with --out")
        if options.device == "cuda" and not torch.cuda.is_available():
            raise PanaceaError("torch finds no CUDA device: nothing was measured, and the page stays as it is")
        return run_all(settings, options.out, options.minutes * 60)
    except PanaceaError as error:
        print(f"panacea: error: {error}", file=sys.stderr)
        return 2


def parts_of(settings: SuiteSettings) -> list[SuitePart]:
    def bench(name: str) -> Callable[[float], dict[str, Any]]:
        return lambda seconds: in_process(name, settings, seconds)

    second = [] if settings.model == SECOND_MODEL or settings.device == "cpu" else [f"decode {SECOND_MODEL}"]
    return [
        SuitePart("tests", 240, lambda seconds: run_tests(settings, seconds)),
        SuitePart("memory checker", 75, lambda seconds: run_sanitizer(settings, seconds)),
        SuitePart("kernels", 230, bench("kernels")),
        SuitePart(f"decode {settings.model}", 310, bench(f"decode {settings.model}")),
        SuitePart("throughput", 230, bench("throughput")),
        *(SuitePart(name, 115, bench(name)) for name in second),
    ]


def run_all(settings: SuiteSettings, out: Path, seconds: float) -> int:
    """Runs all parts and writes the page. 1 if a part failed or the tests did, else 0."""
    start = time.monotonic()
    share = seconds / sum(part.seconds for part in parts_of(settings))
    done: dict[str, Any] = {}
    owed = 0.0
    for part in parts_of(settings):
        left = seconds - (time.monotonic() - start)
        owed += part.seconds * share
        budget = min(left, owed - (time.monotonic() - start))
        print(f"[{left / 60:4.1f} min left] {part.name}: up to {max(budget, 0):.0f} s", flush=True)
        began = time.monotonic()
        if budget < LEAST_S:
            outcome = _outcome("left out", f"only {max(budget, 0):.0f} s were left")
        else:
            outcome = part.run(budget)
        done[part.name] = outcome | {"seconds": round(time.monotonic() - began, 1)}
        print(f"                {outcome['status']}: {outcome['summary']}", flush=True)
    results = {
        "machine": machine(choose_device(settings.device)),
        "model": settings.model,
        "quick": settings.quick,
        "code": _commit(),
        "minutes": round((time.monotonic() - start) / 60, 1),
        "parts": done,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    before = out.read_text("utf-8") if out.is_file() else ""
    out.write_text(replace_measured(before, render(results)), "utf-8")
    out.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    for target in targets(done):
        print(f"{target.verdict:<13} {target.goal}: {target.measured}")
    print(f"{results['minutes']:.1f} minutes; {out} and {out.with_suffix('.json').name} written")
    return int(any(part["status"] == "failed" for part in done.values()))


def measure(part: str, settings: SuiteSettings, seconds: float) -> dict[str, Any]:
    """A bench in this process. What it prints is for people who watch."""
    quick, device = settings.quick, settings.device
    if part == "kernels":
        sizes: dict[str, Any] = {"rows": (1, 32, 256), "ranks": (11, 64), "rounds": 10} if quick else {}
        result = KernelsBench(settings.model, device=device, seconds=seconds, **sizes).run()
        print(projection_kernels.report(result))
    elif part.startswith("decode "):
        sizes = {"batches": (1, 32, 256), "rounds": 6, "compiler": None} if quick else {"compiled_batches": (1, 32)}
        if device == "cpu":
            sizes |= {"batches": (1, 3), "context": 64}
        result = DecodeBench(part.removeprefix("decode "), device=device, seconds=seconds, **sizes).run()
        print(decode.report(result))
    elif part == "throughput":
        sizes = {"requests": 64, "rounds": 1} if quick else {}
        if device == "cpu":
            sizes |= {"requests": 8, "prompt": (4, 40), "answer": (4, 24)}
        result = ThroughputBench(settings.model, device=device, seconds=seconds, **sizes).run()
        print(throughput.report(result))
    elif part == "smoke":
        result = smoke(device)
    else:
        raise PanaceaError(f"there is no part {part!r}")
    return result


def _outcome(status: str, summary: str, result: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"status": status, "summary": summary, "result": result}


def in_process(part: str, settings: SuiteSettings, seconds: float) -> dict[str, Any]:
    """A bench in a process of its own, which is ended when it is long over its time."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        command = [*_command(settings), "--part", part, "--seconds", str(SOFT * seconds), "--json", str(file)]
        code, output = run_command(command, seconds, show=True)
        if code is None:
            return _outcome("failed", f"ended after {seconds:.0f} s without a result")
        if code or not file.is_file():
            return _outcome("failed", f"exit code {code}: {last_line(output)}")
        result: dict[str, Any] = json.loads(file.read_text("utf-8"))
    left_out: list[str] = result.get("left_out", [])
    summary = f"{len(left_out)} sizes left out" if left_out else "complete"
    return _outcome("done", summary, result)


def run_tests(settings: SuiteSettings, seconds: float) -> dict[str, Any]:
    """Kernels and engine against their references on this device."""
    if settings.quick:
        return _outcome("left out", "--quick")
    folders = [folder for folder in ("tests/kernels", "tests/engine") if (ROOT / folder).is_dir()]
    if not folders or importlib.util.find_spec("pytest") is None:
        return _outcome("left out", "pytest is not installed" if folders else "there are no tests beside this package")
    command = [sys.executable, "-m", "pytest", *folders, "-vv", "-p", "no:cacheprovider"]
    if any(importlib.util.find_spec(name) is None for name in ("msgspec", "zmq")):
        command.append("--ignore=tests/engine/test_process.py")  # the engine's process needs them, no bench does
    code, output = run_command(command, seconds, show=False)
    if code is None:  # a line for each test says how far it came
        passed, failed = (len(re.findall(rf" (?:{word})\b", output)) for word in ("PASSED", "FAILED|ERROR"))
        summary = f"{passed} passed and {failed} failed within {seconds:.0f} s; the others were not reached"
        return _outcome("failed" if failed else "not finished", summary)
    if code:
        print(output[-4000:])
    return _outcome("failed" if code else "passed", last_line(output))


def run_sanitizer(settings: SuiteSettings, seconds: float) -> dict[str, Any]:
    """Every kernel at odd sizes under compute-sanitizer: none reads or writes outside its tensors."""
    tool = shutil.which("compute-sanitizer")
    if settings.quick or settings.device == "cpu" or tool is None:
        why = "--quick" if settings.quick else "needs CUDA" if tool else "compute-sanitizer is not installed"
        return _outcome("left out", why)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        command = [tool, "--tool", "memcheck", "--error-exitcode", "77", *_command(settings)]
        command += ["--part", "smoke", "--seconds", str(seconds), "--json", str(file)]
        # Without torch's caching every tensor has bounds of its own that the tool can see.
        code, output = run_command(command, seconds, show=False, environment={"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"})
    if code is None:
        return _outcome("not finished", f"no error within {seconds:.0f} s")
    if code == 77:
        print(output[-4000:])
        return _outcome("failed", "compute-sanitizer found errors")
    return _outcome("passed", "no errors") if code == 0 else _outcome("failed", last_line(output))


def _command(settings: SuiteSettings) -> list[str]:
    command = [
        sys.executable,
        "-m",
        "panacea_lab.bench.benchmark_suite",
        "--model",
        settings.model,
        "--device",
        settings.device,
    ]
    return [*command, "--quick"] if settings.quick else command


def run_command(
    command: Sequence[str], seconds: float, *, show: bool, environment: dict[str, str] | None = None
) -> tuple[int | None, str]:
    """Exit code, or None if it was ended for taking longer, and what it wrote."""
    here = [str(ROOT / "server"), str(ROOT / "kernels"), str(ROOT)] if (ROOT / "kernels").is_dir() else []
    paths = os.pathsep.join([*here, *filter(None, [os.environ.get("PYTHONPATH")])])
    set_anew = {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", **(environment or {})}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as writing, log.open(encoding="utf-8", errors="replace", newline="") as reading:
            process = subprocess.Popen(
                command,
                stdout=writing,
                stderr=writing,
                cwd=ROOT if here else None,
                env={**os.environ, **set_anew},
                start_new_session=True,
            )
            end = time.monotonic() + seconds
            try:
                while process.poll() is None and time.monotonic() < end:
                    time.sleep(0.2)
                    if show:
                        print(reading.read(), end="", flush=True)
                code = process.poll()
            finally:  # Ctrl-C comes here too
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)  # with the processes that compile for it
                    process.wait()
            if show:
                print(reading.read(), flush=True)
        return code, log.read_text("utf-8", errors="replace")


def _commit() -> str | None:
    """The checkout that was measured, with a + if it has changes."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        return None
    asked = subprocess.run(
        [git, "describe", "--always", "--dirty=+"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or None


def last_line(output: str) -> str:
    """The last line that says something; of a progress bar what stood there last."""
    lines = [line.rpartition("\r")[2].strip() for line in output.splitlines()]
    return next((line for line in reversed(lines) if line), "no output")[:200]


if __name__ == "__main__":
    sys.exit(main())
