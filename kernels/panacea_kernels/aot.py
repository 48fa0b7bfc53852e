"""Compiles every kernel ahead of time, without a GPU: `python -m panacea_kernels.aot`.

The operators are called as the engine calls them, but with meta tensors, which have shapes and no data. Each launch is
compiled for each chip instead of being run, with the tiles that the launcher chose. The report shows registers, stack
and shared memory. The exit code is 1 if a kernel does not compile, spills, or needs more shared memory than the chip
has.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

import panacea_kernels as pk
from panacea_kernels.chip import REFERENCE_CHIP, Chip

SHARED_BYTES = {80: 163 * 1024, 89: 99 * 1024, 90: 227 * 1024, 100: 227 * 1024}
"""Maximum shared memory of a program, by chip (CUDA C++ programming guide, technical specifications)."""
SMALLER = {89: 80}
"""Maps a chip to one with the same instructions and more shared memory. Only kernels whose tiles differ between the two
are compiled again. 86 has as much shared memory as 89."""

_POINTERS = {
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.float32: "*fp32",
    torch.int32: "*i32",
    torch.int64: "*i64",
}
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


@dataclass(frozen=True)
class Compiled:
    """The compiler's report on one kernel for one chip."""

    case: str
    kernel: str
    chip: int
    registers: int
    stack_bytes: int
    shared_bytes: int
    seconds: float
    error: str = ""

    @property
    def fault(self) -> str:
        """Why this kernel must not ship. Empty if it may."""
        if self.error:
            return self.error
        if self.stack_bytes:
            return f"spills: {self.stack_bytes} bytes of stack"
        if self.shared_bytes > SHARED_BYTES[self.chip]:
            return f"needs {self.shared_bytes} bytes of shared memory, but the chip has {SHARED_BYTES[self.chip]}"
        return ""


@dataclass(frozen=True)
class Specialisation:
    """A kernel with the types and constants of one launch, specialised as Triton's just-in-time compiler does it."""

    kernel: Any
    signature: dict[str, str]
    constants: dict[str, Any]
    attributes: dict[tuple[int], list[list[Any]]]
    options: dict[str, int]

    @classmethod
    def of_launch(cls, kernel: Any, args: tuple[Any, ...], options: dict[str, Any]) -> "Specialisation":
        launch_options: dict[str, int] = {
            name: value for name, value in options.items() if name in ("num_warps", "num_stages")
        }
        given = dict(zip(kernel.arg_names, args, strict=False))
        given |= {name: value for name, value in options.items() if name not in launch_options}
        signature: dict[str, str] = {}
        constants: dict[str, Any] = {}
        attributes: dict[tuple[int], list[list[Any]]] = {}
        for index, parameter in enumerate(kernel.params):
            value = given.get(parameter.name, parameter.default)
            one = isinstance(value, int) and value == 1 and not parameter.do_not_specialize
            if parameter.is_constexpr or value is None or one:
                signature[parameter.name] = "constexpr"
                constants[parameter.name] = value
                continue
            if isinstance(value, torch.Tensor):
                signature[parameter.name] = _POINTERS[value.dtype]
            elif isinstance(value, int):
                signature[parameter.name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            else:
                signature[parameter.name] = "fp32"
            aligned = isinstance(value, torch.Tensor) or (isinstance(value, int) and value % 16 == 0)
            if aligned and not (parameter.do_not_specialize or parameter.do_not_specialize_on_alignment):
                attributes[(index,)] = [["tt.divisibility", 16]]
        return cls(kernel, signature, constants, attributes, launch_options)

    @property
    def key(self) -> str:
        return f"{self.kernel.__name__}{self.signature}{self.constants}{self.attributes}{self.options}"


def cases() -> Iterator[tuple[str, Callable[[], object]]]:
    """Operator calls that together launch every kernel: those of a Llama-3.1-8B step, and one for each other path."""
    for dtype in DTYPES:
        name = str(dtype).removeprefix("torch.")
        every = dtype == torch.bfloat16
        for rows in (1, 32, 64, 256) if every else (1, 256):
            for rank in (0, 11, 24, 64) if every else (11,):
                yield f"linear {name} rows {rows} rank {rank}", partial(_linear, rows, rank, dtype)
        yield f"expand {name} rows 4096 rank 11", partial(_linear, 4096, 11, dtype)
        yield f"attention {name} decode", partial(_attention, dtype, 128, decode=256)
        yield f"attention {name} decode split", partial(_attention, dtype, 128, decode=1)
        yield f"attention {name} prefill", partial(_attention, dtype, 128, decode=0)
        yield f"decoder {name}", partial(_decoder, dtype)
        yield f"draw {name}", partial(_draw, dtype)
    bf16 = torch.bfloat16
    yield "linear bfloat16 rank 128", partial(_linear, 16, 128, bf16)
    yield "linear bfloat16 rank 256", partial(_linear, 16, 256, bf16)
    yield "linear bfloat16 invariant", partial(_linear, 1, 11, bf16, invariant=True)
    yield "expand bfloat16 rows 16 rank 256", partial(_linear, 16, 256, bf16, path="triton_expand")
    for dim in (64, 256):
        yield f"attention bfloat16 dim {dim} decode", partial(_attention, bf16, dim, decode=1)
        yield f"attention bfloat16 dim {dim} prefill", partial(_attention, bf16, dim, decode=0)
    for group in (1, 7, 8, 32):
        yield f"attention bfloat16 group {group} decode", partial(_attention, bf16, 128, decode=1, group=group)
        yield f"attention bfloat16 group {group} prefill", partial(_attention, bf16, 128, decode=0, group=group)
    yield "attention bfloat16 window and softcap", partial(_attention, bf16, 128, decode=1, window=4096, softcap=50.0)


def _empty(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


def _linear(
    rows: int, rank: int, dtype: torch.dtype, *, path: pk.Backend = "triton", invariant: bool = False
) -> object:
    sections, size = (4096, 1024, 1024), 4096
    x, weight = _empty(rows, size, dtype=dtype), _empty(sum(sections), size, dtype=dtype)
    if not rank:
        with pk.use_backend("triton_fused"):
            return pk.linear(x, weight)
    a, b = _empty(3 * rank, size, dtype=dtype), _empty(sum(sections), rank, dtype=dtype)
    table, slots = _empty(257, rank, dtype=torch.float32), _empty(rows, dtype=torch.int32)
    if rank > 64 and path == "triton":
        path = "triton_fused"
    with pk.use_backend(path), pk.batch_invariant() if invariant else nullcontext():
        return pk.steered_linear(x, weight, a, b, table, slots, None, sections)


def _layout(rows: int, decode: int) -> pk.PagedLayout:
    return pk.PagedLayout(
        positions=_empty(rows, dtype=torch.int32),
        slots=_empty(rows, dtype=torch.int32),
        block_tables=_empty(257, 8192, dtype=torch.int32),
        block_size=16,
        decode_rows=decode,
        longest_decode=8192,
        chunks=() if decode else (pk.QueryChunk(0, rows, 1, 0),),
        tiles=_empty(0 if decode else -(-rows // pk.TILE_QUERIES), 2, dtype=torch.int32),
    )


def _attention(
    dtype: torch.dtype,
    dim: int,
    *,
    decode: int,
    group: int = 4,
    window: int | None = None,
    softcap: float | None = None,
) -> object:
    rows = decode or 512
    caches = [_empty(1024, 16, 8, dim, dtype=dtype) for _ in range(2)]
    q = _empty(rows, 8 * group, dim, dtype=dtype)
    return pk.paged_attention(q, caches[0], caches[1], _layout(rows, decode), dim**-0.5, window, softcap)


def _decoder(dtype: torch.dtype) -> None:
    rows, size, dim = 256, 4096, 128
    x, weight = _empty(rows, size, dtype=dtype), _empty(size, dtype=dtype)
    caches = [_empty(1024, 16, 8, dim, dtype=dtype) for _ in range(2)]
    table, norm = _empty(8192, dim, dtype=dtype), _empty(dim, dtype=dtype)
    layout = _layout(rows, rows)
    pk.add_rms_norm(x, None, weight, 1e-5)
    pk.add_rms_norm(x, x, weight, 1e-5)
    pk.silu_mul(_empty(rows, 28672, dtype=dtype))
    qkv = _empty(rows, 48 * dim, dtype=dtype)
    pk.rotate_and_store(qkv, table, table, caches[0], caches[1], layout)
    pk.rotate_and_store(qkv, table, table, caches[0], caches[1], layout, norm, norm, 1e-6)
    pk.store(_empty(rows, 8, dim, dtype=dtype), _empty(rows, 8, dim, dtype=dtype), caches[0], caches[1], layout)


def _draw(dtype: torch.dtype) -> object:
    floats = _empty(256, dtype=torch.float32)
    top_k, keys = _empty(256, dtype=torch.int32), _empty(256, dtype=torch.int64)
    return pk.draw(_empty(256, 128256, dtype=dtype), floats, top_k, floats, keys)


def specialisations(chip: int) -> list[tuple[str, Specialisation]]:
    """Every distinct specialisation that must compile for a chip, with the first case that launches it."""
    known = Chip(REFERENCE_CHIP.multiprocessors, min(REFERENCE_CHIP.shared_bytes, SHARED_BYTES[chip]))
    found: dict[str, tuple[str, Specialisation]] = {}
    for name, call in cases():

        def note(kernel: Any, _grid: object, args: tuple[Any, ...], options: dict[str, Any], name: str = name) -> None:
            made = Specialisation.of_launch(kernel, args, options)
            found.setdefault(made.key, (name, made))

        with pk.intercept_launches(note), pk.use_backend("triton"), patch("panacea_kernels.chip.REFERENCE_CHIP", known):
            call()
    return list(found.values())


def own_indices(chip: int) -> list[int]:
    """The indices into `specialisations(chip)` that the chip of `SMALLER` with the same instructions does not cover."""
    others = {made.key for _, made in specialisations(SMALLER[chip])} if chip in SMALLER else set[str]()
    return [index for index, (_, made) in enumerate(specialisations(chip)) if made.key not in others]


def compile_one(index: int, chip: int) -> Compiled:
    """Compiles `specialisations(chip)[index]`. `chip` is the compute capability times ten, such as 80."""
    case, made = specialisations(chip)[index]
    start = time.perf_counter()
    try:
        source = ASTSource(made.kernel, made.signature, made.constants, made.attributes)
        compiled = triton.compile(source, target=GPUTarget("cuda", chip, 32), options=dict(made.options))
    except Exception as error:  # any compiler error is reported, and the other kernels are still compiled
        message = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        return Compiled(case, made.kernel.__name__, chip, 0, 0, 0, time.perf_counter() - start, message)
    seconds = time.perf_counter() - start
    registers, stack = _resources(compiled.asm["cubin"])
    return Compiled(case, made.kernel.__name__, chip, registers, stack, compiled.metadata.shared, seconds)


def _resources(cubin: bytes) -> tuple[int, int]:
    """(registers of a thread, bytes of its stack), read by the cuobjdump that Triton ships."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump reported no registers: {usage!r}")
    return int(found[1]), int(found[2])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m panacea_kernels.aot", description=__doc__)
    parser.add_argument("--chips", type=int, nargs="+", default=sorted(SHARED_BYTES), choices=sorted(SHARED_BYTES))
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="compile this many at once")
    parser.add_argument("--json", type=Path, help="write the report to this file too")
    options = parser.parse_args()
    if pk.interpreting():
        parser.error("TRITON_INTERPRET=1 is set, and the interpreter compiles nothing: unset it")
    work = [(index, chip) for chip in options.chips for index in own_indices(chip)]
    report: list[Compiled] = []
    print(f"{'kernel':<22}{'chip':>6}{'registers':>11}{'stack':>7}{'shared':>9}{'s':>6}  case")
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        for made in pool.map(compile_one, *zip(*work, strict=True)):
            report.append(made)
            line = f"{made.kernel:<22}{'sm_' + str(made.chip):>6}{made.registers:>11}{made.stack_bytes:>7}"
            print(f"{line}{made.shared_bytes:>9}{made.seconds:>6.1f}  {made.case}", flush=True)
    faulty = [made for made in report if made.fault]
    for made in faulty:
        print(f"FAULT {made.kernel} sm_{made.chip}, {made.case}: {made.fault}")
    print(f"{len(report)} kernels for {len(options.chips)} chips: {len(faulty)} faults")
    if options.json:
        options.json.write_text(json.dumps([asdict(made) | {"fault": made.fault} for made in report], indent=1))
    return 1 if faulty else 0


if __name__ == "__main__":
    sys.exit(main())
