"""Every kernel compiles for the chips of the last years, without spilling and within their shared memory."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import panacea_kernels

pytest.importorskip("triton", reason="Triton is for Linux on x86-64 alone")
from panacea_kernels.aot import SHARED_BYTES, Compiled

# Nothing is compiled where kernels are interpreted.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
MODULES = Path(panacea_kernels.__file__).parent / "triton_kernels"
KERNELS = {
    name
    for path in MODULES.glob("*.py")
    for name in re.findall(r"^def (_\w+_kernel)\(", path.read_text(), re.MULTILINE)
}


@pytest.mark.slow
@pytest.mark.timeout(1200)  # two minutes of two cores
def test_every_kernel_and_choice_of_tiles_compiles_for_every_chip(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    ran = subprocess.run(
        [sys.executable, "-m", "panacea_kernels.aot", "--json", report],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    compiled = json.loads(report.read_text())
    assert {entry["chip"] for entry in compiled} == set(SHARED_BYTES)
    assert {entry["kernel"] for entry in compiled} == KERNELS
    assert len(KERNELS) >= 11
    assert all(entry["registers"] > 0 for entry in compiled)


@pytest.mark.slow
def test_a_kernel_that_spills_or_wants_too_much_is_a_fault() -> None:
    """The control: tiles that no chip holds in registers."""
    code = """
from dataclasses import replace
from panacea_kernels import aot
from panacea_kernels.triton_kernels import linear_tiles
plain = linear_tiles.fused_tiles
linear_tiles.fused_tiles = lambda *args: replace(plain(*args), block_rows=128, block_out=128, num_warps=4)
aot.cases = lambda: [("too large", lambda: aot._linear(128, 256, aot.torch.bfloat16))]
print(aot.compile_one(0, 80).fault)
"""
    ran = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert ran.stdout.startswith(("spills: ", "needs "))


def test_faults_are_named() -> None:
    good = Compiled("case", "kernel", 90, registers=128, stack_bytes=0, shared_bytes=SHARED_BYTES[90], seconds=1)
    assert good.fault == ""
    spilling = Compiled("case", "kernel", 90, registers=255, stack_bytes=16, shared_bytes=0, seconds=1)
    assert spilling.fault == "spills: 16 bytes of stack"
    greedy = Compiled("case", "kernel", 80, registers=128, stack_bytes=0, shared_bytes=SHARED_BYTES[90], seconds=1)
    assert greedy.fault.startswith("needs 232448 bytes of shared memory")
    broken = Compiled("case", "kernel", 80, registers=0, stack_bytes=0, shared_bytes=0, seconds=1, error="SyntaxError")
    assert broken.fault == "SyntaxError"
